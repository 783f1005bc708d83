"""Digests while bytes stream by."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from typing import Final, Protocol, Self

import google_crc32c
from blake3 import blake3

from nim_core.types import DIGEST_HEX_LENGTHS, Digest

__all__ = ["CONTENT_ALGORITHM", "StreamDigest", "algorithms_to_check", "crc32c"]

CONTENT_ALGORITHM: Final = "blake3"
"""Computed for every file: names blobs and lets a later check do without the source."""

_CHEAP: Final = frozenset({"crc32c"})


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> object: ...
    def copy(self) -> Self: ...
    def hexdigest(self) -> str: ...


class _Crc:
    """A 32-bit CRC with the interface of hashlib's objects; ``extend`` continues one value with further bytes."""

    def __init__(self, extend: Callable[[bytes, int], int], value: int = 0) -> None:
        self._extend = extend
        self._value = value

    def update(self, data: memoryview) -> None:
        self._value = self._extend(bytes(data), self._value)

    def copy(self) -> _Crc:
        return _Crc(self._extend, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def crc32c(data: bytes, value: int = 0) -> int:
    """Return the CRC-32C of ``data`` following bytes whose CRC-32C is ``value``."""
    return int(google_crc32c.extend(value, data))


def _new(algorithm: str, size: int | None) -> _Hash:
    match algorithm:
        case "blake3":
            return blake3()
        case "crc32c":
            return _Crc(crc32c)
        case "crc32":
            return _Crc(zlib.crc32)
        case "sha1-git":
            if size is None:
                raise ValueError("a git blob id needs the size before the content")
            return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        case _:
            return hashlib.new(algorithm, usedforsecurity=False)


def algorithms_to_check(expected: Iterable[Digest], size: int | None) -> tuple[str, ...]:
    """
    Return which digests to compute for a file.

    Always :data:`CONTENT_ALGORITHM`; the first expected one, which is the manifest's where it promises one; the
    strongest; of the others those that cost next to nothing. A git blob id is left out while the size is unknown, as it
    begins with the size.
    """
    known = [digest.algorithm for digest in expected if size is not None or digest.algorithm != "sha1-git"]
    ranked = [algorithm for algorithm in DIGEST_HEX_LENGTHS if algorithm in known]
    return tuple(dict.fromkeys([CONTENT_ALGORITHM, *known[:1], *ranked[:1], *(a for a in ranked if a in _CHEAP)]))


class StreamDigest:
    """
    Several digests of one stream.

    Args:
        algorithms: Which ones.
        size: Bytes the stream will have. None when unknown; ``sha1-git`` then cannot be asked for.
    """

    def __init__(self, algorithms: Iterable[str], size: int | None) -> None:
        self._hashes: dict[str, _Hash] = {algorithm: _new(algorithm, size) for algorithm in algorithms}

    def update(self, data: memoryview) -> None:
        """Feed the next bytes; the lock of the interpreter is free meanwhile."""
        for item in self._hashes.values():
            item.update(data)

    def copy(self) -> StreamDigest:
        """Return the state as it is now, to go back to."""
        twin = StreamDigest((), None)
        twin._hashes = {algorithm: item.copy() for algorithm, item in self._hashes.items()}
        return twin

    def digests(self) -> tuple[Digest, ...]:
        """Return the digests of all bytes fed so far."""
        return tuple(Digest(algorithm, item.hexdigest()) for algorithm, item in self._hashes.items())
