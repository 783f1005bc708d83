"""How much memory this process may still use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int | None:
    """
    Return the bytes that are free for this process: of the machine, or of its container where that has less.

    Args:
        root: Where ``proc`` and ``sys`` are mounted.

    Returns:
        None where neither can be read.
    """
    return min((*_of_machine(root / "proc/meminfo"), *_of_container(root / "sys/fs/cgroup")), default=None)


def _of_machine(file: Path) -> Iterator[int]:
    for line in _text(file).splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            yield int(rest.split()[0]) << 10


def _of_container(folder: Path) -> Iterator[int]:
    """Version 2 of control groups, then version 1; a limit nobody set is the word max, or an absurd number."""
    for limit, used in (
        (folder / "memory.max", folder / "memory.current"),
        (folder / "memory/memory.limit_in_bytes", folder / "memory/memory.usage_in_bytes"),
    ):
        bound, now = _text(limit).strip(), _text(used).strip()
        if bound.isdecimal() and now.isdecimal():
            yield max(0, int(bound) - int(now))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
