"""NGC's answers as errors, judged by status and status code, never by text."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nim_core.errors import (
    AuthenticationError,
    ConfigError,
    EntitlementError,
    LicenseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RegionBlockedError,
    SourceError,
    TransientError,
)
from nim_source_ngc.credentials import Pass
from nim_source_ngc.refs import NgcRef

if TYPE_CHECKING:
    import httpx

_NO_KEY = "set NGC_API_KEY (or NGC_CLI_API_KEY) to a key of a member of organisation {org}"


class BadRequestError(SourceError):
    """NGC did not accept the request (HTTP 400): among others, what a key gets outside its own organisation."""


@frozen
class _Meaning:
    kind: type[SourceError]
    message: str
    hint: str | None


_MEMBER = "ask for access to organisation {org}{team}, or set {origin} to the key of a member"
_UNKNOWN = _Meaning(SourceError, "NGC answered in an unexpected way for {ref}", None)
_BROKEN = _Meaning(TransientError, "NGC failed for {ref}", "try again later")
_MEANINGS: Mapping[int, _Meaning] = {
    400: _Meaning(BadRequestError, "NGC does not accept the request for {ref}", _MEMBER),
    401: _Meaning(
        AuthenticationError,
        "NGC does not accept the key from {origin} for {ref}",
        "set {origin} to a current key of a member of organisation {org}{team}",
    ),
    402: _Meaning(
        EntitlementError,
        "no subscription covers {ref} with the key from {origin}",
        "ask for an entitlement to organisation {org}{team}, or set {origin} to a key that has one",
    ),
    403: _Meaning(PermissionDeniedError, "the key from {origin} may not read {ref}", _MEMBER),
    404: _Meaning(
        NotFoundError,
        "NGC has no {ref}",
        "check organisation {org}{team}, the model and its version at {catalogue}; the key came from {origin}",
    ),
    412: _Meaning(
        LicenseError,
        "the terms of {ref} have to be accepted first",
        "accept them with the account of the key in {origin} at {catalogue}, then try again",
    ),
    429: _Meaning(RateLimitedError, "NGC asks for fewer requests for {ref}", "try again later"),
    451: _Meaning(
        RegionBlockedError, "NGC does not give out {ref} in this region", "see what {catalogue} says about availability"
    ),
}
_CODES: Mapping[str, int] = {
    "UNAUTHORIZED": 401,
    "PAYMENT_REQUIRED": 402,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "TOO_MANY_REQUESTS": 429,
    "INTERNAL_ERROR": 500,
    "SERVICE_UNAVAILABLE": 503,
    "TIMEOUT": 504,
    "INSUFFICIENT_STORAGE": 507,
    "INVALID_REQUEST": 400,
    "INVALID_REQUEST_DATA": 400,
    "INVALID_REQUEST_VERSION": 400,
}


def checked_json(response: httpx.Response, ref: NgcRef, granted: Pass) -> dict[str, Any]:
    """Return the object a successful answer holds. Raises SourceError in the subclass the answer asks for."""
    if response.status_code != 200:
        raise _error(response.status_code, response, ref, granted)
    with reading(ref):
        body = dict(response.json())
        code = (body.get("requestStatus") or {}).get("statusCode", "SUCCESS")
    if code != "SUCCESS":
        raise _error(_CODES.get(code, 0), response, ref, granted)
    return body


@contextmanager
def reading(ref: NgcRef) -> Iterator[None]:
    """Turn whatever a malformed answer causes within into a SourceError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, ConfigError) as exc:
        raise SourceError(
            f"NGC's answer for {ref} cannot be understood: {_one_line(str(exc))}",
            hint="a proxy or a login page may have answered; check NGC_API_ENDPOINT and HTTPS_PROXY",
        ) from exc


def _error(status: int, response: httpx.Response, ref: NgcRef, granted: Pass) -> SourceError:
    meaning = _MEANINGS.get(status, _BROKEN if status >= 500 or status == 408 else _UNKNOWN)
    origin = granted.origin or "nowhere"
    words = {"ref": ref, "org": ref.org, "team": f", team {ref.team}" if ref.team else "", "origin": origin}
    words["catalogue"] = ref.catalogue_url
    message, hint = meaning.message, meaning.hint
    if granted.origin is None and status in {400, 401, 402, 403, 404}:
        message, hint = "NGC gives {ref} to no guest, and no API key was found", _NO_KEY
    said = _quoted(response, granted)
    text = f"{message.format(**words)}: HTTP {response.status_code}" + (f", {said}" if said else "")
    hint = hint and hint.format(**words)
    if meaning.kind is RateLimitedError:
        return RateLimitedError(text, hint=hint, retry_after=_retry_after(response.headers.get("Retry-After", "")))
    return meaning.kind(text, hint=hint)


def _quoted(response: httpx.Response, granted: Pass) -> str:
    try:
        body = response.json()
        status = body.get("requestStatus") or {}
        said = status.get("statusDescription") or body.get("detail") or body.get("message") or ""
    except (ValueError, AttributeError, RecursionError):
        return ""
    text = str(said)
    for secret in granted.secrets:
        text = text.replace(secret.reveal(), "***")
    return _one_line(text)


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())[:200]


def _retry_after(value: str) -> float | None:
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
