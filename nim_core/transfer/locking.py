"""Locks on files, how far they are to be believed, and the time as a file system has it."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from pathlib import Path
from typing import Final

__all__ = ["boot_id", "clock", "is_proof", "lock", "reaches", "silence", "touch"]

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_LOCAL_KINDS: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "ramfs", "overlay"})
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS: Final = Path("/proc/self/mountinfo")


def lock(handle: int, *, shared: bool = False) -> bool:
    """
    Lock a file and return whether there are locks. Raises BlockingIOError when another process has it.

    Args:
        handle: The file; one that is only read can be locked too.
        shared: Whether others may share the lock.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in _NO_LOCKS:
            return False
        raise
    return True


def is_proof(handle: int, boot: str, device: int) -> bool:
    """
    Return whether a lock that could be had proves that nobody else has it, on no machine.

    Args:
        handle: The file, locked.
        boot: What :func:`boot_id` was for whoever had the lock. Empty when not known.
        device: Number of the mounted file system for whoever had the lock.
    """
    return reaches(handle, boot, device) and _excludes(handle)


def reaches(handle: int, boot: str, device: int) -> bool:
    """Whether a lock on a file is heard of wherever its owner may be; arguments as for :func:`is_proof`."""
    mounted = os.fstat(handle).st_dev
    same_kernel = boot == boot_id() != "" and device == mounted
    return same_kernel or _kind(mounted) in _LOCAL_KINDS


def _excludes(handle: int) -> bool:
    """Whether nobody can lock a file that is locked; some file systems let everybody."""
    try:
        other = os.open(f"/proc/self/fd/{handle}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        lock(other)
    except BlockingIOError:
        return True
    finally:
        os.close(other)
    return False


def _kind(device: int) -> str:
    """Return the type of a mounted file system, such as ``nfs4``. Empty when not known."""
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    kinds = (line.partition(" - ")[2].partition(" ")[0] for line in lines if line.split(" ", 3)[2:3] == [name])
    return next(kinds, "")


def boot_id() -> str:
    """Return what the kernel calls this run of the machine. Empty when not known."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def silence(handle: int, folder: Path) -> float:
    """Return for how many seconds a file in ``folder`` has not been touched, by the file system's own clock."""
    return abs(clock(folder) - os.fstat(handle).st_mtime)


def clock(folder: Path) -> float:
    """Return the time that the file system of ``folder`` gives to a file that is touched now."""
    path = folder / f".clock.{secrets.token_hex(8)}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        touch(handle)
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        path.unlink()


def touch(handle: int) -> None:
    """Set a file's time of last change to now, which on a network is the server's now. Raises OSError."""
    os.utime(handle)
