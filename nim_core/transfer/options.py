"""Limits of a run of the engine."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

from attrs import field, frozen

from nim_core.transfer.exchange import Timeouts
from nim_core.transfer.workers import available_cores

__all__ = ["EngineOptions", "raise_handle_limit"]

_FILE_HANDLES: Final = 65536
_MOST_HASH_THREADS: Final = 16
"""Each hashes gigabytes per second; more than this no network brings."""


@frozen(kw_only=True)
class EngineOptions:
    """
    Limits of a run.

    Attributes:
        connections: Requests under way to one host at the beginning; more when that brings more, fewer when it asks.
        max_connections: Requests under way at once, at most.
        rate: Bytes per second, at most. None: no limit.
        retries: Retries of one part without progress before the run fails.
        backoff: Seconds before the first retry.
        hash_threads: Threads that compute digests.
        locate_threads: Threads that ask sources.
        verify: Whether expected digests are compared.
        timeouts: Limits of one request.
        user_agent: Sent with each request.
    """

    connections: int = 8
    max_connections: int = 32
    rate: float | None = None
    retries: int = 8
    backoff: float = 0.5
    hash_threads: int = field(factory=lambda: min(_MOST_HASH_THREADS, max(2, available_cores())))
    locate_threads: int = 8
    verify: bool = True
    timeouts: Timeouts = field(factory=Timeouts)
    user_agent: str = "nim-core"


def raise_handle_limit() -> None:
    """Allow this process as many open files as it may have; 1024 is too few for large models behind proxies."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILE_HANDLES if hard == resource.RLIM_INFINITY else min(hard, _FILE_HANDLES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
