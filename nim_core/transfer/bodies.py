"""Bodies of control answers: bounded in size and time, their failures in core's words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import httpcore
import httpx

from nim_core.errors import SourceError, StalledError
from nim_core.transfer.failures import HTTPCORE_ERRORS, Peer, explain

__all__ = ["MAX_BODY_BYTES", "MAX_BODY_SECONDS", "PREFETCH_BYTES", "Body"]

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
MAX_BODY_SECONDS: Final = 300.0
PREFETCH_BYTES: Final = 4 * 1024 * 1024


class Body(httpx.SyncByteStream):
    """
    The body of one answer.

    Iterating raises SourceError when it is encoded or exceeds MAX_BODY_BYTES, StalledError when it takes too long, and
    what :func:`~nim_core.transfer.failures.explain` makes of a failing connection.

    Args:
        answer: The answer, its body not yet read.
        peer: Who gives it, for messages.
        max_seconds: How long all of it may take.
    """

    def __init__(self, answer: httpcore.Response, peer: Peer, max_seconds: float = MAX_BODY_SECONDS) -> None:
        self._answer = answer
        self._peer = peer
        self._max_seconds = max_seconds
        self._pieces = self._guarded()
        self._prefetched: list[bytes] = []
        self._encoded = any(
            name.lower() == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}
            for name, value in answer.headers
        )

    def prefetch(self) -> None:
        """Read the first PREFETCH_BYTES, or all there is. Raises as iterating does."""
        size = 0
        for piece in self._pieces:
            self._prefetched.append(piece)
            size += len(piece)
            if size >= PREFETCH_BYTES:
                return

    def __iter__(self) -> Iterator[bytes]:
        yield from self._prefetched
        self._prefetched.clear()
        yield from self._pieces

    def close(self) -> None:
        """Give the connection back, or close it when bytes of the body are still to come."""
        self._answer.close()

    def _guarded(self) -> Iterator[bytes]:
        size, deadline = 0, time.monotonic() + self._max_seconds
        try:
            for piece in self._answer.iter_stream():
                size += len(piece)
                if self._encoded:
                    raise SourceError(f"answer with an encoding that was not asked for: {self._peer}")
                if size > MAX_BODY_BYTES:
                    raise SourceError(f"answer larger than {MAX_BODY_BYTES >> 20} MiB: {self._peer}")
                if time.monotonic() > deadline:
                    raise StalledError(f"answer slower than {self._max_seconds:.0f} s: {self._peer}")
                yield piece
        except HTTPCORE_ERRORS as exc:
            raise explain(exc, self._peer) from exc
