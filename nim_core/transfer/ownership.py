"""
Who owns a folder that other processes, perhaps on other machines, may want.

An owned folder has a file ``owner`` that names the process by a random id, is locked by it, and is touched every few
seconds. What another process makes of it:

- It is locked: the owner lives.
- It could be locked, nobody else can lock it now, and locks are to be believed: the owner is gone, proved. They are on
  file systems that belong to one machine, and wherever the owner ran beneath this same kernel and mount.
- Else locks are missing, or may be a promise that no other machine hears of, as on NFS mounted with ``nolock``. Then an
  owner that said it let go, or has been silent for :data:`STALE_SECONDS` by the file system's own clock, counts as
  gone. That is no proof: a machine that was asleep goes on writing when it wakes. Whoever takes over then may read what
  is in the folder, and never write to it.
"""

from __future__ import annotations

import contextlib
import errno
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

from nim_core.errors import CacheBusyError
from nim_core.transfer.locking import boot_id, is_proof, lock, reaches, silence, touch

__all__ = [
    "STALE_SECONDS",
    "Gone",
    "Owner",
    "give_up",
    "gone",
    "hidden",
    "may_live",
    "owned",
    "read_record",
    "remove_gone",
    "succeeded",
]

STALE_SECONDS: Final = 60.0
"""Silence after which an owner counts as gone where locks prove nothing."""

_BEAT_SECONDS: Final = 5.0
_RECORD_BYTES: Final = 512


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
            boot=boot_id(),
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
                touch(self._handle)

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
            lock(handle)
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
        locked = lock(handle)
        record = _read(handle)
        proved = locked and is_proof(handle, record.boot, record.device)
        if not proved and not record.released and silence(handle, folder.parent) < STALE_SECONDS:
            raise BlockingIOError(errno.EWOULDBLOCK, "its owner may live", str(folder))
    except OSError:
        os.close(handle)
        raise
    return Gone(handle=handle, record=record, proved=proved)


def may_live(folder: Path) -> bool:
    """
    Say whether :func:`gone` would find that the owner of a folder lives, or may live; nothing is written.

    The owner file is locked for a moment, shared. Where locks say nothing, silence is told by this machine's clock.
    """
    try:
        handle = os.open(folder / "owner", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        locked = lock(handle, shared=True)
        record = _read(handle)
        if record.released or (locked and reaches(handle, record.boot, record.device)):
            return False
        return time.time() - os.fstat(handle).st_mtime < STALE_SECONDS
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


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


def succeeded(folder: Path) -> CacheBusyError:
    """Return the error for a folder that was this process's, until another took this one for dead."""
    return CacheBusyError(
        f"another process went on with a download that was silent for too long: {folder.name}",
        hint="run the same command again; it waits for the other process and uses what that has fetched",
    )


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
