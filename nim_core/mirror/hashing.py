"""What a file of the cache holds, read once before it is sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.errors import DigestMismatchError
from nim_core.transfer.digests import CONTENT_ALGORITHM, StreamDigest, crc32c
from nim_core.transfer.storage import storage_error
from nim_core.types import Digest

__all__ = ["Hashed", "hash_file", "hash_part"]

_READ_BYTES: Final = 1 << 20
_KEPT_BYTES: Final = 1 << 20
"""A file up to this size is sent from memory: what was hashed is what goes out."""


@frozen(kw_only=True)
class Hashed:
    """
    A file that was read.

    Attributes:
        size: Bytes.
        digests: BLAKE3 and CRC-32C, and those that were expected.
        parts: CRC-32C of each part.
        data: The bytes of a small file. None: read them again.
    """

    size: int
    digests: tuple[Digest, ...]
    parts: tuple[Digest, ...] = ()
    data: bytes | None = None


def hash_file(
    path: Path, expected: Iterable[Digest], part_bytes: Callable[[int], int | None], stopped: Callable[[], bool]
) -> Hashed:
    """
    Read a file.

    Args:
        path: The file.
        expected: Digests it must have.
        part_bytes: Size of parts of a file of so many bytes. None: it is not parted.
        stopped: Whether to give up.

    Raises:
        DigestMismatchError: It is another content.
        CacheError: It cannot be read.
        InterruptedError: ``stopped`` said so.
    """
    expected = tuple(expected)
    try:
        found = _read(path, expected, part_bytes, stopped)
    except InterruptedError:
        raise
    except OSError as exc:
        raise storage_error(exc, path) from exc
    computed = {digest.algorithm: digest for digest in found.digests}
    for digest in expected:
        if computed[digest.algorithm] != digest:
            raise DigestMismatchError(
                f"damaged since it was downloaded: {path} has {computed[digest.algorithm]}, not {digest}",
                hint="run download-to-cache --verify, which fetches damaged files again",
            )
    return found


def hash_part(path: Path, offset: int, size: int, algorithm: str) -> Digest:
    """Return a digest of some bytes of a file. Raises OSError."""
    digest = StreamDigest((algorithm,), size)
    with path.open("rb", buffering=0) as source:
        for place in range(offset, offset + size, _READ_BYTES):
            digest.update(memoryview(os.pread(source.fileno(), min(_READ_BYTES, offset + size - place), place)))
    return digest.digests()[0]


def _read(
    path: Path, expected: tuple[Digest, ...], part_bytes: Callable[[int], int | None], stopped: Callable[[], bool]
) -> Hashed:
    algorithms = dict.fromkeys([CONTENT_ALGORITHM, *(digest.algorithm for digest in expected), "crc32c"])
    with path.open("rb", buffering=0) as source:
        size = os.fstat(source.fileno()).st_size
        digest = StreamDigest(algorithms, size)
        if size <= _KEPT_BYTES:
            data = source.read(_KEPT_BYTES + 1) if size else b""
            digest.update(memoryview(data))
            return Hashed(size=len(data), digests=digest.digests(), data=data)
        step = part_bytes(size) or size
        crcs: list[int] = []
        for place in range(0, size, _READ_BYTES):
            if stopped():
                raise InterruptedError(f"interrupted while reading: {path}")
            data = source.read(min(_READ_BYTES, size - place))
            digest.update(memoryview(data))
            _add(crcs, data, place, step)
        return Hashed(size=size, digests=digest.digests(), parts=tuple(Digest("crc32c", f"{crc:08x}") for crc in crcs))


def _add(crcs: list[int], data: bytes, place: int, step: int) -> None:
    """Go on with the checksums of parts of ``step`` bytes; ``data`` is at ``place``, and may reach into several."""
    while data:
        taken = data[: step - place % step]
        crcs.extend([0] if place % step == 0 else [])
        crcs[-1] = crc32c(taken, crcs[-1])
        place, data = place + len(taken), data[len(taken) :]
