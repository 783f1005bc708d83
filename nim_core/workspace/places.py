"""What workspaces, folders of plain files and model stores have in common."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.cache.layout import make_folder
from nim_core.cache.names import Way
from nim_core.errors import CacheError, CachePermissionError, DiskFullError
from nim_core.plan import Present
from nim_core.transfer.storage import storage_error

__all__ = ["EDITED_BYTES", "Made", "bytes_of", "place_error", "real_folder", "total_bytes", "ways_to_share"]

EDITED_BYTES: Final = 5 << 20
"""
Files up to this size are copied rather than hard-linked: configurations and the like, which people edit in place. The
Hub's client drew the line there, too.
"""


@frozen(kw_only=True)
class Made:
    """
    What was laid out.

    Attributes:
        folder: Where; no link is in its path.
        files: How many files.
        bytes: How large they are together.
        ways: How many were made in which way.
        kept: How many were there already, and right.
    """

    folder: Path
    files: int
    bytes: int
    ways: Counter[Way]
    kept: int = 0


def real_folder(folder: Path) -> Path:
    """Make a folder where it is missing, and return it by a path without links. Raises CacheError."""
    return make_folder(Path(os.path.realpath(folder)), "", place_error)


def bytes_of(file: Present) -> Path:
    """Return a file's bytes by a path without links: neither hard links nor copies are made of those."""
    return Path(os.path.realpath(file.blob))


def ways_to_share(file: Present, *, share: bool) -> tuple[Way, ...]:
    """
    Return how a plain file may share its bytes with ``file``, best first.

    A reflink is independent, so it always may. A hard link is the cache's own file, so it may where that is agreed to,
    and for nothing that is likely to be edited, or that belongs to somebody else.
    """
    linkable = share and file.link is not None and file.size > EDITED_BYTES
    return ("reflink", "hardlink") if linkable else ("reflink",)


def total_bytes(files: Mapping[str, Present]) -> int:
    """Return how large files are together."""
    return sum(file.size for file in files.values())


def place_error(exc: OSError, path: Path) -> CacheError:
    """Return the error for a place outside the cache that cannot be made or written."""
    if exc.errno in {errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}:
        return CacheError(f"something else is in the way: {path}", hint="remove it, or name another folder")
    error = storage_error(exc, path)
    if isinstance(error, CachePermissionError):
        why = (exc.strerror or "permission denied").lower()
        user = f"uid {os.getuid()}, gid {os.getgid()}"
        return CachePermissionError(
            f"not allowed for {user}: {exc.filename or path}: {why}",
            hint="let this user write it (read it, where it is in the cache), or name another folder",
        )
    hint = "free some space, or name a folder on another volume" if isinstance(error, DiskFullError) else None
    return type(error)(error.message, hint=hint)
