"""
Second names for blobs: a link where the file system has links, else the blob once more.

Tried in this order, if not told otherwise: a relative symbolic link, as hub clients make them; a hard link; a copy that
shares its blocks (reflink); a copy. What a file system turns out not to have is not tried on it again.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from nim_core.transfer.copying import clone, copy_range

__all__ = ["Namer", "Way"]

Way = Literal["symlink", "hardlink", "reflink", "copy"]
_EVERY_WAY: Final[tuple[Way, ...]] = ("symlink", "hardlink", "reflink", "copy")

_NO_SYMLINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
_THIS_FILE_ONLY: Final = frozenset({errno.EMLINK, errno.EXDEV})


class Namer:
    """
    Makes names; remembers for each file system what it has.

    Args:
        durable: Whether copies are brought to the disk at once; else whoever has them made does it for all.
    """

    def __init__(self, *, durable: bool = True) -> None:
        self._durable = durable
        self._works: dict[tuple[int, str], bool] = {}

    def has_symlinks(self, device: int) -> bool:
        """Whether a symbolic link has been made on a file system, and led where it should."""
        return self._works.get((device, "symlink"), False)

    def make(self, name: Path, target: str, blob: Path, ways: Sequence[Way] = _EVERY_WAY) -> Way | None:
        """
        Make ``name`` lead to ``blob``.

        Args:
            name: Where there is nothing yet.
            target: ``blob``, relative to the folder of ``name``, or absolute; for a symbolic link.
            blob: A file, no link.
            ways: What may be made of it, tried in this order.

        Returns:
            What was made. None when none of ``ways`` works here; a copy always does.

        Raises:
            OSError: Not even a copy can be made.
        """
        device = name.parent.stat().st_dev
        makes = {
            "symlink": lambda: self._symlink(device, name, target, blob),
            "hardlink": lambda: self._hardlink(device, name, blob),
            "reflink": lambda: self._reflink(device, name, blob),
            "copy": lambda: self._copy(name, blob),
        }
        return next((way for way in ways if makes[way]()), None)

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

    def _reflink(self, device: int, name: Path, blob: Path) -> bool:
        with _opened(blob, os.O_RDONLY) as source:
            way = (device, f"reflink from {os.fstat(source).st_dev}")
            if self._works.get(way, True):
                with _opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as copy:
                    self._works[way] = clone(source, copy)
                    if self._works[way]:
                        self._finish(source, copy)
                    else:
                        name.unlink()
            return self._works[way]

    def _copy(self, name: Path, blob: Path) -> bool:
        with _opened(blob, os.O_RDONLY) as source, _opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as copy:
            if not copy_range(source, copy, 0, os.fstat(source).st_size):
                raise OSError(errno.EIO, "file was cut short while it was copied", str(blob))
            self._finish(source, copy)
        return True

    def _finish(self, source: int, copy: int) -> None:
        """Give a copy its original's time of last change: receipts know it by that."""
        stat = os.fstat(source)
        os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        if self._durable:
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
