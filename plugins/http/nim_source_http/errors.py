"""HTTP statuses of plain servers, in core's errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nim_core.errors import (
    AuthenticationError,
    EntitlementError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RegionBlockedError,
    SourceError,
    TransientError,
)

_SIGN_IN: Final = (
    "put USER:PASSWORD@ before the host in the URI, special characters percent-encoded, or a line "
    "'machine HOST login USER password PASSWORD' into the netrc file"
)
_ERRORS: Final[Mapping[int, tuple[type[SourceError], str, str | None]]] = {
    401: (AuthenticationError, "user and password missing or wrong", _SIGN_IN),
    402: (EntitlementError, "payment required", None),
    403: (PermissionDeniedError, "access denied", "a signed URL may have expired; otherwise ask for access"),
    404: (NotFoundError, "no such file", "check the path: it is sent exactly as written, case and escapes included"),
    410: (NotFoundError, "file is gone for good", None),
    451: (RegionBlockedError, "not available from this region", None),
}


def status_error(status: int, shown: str, retry_after: str | None) -> SourceError:
    """
    Return the error for an answer that is no file.

    Args:
        status: Of the answer.
        shown: The URL without secrets.
        retry_after: The header of that name. None when there is none.
    """
    what = f"{shown} (HTTP {status})"
    if status == 429:
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
        return RateLimitedError(f"too many requests: {what}", uri=shown, retry_after=seconds)
    if status >= 500 or status in {408, 425}:
        return TransientError(f"server failed: {what}", uri=shown)
    kind, words, hint = _ERRORS.get(status, (SourceError, "not an answer to a request for a file", None))
    return kind(f"{words}: {what}", hint=hint, uri=shown)
