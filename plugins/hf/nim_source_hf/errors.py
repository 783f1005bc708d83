"""The Hub's answers as errors, judged by ``X-Error-Code`` and status."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import frozen

from nim_core.errors import (
    AuthenticationError,
    ConfigError,
    EntitlementError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RegionBlockedError,
    SourceError,
    TransientError,
)
from nim_source_hf.refs import HfRef

if TYPE_CHECKING:
    import httpx

_DISABLED = "Access to this resource is disabled."  # X-Error-Message; there is no code for it
_LIMIT = re.compile(r"\br=0\s*;\s*t=(\d{1,9})\b")


@frozen(kw_only=True)
class Asked:
    """
    What was asked, for messages.

    Attributes:
        ref: Model and revision.
        endpoint: Who was asked.
        origin: Where the token came from. None when there was none.
        file: Path in the repository. None for facts about all of it.
    """

    ref: HfRef
    endpoint: str
    origin: str | None
    file: str | None = None


@frozen
class _Meaning:
    kind: type[SourceError]
    message: str
    hint: str | None


_ACCESS = (
    "ask for access, or accept the terms, at {page} with the account of the token, then set HF_TOKEN to that token"
)
_BROKEN = _Meaning(TransientError, "the Hub failed for {what}", "try again later")
_UNKNOWN = _Meaning(SourceError, "the Hub answered in an unexpected way for {what}", "see {page}")
_CODES: Mapping[str, _Meaning] = {
    "RepoNotFound": _Meaning(
        NotFoundError,
        "no such {kind}, or a private one: {repository}",
        "check the name at {page}; for a private {kind} set HF_TOKEN to a token that may read it (this time: {origin})",
    ),
    "RevisionNotFound": _Meaning(
        NotFoundError, "{repository} has no revision {revision}", "see branches and tags at {page}/tree/main"
    ),
    "EntryNotFound": _Meaning(NotFoundError, "no such file: {what}", "see the files at {page}/tree/{revision}"),
    "GatedRepo": _Meaning(
        PermissionDeniedError, "{repository} is gated and the token from {origin} has no access", _ACCESS
    ),
    "GatedRepo 401": _Meaning(AuthenticationError, "{repository} is gated and nobody is signed in", _ACCESS),
    "disabled": _Meaning(PermissionDeniedError, "{repository} has been disabled", "see {page} for the reason"),
}
_STATUSES: Mapping[int, _Meaning] = {
    401: _Meaning(
        AuthenticationError,
        "the Hub does not accept the token from {origin} for {what}",
        "set HF_TOKEN to a current token that may read {page}",
    ),
    402: _Meaning(EntitlementError, "no subscription covers {what}", "see {page}"),
    403: _Meaning(PermissionDeniedError, "the token from {origin} may not read {what}", _ACCESS),
    404: _Meaning(NotFoundError, "nothing there: {what}", "check HF_ENDPOINT, and the name at {page}"),
    429: _Meaning(
        RateLimitedError,
        "the Hub asks for fewer requests for {what}",
        "try again later; with HF_TOKEN more are allowed",
    ),
    451: _Meaning(RegionBlockedError, "{what} is not given out in this region", "see {page}"),
}


def status_error(response: httpx.Response, asked: Asked) -> SourceError:
    """Return the error for an answer that is no success."""
    status, ref = response.status_code, asked.ref
    meaning = _meaning(response)
    words = {
        "what": f"{ref}?file={asked.file}" if asked.file else ref,
        "kind": ref.kind,
        "repository": ref.repository,
        "revision": ref.revision,
        "page": ref.page,
        "origin": asked.origin or "nowhere",
    }
    text = f"{meaning.message.format(**words)} (HTTP {status} from {asked.endpoint})"
    hint = meaning.hint and meaning.hint.format(**words)
    if meaning.kind is RateLimitedError:
        return RateLimitedError(text, hint=hint, retry_after=_retry_after(response.headers))
    return meaning.kind(text, hint=hint)


@contextmanager
def reading(ref: HfRef, endpoint: str) -> Iterator[None]:
    """Turn whatever a malformed answer causes within into a SourceError."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ConfigError) as exc:
        raise SourceError(
            f"the answer of {endpoint} for {ref} cannot be understood: {type(exc).__name__}",
            hint="a proxy or a login page may have answered; check HF_ENDPOINT and HTTPS_PROXY",
        ) from exc


def _meaning(response: httpx.Response) -> _Meaning:
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    if response.headers.get("X-Error-Message") == _DISABLED:
        code = "disabled"
    by_code = _CODES.get(f"{code} {status}") or _CODES.get(code)
    return by_code or _STATUSES.get(status, _BROKEN if status >= 500 or status == 408 else _UNKNOWN)


def _retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds to wait: ``Retry-After``, else when a spent window of ``RateLimit`` ends, and one more."""
    given = headers.get("Retry-After", "").strip()
    if given.isdecimal():
        return float(given)
    waits = [int(found) + 1.0 for found in _LIMIT.findall(headers.get("RateLimit", ""))]
    return max(waits, default=None)
