"""What dead processes have left in ``tmp`` that nobody can go on with."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nim_core.cache.layout import Layout

__all__ = ["sweep"]

_FOLDER: Final = re.compile(r"\.?(run|[0-9a-f]{32})\.[0-9a-f]{16}")
_PROBE: Final = re.compile(r"\.probe\.[0-9a-f]{16}")
_YOUNG_SECONDS: Final = 60.0


def sweep(layout: Layout) -> None:
    """
    Remove partials whose data has become a blob, folders of small files, and leases, where their owners are dead.

    What is hidden is being made or removed, so it has to have been so for a minute. Where nothing can be written or
    locked, everything stays.
    """
    with contextlib.suppress(OSError):
        for path in list(layout.partials.iterdir()):
            with contextlib.suppress(OSError):
                _remove(path)


def _remove(path: Path) -> None:
    if path.name.startswith("lease."):
        with _locked(path):
            path.unlink()
    elif _PROBE.fullmatch(path.name) and _is_old(path):
        path.unlink()
    elif _FOLDER.fullmatch(path.name) and not path.is_symlink() and _is_useless(path):
        _remove_folder(path)


def _remove_folder(folder: Path) -> None:
    """Remove a folder, unless its owner lives; one that has no owner file any more was being removed."""
    try:
        with _locked(folder / "owner"):
            shutil.rmtree(folder)
    except FileNotFoundError:
        shutil.rmtree(folder)


def _is_useless(folder: Path) -> bool:
    return _is_old(folder) if folder.name.startswith(".") else not (folder / "data").exists()


def _is_old(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > _YOUNG_SECONDS


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a file that nobody else has locked. Raises OSError when somebody has, or it is not that file any more."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(path.stat(), os.fstat(handle)):
            raise FileNotFoundError(str(path))
        yield
    finally:
        os.close(handle)
