"""What this machine's storage is told, and what it says, as an error of the contract."""

from __future__ import annotations

import ctypes
import errno
import functools
from collections.abc import Callable
from typing import Any, Final

from nim_core.errors import CacheError, CachePermissionError, DiskFullError

__all__ = ["start_writing_back", "storage_error"]

_SYNC_FILE_RANGE_WRITE: Final = 2


@functools.cache
def _sync_file_range() -> Callable[..., Any] | None:
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function


def start_writing_back(handle: int, offset: int, length: int) -> None:
    """
    Have the kernel begin to write a stretch of a file to the disk, so that little is left to do for durability.

    A hint: where the kernel has no such call, or refuses it, nothing happens. ``sync_file_range(2)``.
    """
    function = _sync_file_range()
    if function is not None:
        function(handle, offset, length, _SYNC_FILE_RANGE_WRITE)


def storage_error(exc: OSError, path: object = "") -> CacheError:
    """Return the error for what this machine's storage said."""
    where = f": {exc.filename or path}" if exc.filename or path else ""
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(f"no space left on device{where}", hint="free some space, or set NIM_CACHE_PATH elsewhere")
    if exc.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return CachePermissionError(f"{(exc.strerror or 'permission denied').lower()}{where}")
    return CacheError(f"{exc.strerror.lower() if exc.strerror else exc}{where}")
