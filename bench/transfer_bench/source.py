"""What is served: files that no one can compress or deduplicate, and the manifests that name them."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from blake3 import blake3

from transfer_bench.records import GIB, MIB, Content, Skipped, Task
from transfer_bench.stats import show_bytes

__all__ = ["ASIDE", "check_space", "delivered", "empty", "make_files", "manifest", "warm"]

BLOCK: Final = 4 << 20
RESERVE: Final = 2 * GIB
ASIDE: Final = ".aside"
"""Name of a folder of what was moved aside."""

_MANY: Final = 500
_KEPT_BYTES: Final = 256 * MIB


def make_files(folder: Path, prefix: str, count: int, size: int) -> tuple[Content, ...]:
    """Write ``count`` files of ``size`` bytes, the same ones every time, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{prefix}-{number:05}.bin" for number in range(count)] if count > 1 else [f"{prefix}.bin"]
    block = random.Random(prefix).randbytes(min(BLOCK, size))
    return tuple(_make_file(folder / name, size, block) for name in names)


def _make_file(path: Path, size: int, block: bytes) -> Content:
    first, second = blake3(), hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for piece in _pieces(path.name, size, block):
            first.update(piece)
            second.update(piece)
            file.write(piece)
    digests = {"blake3": first.hexdigest(), "sha256": second.hexdigest()}
    seconds = int(digests["sha256"][:6], 16)  # nginx makes ETags of time and size: each file needs its own
    os.utime(path, (seconds, seconds))
    return Content(name=path.name, path=path, size=size, digests=digests)


def _pieces(name: str, size: int, block: bytes) -> Iterator[bytes]:
    for offset in range(0, size, len(block)):
        stamp = hashlib.sha256(f"{name} {offset}".encode()).digest()
        yield (stamp + block[len(stamp) :])[: min(len(block), size - offset)]


def manifest(task: Task, algorithm: str) -> str:
    """Return a manifest whose only profile has the files of ``task``, with digests."""
    lines = ["schema_version: 2.0.0", "profile_selection_criteria: default", "profiles:", f"- id: {'b' * 64}"]
    lines += ["  tags: {llm_engine: vllm}", "  workspace:", "    files:"]
    for content in task.files:
        lines.append(f"      {content.name}:")
        lines.append(f"        uri: '{task.url(content)}'")
        lines.append(f"        checksum: '{algorithm}:{content.digests[algorithm]}'")
    return "\n".join(lines) + "\n"


def warm(contents: Iterable[Content]) -> None:
    """Read files, so that the server finds them in the page cache."""
    buffer = memoryview(bytearray(BLOCK))
    for content in contents:
        with content.path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def delivered(folder: Path) -> int:
    """Return the bytes that have been allocated to files below ``folder``; holes do not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except OSError:
            continue
        if path.is_file() and not path.is_symlink():
            total += min(found.st_size, found.st_blocks * 512)
    return total


def empty(folder: Path) -> None:
    """
    Make a folder anew, without what is in it.

    Many small files are moved aside until all is over: for minutes after they were removed, ext4 takes ten times as
    long to make as many, which would be measured instead.
    """
    if _has_many(folder):
        aside = folder.parent / ASIDE
        aside.mkdir(exist_ok=True)
        folder.rename(aside / secrets.token_hex(8))
    else:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _has_many(folder: Path) -> bool:
    return sum(1 for _ in folder.rglob("*")) > _MANY and delivered(folder) < _KEPT_BYTES


def check_space(folder: Path, needed: int) -> None:
    """Raise Skipped when ``needed`` bytes and a reserve do not fit."""
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE:
        raise Skipped(f"needs {show_bytes(needed + RESERVE)} of disk, {show_bytes(free)} are free")
