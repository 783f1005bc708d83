"""
Second names for blobs: a link where the file system has links, else the blob once more.

Tried in this order: a relative symbolic link, as hub clients make them; a hard link; a copy that shares its blocks
(reflink); a copy. What a file system turns out not to have is not tried on it again.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nim_core.transfer.copying import clone, copy_range

__all__ = ["Namer"]

_NO_SYMLINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
_THIS_FILE_ONLY: Final = frozenset({errno.EMLINK, errno.EXDEV})


class Namer:
    """Makes names; remembers for each file system what it has."""

    def __init__(self) -> None:
        self._works: dict[tuple[int, str], bool] = {}

    def has_symlinks(self, device: int) -> bool:
        """Whether a symbolic link has been made on a file system, and led where it should."""
        return self._works.get((device, "symlink"), False)

    def make(self, name: Path, target: str, blob: Path) -> None:
        """
        Make ``name`` lead to ``blob``.

        Args:
            name: Where there is nothing yet.
            target: ``blob``, relative to the folder of ``name``.
            blob: A file.

        Raises:
            OSError: Not even a copy can be made.
        """
        device = name.parent.stat().st_dev
        if not self._symlink(device, name, target, blob) and not self._hardlink(device, name, blob):
            self._copy(device, name, blob)

    def _symlink(self, device: int, name: Path, target: str, blob: Path) -> bool:
        way = (device, "symlink")
        if not self._works.get(way, True):
            return False
        try:
            name.symlink_to(target)
        except OSError as exc:
            if exc.errno not in _NO_SYMLINKS:
                raise
            self._works[way] = False
            return False
        if way not in self._works:
            self._works[way] = _leads_to(name, blob)
            if not self._works[way]:
                name.unlink()
        return self._works[way]

    def _hardlink(self, device: int, name: Path, blob: Path) -> bool:
        way = (device, "hardlink")
        if not self._works.get(way, True):
            return False
        try:
            name.hardlink_to(blob)
        except OSError as exc:
            self._works[way] = exc.errno in _THIS_FILE_ONLY
            return False
        return True

    def _copy(self, device: int, name: Path, blob: Path) -> None:
        """Copy a blob, with its time of last change: receipts know it by that."""
        with _opened(blob, os.O_RDONLY) as source, _opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as copy:
            stat = os.fstat(source)
            way = (device, "reflink")
            self._works[way] = self._works.get(way, True) and clone(source, copy)
            if not self._works[way] and not copy_range(source, copy, 0, stat.st_size):
                raise OSError(errno.EIO, "file was cut short while it was copied", str(blob))
            os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            os.fsync(copy)


def _leads_to(name: Path, blob: Path) -> bool:
    with contextlib.suppress(OSError):
        return name.samefile(blob)
    return False


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)
