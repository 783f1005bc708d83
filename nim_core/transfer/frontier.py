"""
Digests at the frontier: bytes are read back once, from the page cache, as soon as all before them are there.

Per file one :class:`Frontier` follows the contiguous bytes; a small pool of threads serves all of them. A part that an
earlier process claims to have is checked on the way: the digest's state at its beginning is kept, and when the part
turns out damaged the digest goes back to that state and the part is fetched again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from nim_core.errors import CacheError
from nim_core.transfer.digests import StreamDigest, algorithms_to_check, crc32c
from nim_core.transfer.jobs import FileTask, Part
from nim_core.transfer.storage import start_writing_back
from nim_core.transfer.workers import Workers
from nim_core.types import Digest

__all__ = ["Frontier", "HashPool"]

_READ_BYTES: Final = 2 << 20
_WORTH_A_TURN: Final = 1 << 20
_WRITE_BACK_BYTES: Final = 64 << 20
"""Left to the kernel, gigabytes are written when the file is made durable, and everybody waits for them."""


class Frontier:
    """
    Follows the contiguous bytes of one file.

    Attributes:
        position: Bytes read so far.
        scheduled: Whether a thread is at it, or will be.
        abandoned: Whether the file has begun again and nobody waits for the digest any more.

    Args:
        task: The file.
        damaged: Called with a part whose claim does not hold; its bytes have been forgotten.
        finished: Called with the digests when the last byte has been read.
    """

    def __init__(
        self, task: FileTask, damaged: Callable[[Part], None], finished: Callable[[tuple[Digest, ...]], None]
    ) -> None:
        self.position = 0
        self._written_back = 0
        self.scheduled = False
        self.abandoned = False
        self._parts = task.parts
        self._partial = task.partial
        self._damaged = damaged
        self._finished = finished
        self._number = 0
        self._ended = False
        self._digest = StreamDigest(algorithms_to_check(task.job.file.digests, task.size), task.size)
        self._claim: tuple[StreamDigest, int] | None = None

    def waiting(self) -> bool:
        """Whether there is enough to read to be worth a turn, or the end to be told."""
        if self._ended or self.abandoned:
            return False
        for part in self._parts[self._number :]:
            if part.offset + part.done - self.position >= _WORTH_A_TURN:
                return True
            if not part.complete:
                return False
        return True

    def advance(self, buffer: memoryview, stopped: Callable[[], bool]) -> None:
        """Read what can be read; ends the file when the last byte is among it."""
        while not stopped() and not self.abandoned:
            if self._number == len(self._parts):
                self._ended = True
                self._finished(self._digest.digests())
                return
            part = self._parts[self._number]
            if not self._advance_in(part, buffer):
                return

    def _advance_in(self, part: Part, buffer: memoryview) -> bool:
        """Read one buffer of ``part`` and say whether to go on."""
        if part.claimed is not None and self._claim is None:
            self._claim = (self._digest.copy(), 0)
        complete = part.complete  # before its bytes are counted: it may become so at any moment
        end = part.offset + part.done
        ready = min(end - self.position, len(buffer))
        if ready > 0 and (complete or ready >= _WORTH_A_TURN):
            self._read(buffer[:ready])
        elif not complete:
            return False
        if complete and self.position == end:
            self._leave(part)
        return True

    def _read(self, view: memoryview) -> None:
        if self._partial is None:
            raise CacheError("no partial to read back")
        count = os.preadv(self._partial.data, [view], self.position)
        if count == 0 and self.abandoned:
            return
        if count == 0:
            raise CacheError(f"partial was cut short by another program: {self._partial.path}")
        self._digest.update(view[:count])
        if self._claim is not None:
            digest, crc = self._claim
            self._claim = (digest, crc32c(bytes(view[:count]), crc))
        self.position += count
        if self.position - self._written_back >= _WRITE_BACK_BYTES:
            start_writing_back(self._partial.data, self._written_back, self.position - self._written_back)
            self._written_back = self.position

    def _leave(self, part: Part) -> None:
        claim, self._claim = self._claim, None
        if claim is not None and claim[1] != part.crc:
            self._digest, self.position = claim[0], part.offset
            part.reset()
            if not self.abandoned:
                self._damaged(part)
            return
        part.claimed = None
        self._number += 1


class HashPool:
    """
    Threads that advance frontiers and carry out other hashing work.

    Args:
        threads: How many.
        failed: Called with what a piece of work raised.
    """

    def __init__(self, threads: int, failed: Callable[[BaseException], None]) -> None:
        self._workers = Workers("nim-hash", threads, failed)
        self._lock = threading.Lock()
        self._local = threading.local()

    def poke(self, frontier: Frontier) -> None:
        """Have ``frontier`` advanced if there is something to read and nobody is at it."""
        if frontier.scheduled or not frontier.waiting():
            return
        with self._lock:
            if frontier.scheduled:
                return
            frontier.scheduled = True
        self._workers.submit(lambda: self._advance(frontier))

    def submit(self, work: Callable[[], None]) -> None:
        """Have ``work`` done."""
        self._workers.submit(work)

    def stop(self, seconds: float) -> None:
        """End the threads after what each is at, waiting up to ``seconds`` for them."""
        self._workers.stop(seconds)

    def _advance(self, frontier: Frontier) -> None:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(_READ_BYTES))
        try:
            frontier.advance(self._local.buffer, lambda: self._workers.stopping)
        finally:
            frontier.scheduled = False
        self.poke(frontier)
