"""Answers to "how do I sign in?", remembered until shortly before they expire."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from attrs import frozen

from nim_core.types import Credential, CredentialRequest, ModelUri, UriStyle
from nim_core.uris import without_file

__all__ = ["CredentialMemory", "GivenCredential"]

_MARGIN_SECONDS: Final = 60.0

_Key = tuple[str, str, str | None]


@frozen
class GivenCredential:
    """What the source named ``source`` was given to sign in at ``endpoint`` with."""

    source: str
    endpoint: str
    credential: Credential


class CredentialMemory:
    """
    Remembers credentials per source, endpoint and repository or, for objects, bucket; a failure is not remembered.

    Args:
        ask: Called for what is not known, by one thread at a time.
        clock: Unix time in seconds.
    """

    def __init__(self, ask: Callable[[CredentialRequest], Credential], clock: Callable[[], float] = time.time) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = Lock()
        self._known: dict[_Key, Credential] = {}

    def get(self, request: CredentialRequest) -> Credential:
        """Return a credential that is good for another minute, asking where there is none. Raises what asking does."""
        key = (request.source, request.endpoint, _repository(request.uri))
        known = self._fresh(key)
        if known is not None:
            return known
        with self._lock:
            credential = self._fresh(key) or self._ask(request)
            self._known[key] = credential
            return credential

    @property
    def given(self) -> tuple[GivenCredential, ...]:
        """What was answered, in the order of asking; once per source and endpoint where it was the same."""
        with self._lock:
            known = tuple(self._known.items())
        return tuple(
            dict.fromkeys(GivenCredential(source, endpoint, answer) for (source, endpoint, _), answer in known)
        )

    def _fresh(self, key: _Key) -> Credential | None:
        credential = self._known.get(key)
        if credential is None or credential.expires_at is None:
            return credential
        return credential if credential.expires_at - _MARGIN_SECONDS > self._clock() else None


def _repository(uri: ModelUri | None) -> str | None:
    """Return what files have in common that one credential is for; of a URL that is the host."""
    if uri is None:
        return None
    if uri.style is UriStyle.OBJECT:
        return f"{uri.scheme}://{uri.location.partition('/')[0]}"
    return str(without_file(uri))
