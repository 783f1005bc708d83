"""Copies made by the file system where it can: blocks that are shared until one side changes, or copied by a server."""

from __future__ import annotations

import fcntl
import os
from typing import Final

__all__ = ["clone", "copy_range"]

_FICLONE: Final = 0x40049409
_PIECE_BYTES: Final = 16 << 20
"""What is copied in one go, so that an interrupt is heard."""


def clone(source: int, target: int) -> bool:
    """Have the open file ``target`` share all blocks of ``source``. False where the file system cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def copy_range(source: int, target: int, offset: int, length: int) -> bool:
    """
    Copy bytes between open files, to the same place. False when there are not so many in ``source``.

    Raises:
        OSError: They cannot be read or written.
    """
    end = offset + length
    while offset < end:
        count = _copy_piece(source, target, offset, min(_PIECE_BYTES, end - offset))
        if count == 0:
            return False
        offset += count
    return length >= 0 and offset >= 0


def _copy_piece(source: int, target: int, offset: int, length: int) -> int:
    try:
        return os.copy_file_range(source, target, length, offset, offset)
    except OSError:
        pass  # by hand, which tells what is wrong
    data = os.pread(source, length, offset)
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:], offset + done)
    return done
