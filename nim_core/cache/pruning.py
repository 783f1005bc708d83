"""
Removing what earlier runs left and nobody will go on with, after a run that has succeeded.

Nothing is removed whose owner lives or may live. Of the rest:

- leases, folders of small files, and partials of files that this run found or put into the cache: nobody needs them;
- partials of other files, for which somebody may come back, once nothing has happened to them for 30 days;
- what was just being made or removed when its process was killed, after a minute.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from nim_core.transfer.locking import clock
from nim_core.transfer.ownership import remove_gone

__all__ = ["prune"]

_FORGOTTEN_SECONDS: Final = 30 * 86_400.0
_UNFINISHED_SECONDS: Final = 60.0
_NEVER_RESUMED: Final = frozenset({"run", "lease"})
_OWNED: Final = re.compile(r"([0-9a-f]{32}|run|lease)\.[^/]+")
_UNFINISHED: Final = re.compile(r"\.([0-9a-f]{32}|run|lease|probe|clock)\.[^/]+")


def prune(folder: Path, file_ids: Iterable[str]) -> None:
    """
    Remove what nobody needs from a folder of partials; what cannot be removed stays.

    Args:
        folder: The folder.
        file_ids: Files that are in the cache by now.
    """
    complete = frozenset(file_ids)
    with contextlib.suppress(OSError):
        entries = [path for path in folder.iterdir() if not path.is_symlink()]
        now = clock(folder) if entries else 0.0
        for path in entries:
            with contextlib.suppress(OSError):  # its owner lives, or it is gone already
                _prune_one(path, complete, now)


def _prune_one(path: Path, complete: frozenset[str], now: float) -> None:
    if _OWNED.fullmatch(path.name):
        if path.name.partition(".")[0] in complete | _NEVER_RESUMED or _silence(path, now) > _FORGOTTEN_SECONDS:
            remove_gone(path)
    elif _UNFINISHED.fullmatch(path.name) and _silence(path, now) > _UNFINISHED_SECONDS:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _silence(path: Path, now: float) -> float:
    """Return for how many seconds nothing has happened to a file, or to a folder and what is in it."""
    names = [path, *(Path(entry) for entry in os.scandir(path))] if path.is_dir() else [path]
    return now - max(name.lstat().st_mtime for name in names)
