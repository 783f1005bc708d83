"""
Who owns a folder that other processes, perhaps on other machines, may want.

An owned folder has a file ``owner`` that names the process by a random id, is locked by it, and is touched every few
seconds. What another process makes of it:

- It is locked: the owner lives.
- It could be locked, and locks are to be believed: the owner is gone, proved. They are on file systems that belong to
  one machine, and wherever the owner ran beneath this same kernel and mount.
- Else locks are missing, or may be a promise that no other machine hears of, as on NFS mounted with ``nolock``. Then an
  owner that said it let go, or has been silent for :data:`STALE_SECONDS` by the file system's own clock, counts as
  gone. That is no proof: a machine that was asleep goes on writing when it wakes. Whoever takes over then may read what
  is in the folder, and never write to it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from attrs import asdict, define, evolve, field, frozen

__all__ = [
    "STALE_SECONDS",
    "Gone",
    "Owner",
    "OwnerRecord",
    "give_up",
    "gone",
    "hidden",
    "owned",
    "read_record",
    "remove_gone",
]

STALE_SECONDS: Final = 60.0
"""Silence after which an owner counts as gone where locks prove nothing."""

_BEAT_SECONDS: Final = 5.0
_RECORD_BYTES: Final = 512
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_LOCAL_KINDS: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "ramfs", "overlay"})
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS: Final = Path("/proc/self/mountinfo")


@frozen(kw_only=True)
class OwnerRecord:
    """
    What an owner says of itself.

    Attributes:
        id: Random; no two owners have the same.
        pid: Its process number, on ``host``.
        host: Its machine's name.
        boot: What the kernel beneath it calls this run of the machine. Empty when not known.
        device: Number of the mounted file system, as that kernel has it.
        released: Whether it has let go.
        done: Bytes it has fetched. None when not known.
        total: Bytes it has to fetch. None when not known.
    """

    id: str = ""
    pid: int = 0
    host: str = ""
    boot: str = ""
    device: int = 0
    released: bool = False
    done: int | None = None
    total: int | None = None


@define(eq=False)
class Owner:
    """This process as the owner of a folder, until :meth:`release`."""

    _handle: int
    _record: OwnerRecord = field(init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def __attrs_post_init__(self) -> None:
        self._record = OwnerRecord(
            id=secrets.token_hex(8),
            pid=os.getpid(),
            host=socket.gethostname(),
            boot=_boot(),
            device=os.fstat(self._handle).st_dev,
        )
        self._write()
        _HEART.add(self)

    def owns(self, folder: Path) -> bool:
        """Whether ``folder`` is still there and this process's, as far as the file system says."""
        return read_record(folder).id == self._record.id

    def tell(self, done: int, total: int) -> None:
        """Let others know how far this process is."""
        with self._lock, contextlib.suppress(OSError):  # a full disk must not end what may still fit
            if self._handle >= 0:
                self._record = evolve(self._record, done=done, total=total)
                self._write()

    def beat(self) -> None:
        """Show that this process lives."""
        with self._lock, contextlib.suppress(OSError):
            if self._handle >= 0:
                _touch(self._handle)

    def release(self) -> None:
        """Let go. Storage that does not answer is not waited for; the end of the process lets go as well."""
        _HEART.remove(self)
        if not self._lock.acquire(timeout=1.0):
            return
        try:
            handle, self._handle = self._handle, -1
            if handle >= 0:
                with contextlib.suppress(OSError):
                    _write_record(handle, evolve(self._record, released=True))
                os.close(handle)
        finally:
            self._lock.release()

    def _write(self) -> None:
        _write_record(self._handle, self._record)


class _Heart:
    """Beats for all owners of this process, on a thread that ends when there are none."""

    def __init__(self) -> None:
        self._owners: set[Owner] = set()
        self._lock = threading.Lock()
        self._running = False

    def add(self, owner: Owner) -> None:
        with self._lock:
            self._owners.add(owner)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="nim-heart", daemon=True).start()

    def remove(self, owner: Owner) -> None:
        with self._lock:
            self._owners.discard(owner)

    def _run(self) -> None:
        while True:
            time.sleep(_BEAT_SECONDS)
            with self._lock:
                owners = tuple(self._owners)
                self._running = bool(owners)
            if not owners:
                return
            for owner in owners:
                owner.beat()


_HEART: Final = _Heart()


@frozen(kw_only=True)
class Gone:
    """
    An owner that is gone.

    Attributes:
        handle: Its owner file, open, and locked where that is possible.
        record: What it last said.
        proved: Whether it cannot come back; only then may anything in its folder be written.
    """

    handle: int
    record: OwnerRecord
    proved: bool

    def was_in(self, folder: Path) -> bool:
        """Whether ``folder`` is the one it owned, and nobody has owned it since."""
        try:
            same = os.path.samestat((folder / "owner").lstat(), os.fstat(self.handle))
        except OSError:
            return False
        return same and read_record(folder) == self.record

    def take(self) -> Owner:
        """Become the owner in its stead; the folder has to have a name by then that is this process's alone."""
        os.ftruncate(self.handle, 0)
        return Owner(self.handle)

    def close(self) -> None:
        """Close its owner file."""
        os.close(self.handle)


