"""A registry's refusals as core's errors, judged by status; the codes of the specification are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from nim_core.errors import (
    AuthenticationError,
    ConfigError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    SourceError,
    TransientError,
)
from nim_source_oci.refs import OciRef

if TYPE_CHECKING:
    import httpx

_SIGN_IN: Final = "set OCI_REGISTRY, OCI_USERNAME and OCI_PASSWORD, or run docker login or oras login"
_MEANINGS: Final[Mapping[int, tuple[type[SourceError], str, str | None]]] = {
    401: (AuthenticationError, "the registry does not accept {origin}", _SIGN_IN),
    403: (PermissionDeniedError, "the registry gives no access to {origin}", "ask for the right to pull it"),
    404: (NotFoundError, "no such artifact", "check name and tag; some registries say this to who may not see it, too"),
}


def status_error(response: httpx.Response, ref: OciRef, origin: str | None) -> SourceError:
    """
    Return the error for an answer other than 200.

    Args:
        response: Of the registry or its token service.
        ref: What was asked for.
        origin: Where the credential came from. None for a guest.
    """
    status = response.status_code
    what = f"{ref} (HTTP {status}{_codes(response)})"
    if status == 429:
        seconds = response.headers.get("Retry-After", "")
        retry_after = float(seconds) if seconds.isdecimal() else None
        return RateLimitedError(f"the registry asks for fewer requests: {what}", retry_after=retry_after)
    if status >= 500 or status == 408:
        return TransientError(f"the registry failed: {what}")
    kind, words, hint = _MEANINGS.get(status, (SourceError, "the registry answered in an unexpected way", None))
    who = f"the credential from {origin}" if origin else "guests, and no credential was found"
    return kind(f"{words.format(origin=who)}: {what}", hint=hint)


@contextmanager
def reading(ref: OciRef) -> Iterator[None]:
    """Turn whatever a malformed answer causes within into a SourceError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as exc:
        raise SourceError(f"the registry's answer about {ref} cannot be understood: {type(exc).__name__}") from exc


def _codes(response: httpx.Response) -> str:
    """Return the error codes of an answer; the rest of it is a stranger's text, and may quote a credential."""
    found = re.findall(r'"code"\s*:\s*"([A-Z_]{1,40})"', response.text[:10_000])
    return "".join(f", {code}" for code in found[:3])
