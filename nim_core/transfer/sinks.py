"""Where the body of an answer goes: beneath a file's partial, or into memory for a small file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final

from nim_core.errors import RemoteChangedError, TransientError
from nim_core.transfer.digests import crc32c
from nim_core.transfer.exchange import Response
from nim_core.transfer.jobs import SMALL_BYTES, FileTask, Part
from nim_core.transfer.outcomes import Refusal
from nim_core.transfer.storage import storage_error

__all__ = ["FileSink", "MemorySink", "refusal_of", "strong_etag"]

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_CONTENT_LENGTH: Final = re.compile(r"\d{1,18}", re.ASCII)
_POKE_BYTES: Final = 8 << 20
_WRITE_BYTES: Final = 256 << 10
"""libcurl hands over 16 KiB at a time; written one by one they cost twice the CPU per GiB that they cost together."""

_MOST_PIECES: Final = 512
"""The system takes 1024 in one call, and a server that sends its body in small chunks makes many."""


def strong_etag(response: Response) -> str | None:
    """Return the answer's ETag when it is a strong one, as sent."""
    etag = response.headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else None


def refusal_of(response: Response, *, first: int, last: int | None, size: int | None) -> Refusal | None:
    """
    Judge an answer with status 200 or 206 by its headers.

    Args:
        response: The answer.
        first: First byte asked for; 0 with ``last`` None means that no range was asked for.
        last: Last byte asked for. None for all that follows.
        size: Size of the file. None when unknown.
    """
    if response.headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        return Refusal.ENCODED
    if response.status == 200:
        return _refusal_of_whole(response, ranged=bool(first) or last is not None, size=size)
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None or int(match[1]) != first or (last is not None and int(match[2]) > last):
        return Refusal.WRONG_RANGE
    if match[3] == "*":
        return None
    if size is None:
        return None if int(match[2]) + 1 == int(match[3]) else Refusal.WRONG_RANGE
    return None if int(match[3]) == size else Refusal.WRONG_SIZE


def _refusal_of_whole(response: Response, *, ranged: bool, size: int | None) -> Refusal | None:
    if ranged:
        return Refusal.RANGE_IGNORED
    length = response.headers.get("content-length", "")
    if size is not None and _CONTENT_LENGTH.fullmatch(length) and int(length) != size:
        return Refusal.WRONG_SIZE
    return None


class _Sink:
    """
    What both sinks share: whether an answer is the data asked for.

    Attributes:
        refusal: Why it is not. None when it is, or when the status says so by itself.
        received: Bytes of data that came.
        waiting: Bytes of them that are not counted in the part yet.
    """

    def __init__(self, task: FileTask, part: Part) -> None:
        self.task = task
        self.part = part
        self.generation = task.generation
        self.refusal: Refusal | None = None
        self.received = 0
        self.waiting = 0
        self._first = part.offset + part.done
        self._last: int | None = None

    def expect(self, first: int, last: int | None) -> None:
        """Say which range is asked for, as in :func:`refusal_of`."""
        self._first, self._last = first, last

    def accepts(self, response: Response) -> bool:
        if response.status not in {200, 206}:
            return False
        self.refusal = refusal_of(response, first=self._first, last=self._last, size=self.task.size)
        if self.refusal is None and self._is_changed(response):
            self.refusal = Refusal.CHANGED
        return self.refusal is None

    def _is_changed(self, response: Response) -> bool:
        """Compare with the version that other parts came from; the first answer settles which one that is."""
        etag = strong_etag(response)
        if etag is None or self.task.any_version:
            return False
        if self.task.validator is None:
            self.task.validator = etag
        return etag != self.task.validator

    def _count(self, more: int) -> None:
        if self.generation != self.task.generation:
            raise RemoteChangedError("superseded by a new start of the file")
        if self.part.length is not None and self.part.done + self.waiting + more > self.part.length:
            raise TransientError(f"more bytes than asked for: {self.task.host}")
        self.received += more


class FileSink(_Sink):
    """
    Writes a part to its place in the data file.

    Args:
        task: The file.
        part: The part; its ``done`` and ``crc`` follow what is written.
        poke: Called now and then, so that the digest follows.
    """

    def __init__(self, task: FileTask, part: Part, handle: int, poke: Callable[[], None]) -> None:
        super().__init__(task, part)
        self._handle = handle
        self._poke = poke
        self._since_poke = 0
        self._gathered: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Take the next bytes; they are written when there are enough of them to be worth a call."""
        self._count(len(data))
        self._gathered.append(data)
        self.waiting += len(data)
        enough = self.waiting >= _WRITE_BYTES or len(self._gathered) == _MOST_PIECES
        if enough or self.part.done + self.waiting == self.part.length:
            self.finish()

    def finish(self) -> None:
        """Write what has been gathered, and count it. Raises CacheError when storage refuses."""
        if not self.waiting:
            return
        gathered, self._gathered = self._gathered, []
        count, self.waiting = self.waiting, 0
        try:
            self._write_all(gathered, count, self.part.offset + self.part.done)
        except OSError as exc:
            raise storage_error(exc, self.task.partial.folder if self.task.partial else "") from exc
        for data in gathered:
            self.part.crc = crc32c(data, self.part.crc)
        self.part.done += count
        self._since_poke += count
        if self._since_poke >= _POKE_BYTES:
            self._since_poke = 0
            self.task.checkpoint(self.part)
            self._poke()

    def _write_all(self, gathered: list[bytes], count: int, position: int) -> None:
        done = os.pwritev(self._handle, gathered, position)
        if done < count:
            rest = b"".join(gathered)
            while done < count:
                done += os.pwrite(self._handle, rest[done:], position + done)


class MemorySink(_Sink):
    """Keeps a small file in memory."""

    def __init__(self, task: FileTask, part: Part) -> None:
        super().__init__(task, part)
        self.data = bytearray()

    def accepts(self, response: Response) -> bool:
        """Judge the answer, as a sink does, and whether it fits."""
        return super().accepts(response) and self._fits(response)

    def _fits(self, response: Response) -> bool:
        """Learn the size of a file that nobody was asked about; what may be too large for memory goes to disk."""
        task = self.task
        if task.size is not None:
            return True
        length = response.headers.get("content-length", "")
        if not _CONTENT_LENGTH.fullmatch(length):
            task.single = task.unranged = True
        elif int(length) > SMALL_BYTES:
            task.size = int(length)
        else:
            return True
        self.refusal = Refusal.TOO_LARGE
        return False

    def write(self, data: bytes) -> None:
        """Keep the next bytes."""
        self._count(len(data))
        self.data += data
        self.part.done += len(data)

    def finish(self) -> None:
        """Do nothing: every byte is where it belongs."""
