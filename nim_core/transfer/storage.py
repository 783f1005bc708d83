"""What this machine's storage said, as an error of the contract."""

from __future__ import annotations

import errno

from nim_core.errors import CacheError, CachePermissionError, DiskFullError

__all__ = ["storage_error"]


def storage_error(exc: OSError, path: object = "") -> CacheError:
    """Return the error for what this machine's storage said."""
    where = f": {exc.filename or path}" if exc.filename or path else ""
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(f"no space left on device{where}", hint="free some space, or set NIM_CACHE_PATH elsewhere")
    if exc.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return CachePermissionError(f"{(exc.strerror or 'permission denied').lower()}{where}")
    return CacheError(f"{exc.strerror.lower() if exc.strerror else exc}{where}")