def owned(folder: Path) -> Owner:
    """
    Make ``folder``, owned from the moment it is seen.

    Raises:
        FileExistsError: There is one, which has an owner.
        OSError: The file system refuses.
    """
    unseen = hidden(folder)
    unseen.mkdir(mode=0o700)
    owner: Owner | None = None
    try:
        handle = _open(unseen)
        try:
            _lock(handle)
            owner = Owner(handle)
        except OSError:
            os.close(handle)
            raise
        unseen.rename(folder)
    except OSError as exc:
        if owner is not None:
            owner.release()
        shutil.rmtree(unseen, ignore_errors=True)
        if exc.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder)) from exc
        raise
    return owner


def gone(folder: Path) -> Gone:
    """
    Return the owner of ``folder``, who is gone.

    Raises:
        BlockingIOError: The owner lives, or may live.
        FileNotFoundError: So is the folder.
        OSError: The file system refuses otherwise.
    """
    handle = _open(folder)
    try:
        locked = _lock(handle)
        record = _read(handle)
        proved = locked and _proves(handle, record)
        if not proved and not record.released and not _is_stale(handle, folder.parent):
            raise BlockingIOError(errno.EWOULDBLOCK, "its owner may live", str(folder))
    except OSError:
        os.close(handle)
        raise
    return Gone(handle=handle, record=record, proved=proved)


def remove_gone(folder: Path) -> None:
    """
    Remove a folder whose owner is gone.

    Raises:
        BlockingIOError: The owner lives, or may live.
        OSError: The file system refuses, or another process was faster.
    """
    found = gone(folder)
    aside = hidden(folder)
    try:
        if not found.was_in(folder):
            raise BlockingIOError(errno.EWOULDBLOCK, "it has a new owner", str(folder))
        folder.rename(aside)
        if not found.was_in(aside):
            aside.rename(folder)
            raise BlockingIOError(errno.EWOULDBLOCK, "it has a new owner", str(folder))
    finally:
        found.close()
    shutil.rmtree(aside, ignore_errors=True)


def give_up(folder: Path, owner: Owner) -> None:
    """Let go of a folder and remove it, unless another process has taken it over."""
    aside = hidden(folder)
    with contextlib.suppress(OSError):
        if owner.owns(folder):
            folder.rename(aside)
    owner.release()
    shutil.rmtree(aside, ignore_errors=True)


def hidden(folder: Path) -> Path:
    """Return a name beside ``folder`` that nobody looks for."""
    return folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")


def read_record(folder: Path) -> OwnerRecord:
    """Return what the owner of ``folder`` says of itself; an empty record when nothing can be read."""
    try:
        handle = os.open(folder / "owner", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return OwnerRecord()
    try:
        return _read(handle)
    finally:
        os.close(handle)


def _open(folder: Path) -> int:
    return os.open(folder / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _lock(handle: int) -> bool:
    """Lock a file and return whether there are locks. Raises BlockingIOError when another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in _NO_LOCKS:
            return False
        raise
    return True


def _proves(handle: int, record: OwnerRecord) -> bool:
    """Whether a lock that could be had proves that nobody has it on any machine."""
    device = os.fstat(handle).st_dev
    same_kernel = record.boot == _boot() != "" and record.device == device
    return same_kernel or _kind(device) in _LOCAL_KINDS


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _kind(device: int) -> str:
    """Return the type of a mounted file system, such as ``nfs4``. Empty when not known."""
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    kinds = (line.partition(" - ")[2].partition(" ")[0] for line in lines if line.split(" ", 3)[2:3] == [name])
    return next(kinds, "")


def _is_stale(handle: int, folder: Path) -> bool:
    """Whether an owner file has not been touched for long; both times are the file system's."""
    return abs(clock(folder) - os.fstat(handle).st_mtime) >= STALE_SECONDS


def clock(folder: Path) -> float:
    path = folder / f".clock.{secrets.token_hex(8)}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _touch(handle)
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        path.unlink()


def _touch(handle: int) -> None:
    os.utime(handle)


def _write_record(handle: int, record: OwnerRecord) -> None:
    os.pwrite(handle, json.dumps(asdict(record)).encode().ljust(_RECORD_BYTES) + b"\n", 0)


def _read(handle: int) -> OwnerRecord:
    try:
        value: dict[str, Any] = json.loads(os.pread(handle, 2 * _RECORD_BYTES, 0))
        return OwnerRecord(
            id=str(value["id"]),
            pid=int(value["pid"]),
            host=str(value["host"]),
            boot=str(value["boot"]),
            device=int(value["device"]),
            released=value["released"] is True,
            done=None if value["done"] is None else int(value["done"]),
            total=None if value["total"] is None else int(value["total"]),
        )
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return OwnerRecord()
