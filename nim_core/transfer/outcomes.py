"""
What the end of a request means: a pure decision, from what libcurl and the server said to what the engine does next.

Statuses 401, 403 and 404 of a URL may only mean that a signature has expired, so the source is asked for the URL again
before they are final.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import pycurl
from attrs import frozen

from nim_core.errors import (
    AuthenticationError,
    CacheError,
    EntitlementError,
    LicenseError,
    NimError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RegionBlockedError,
    RemoteChangedError,
    SizeMismatchError,
    SourceError,
    StalledError,
    TransientError,
    UnsupportedError,
)
from nim_core.transfer.exchange import Ended
from nim_core.transfer.failures import Peer, proxy_refusal
from nim_core.transfer.retry import RETRYABLE_STATUSES, parse_retry_after
from nim_core.transfer.storage import storage_error

__all__ = ["Decision", "Next", "Refusal", "decide", "no_answer_error", "status_error"]


class Refusal(enum.Enum):
    """Why an answer that looks like data is not the data that was asked for."""

    RANGE_IGNORED = "the server sent the whole file instead of the range asked for"
    WRONG_RANGE = "the server sent another range than asked for"
    CHANGED = "the file is another version than before"
    WRONG_SIZE = "the file has another size than listed"
    TOO_LARGE = "the file is too large to be kept in memory"
    ENCODED = "the server encoded the content although that was not asked for"


class Next(enum.Enum):
    """What to do next."""

    DONE = enum.auto()
    FOLLOW = enum.auto()
    TO_DISK = enum.auto()
    RELOCATE = enum.auto()
    SINGLE = enum.auto()
    RESTART = enum.auto()
    RETRY = enum.auto()
    FAIL = enum.auto()


@frozen(kw_only=True)
class Decision:
    """
    What to do next.

    Attributes:
        next: The step.
        error: What ends the file when the step may not be taken again. None for DONE and FOLLOW.
        delay: Seconds the server asked to wait. None when it asked nothing.
        location: Where to, for FOLLOW.
        refused: Whether the server asked for fewer requests.
    """

    next: Next
    error: NimError | None = None
    delay: float | None = None
    location: str = ""
    refused: bool = False


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAYBE_EXPIRED: Final = frozenset({400, 401, 403, 404, 410})

_STATUS_ERRORS: Final[Mapping[int, tuple[type[SourceError], str]]] = {
    401: (AuthenticationError, "not signed in"),
    402: (EntitlementError, "no entitlement"),
    403: (PermissionDeniedError, "access denied"),
    404: (NotFoundError, "no such file"),
    410: (NotFoundError, "file is gone"),
    412: (LicenseError, "terms not accepted or a precondition failed"),
    416: (UnsupportedError, "range refused"),
    429: (RateLimitedError, "too many requests"),
    451: (RegionBlockedError, "not available from this region"),
}

_REFUSALS: Final[Mapping[Refusal, tuple[Next, type[NimError]]]] = {
    Refusal.RANGE_IGNORED: (Next.SINGLE, UnsupportedError),
    Refusal.WRONG_RANGE: (Next.RETRY, TransientError),
    Refusal.CHANGED: (Next.RESTART, RemoteChangedError),
    Refusal.WRONG_SIZE: (Next.RESTART, SizeMismatchError),
    Refusal.TOO_LARGE: (Next.TO_DISK, TransientError),
    Refusal.ENCODED: (Next.RETRY, UnsupportedError),
}

_TLS_HINT: Final = "set SSL_CERT_FILE to a file that holds the certificate authority of this server or proxy"
_FINAL_CODES: Final[Mapping[int, str | None]] = {
    pycurl.E_URL_MALFORMAT: None,
    pycurl.E_PEER_FAILED_VERIFICATION: _TLS_HINT,
    pycurl.E_SSL_CACERT_BADFILE: _TLS_HINT,
    pycurl.E_SSL_ISSUER_ERROR: _TLS_HINT,
}


def decide(ended: Ended, *, refusal: Refusal | None, whole: bool, peer: Peer, name: str, now: float) -> Decision:
    """
    Decide what follows from the end of a request.

    Args:
        ended: How it ended.
        refusal: Why its sink did not take the answer. None when it did, or when the status already says so.
        whole: Whether all bytes asked for are here.
        peer: Who was asked.
        name: What the file is called, for messages.
        now: Unix time in seconds, against which dates in headers are read.
    """
    host = peer.origin.host
    if ended.error is not None:
        return _for_exception(ended.error, host)
    if ended.accepted:
        return _for_data(ended, whole=whole, host=host)
    if refusal is not None:
        step, kind = _REFUSALS[refusal]
        return Decision(next=step, error=kind(f"{refusal.value}: {name} from {host}"))
    if ended.connect_status >= 300 or ended.response.status == 407:
        return _for_proxy(ended.connect_status if ended.connect_status >= 300 else 407, peer)
    if ended.response.status and not (ended.code and ended.response.status < 300):
        return _for_status(ended, host, now)
    return _for_code(ended, host)


def status_error(status: int, host: str, body: str = "") -> SourceError:
    """Return the error for a status that data did not come with."""
    passing = status >= 500 or status in RETRYABLE_STATUSES
    kind, words = _STATUS_ERRORS.get(status, (TransientError if passing else SourceError, "request failed"))
    said = f": {body}" if body else ""
    return kind(f"{words} (HTTP {status} from {host}){said}")


def no_answer_error(ended: Ended, peer: Peer) -> NimError | None:
    """Return why a request that was sent for a sink has no answer. None: it has one, whatever its status."""
    host = peer.origin.host
    if ended.error is not None:
        return _for_exception(ended.error, host).error
    if ended.connect_status >= 300 or ended.response.status == 407:
        return _for_proxy(ended.connect_status if ended.connect_status >= 300 else 407, peer).error
    if ended.response.status and not (ended.code and ended.response.status < 300):
        return None
    return _for_code(ended, host).error


def _for_proxy(status: int, peer: Peer) -> Decision:
    error = proxy_refusal(status, peer)
    return Decision(next=Next.RETRY if error.retryable else Next.FAIL, error=error)


def _for_exception(exc: BaseException, host: str) -> Decision:
    if isinstance(exc, OSError):
        return Decision(next=Next.FAIL, error=storage_error(exc))
    if isinstance(exc, NimError):
        return Decision(next=Next.RETRY if exc.retryable else Next.FAIL, error=exc)
    error = CacheError(f"internal error while data came from {host}: {type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return Decision(next=Next.FAIL, error=error)


def _for_data(ended: Ended, *, whole: bool, host: str) -> Decision:
    if ended.code == 0 and whole:
        return Decision(next=Next.DONE)
    if ended.code == 0:
        return Decision(next=Next.RETRY, error=TransientError(f"answer ended early: {host}"))
    return _for_code(ended, host)


def _for_status(ended: Ended, host: str, now: float) -> Decision:
    response = ended.response
    if response.status in _REDIRECTS and "location" in response.headers:
        return Decision(next=Next.FOLLOW, location=response.headers["location"])
    error = status_error(response.status, host)
    if response.status == 416:
        return Decision(next=Next.SINGLE, error=error)
    if response.status in RETRYABLE_STATUSES or error.retryable:
        delay = parse_retry_after(response.headers, now)
        if isinstance(error, RateLimitedError):
            error.retry_after = delay
        return Decision(next=Next.RETRY, error=error, delay=delay, refused=response.status in {429, 503})
    if response.status in _MAYBE_EXPIRED:
        return Decision(next=Next.RELOCATE, error=error)
    return Decision(next=Next.FAIL if response.status >= 400 else Next.RETRY, error=error)


def _for_code(ended: Ended, host: str) -> Decision:
    said = ended.message or f"error {ended.code}"
    if ended.code in _FINAL_CODES:
        error = SourceError(f"cannot talk to {host}: {said}", hint=_FINAL_CODES[ended.code])
        return Decision(next=Next.FAIL, error=error)
    if ended.stalled:
        after = f" for {ended.seconds:.0f} s" if ended.seconds else ""
        return Decision(next=Next.RETRY, error=StalledError(f"{ended.stalled} {host}{after}"))
    if ended.code == pycurl.E_OPERATION_TIMEDOUT:
        what = "no data" if ended.connected else "no connection"
        return Decision(next=Next.RETRY, error=StalledError(f"{what} from {host} for {ended.seconds:.0f} s"))
    return Decision(next=Next.RETRY, error=TransientError(f"connection to {host} failed: {said}"))
