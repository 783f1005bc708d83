"""
One process at a time fetches a target; others wait, see whose download it is and how far, and take over when it dies.

A lease is a lock on ``tmp/lease.<target id>``, which the kernel gives up with the process that holds it. It saves work
and nothing else: where the file system has no locks, or lies about them, processes fetch side by side, and what becomes
visible is verified all the same.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.cache.layout import Layout, make_folder
from nim_core.errors import CacheError

__all__ = ["Holder", "Lease", "lease"]

_POLL_SECONDS: Final = 0.5
_REPORT_SECONDS: Final = 1.0
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


@frozen(kw_only=True)
class Holder:
    """
    Who has a lease.

    Attributes:
        pid: Its process number, on ``host``.
        host: Its machine.
        done: Bytes it has fetched. None when not known.
        total: Bytes it has to fetch. None when not known.
    """

    pid: int
    host: str
    done: int | None = None
    total: int | None = None

    def __str__(self) -> str:
        share = f" ({self.done * 100 // self.total}%)" if self.done is not None and self.total else ""
        return f"process {self.pid} on {self.host}{share}"


class Lease:
    """
    What a process holds while it fetches.

    Attributes:
        waited: Whether another process had it before; what is in the cache may have changed then.
    """

    def __init__(self, handles: Iterable[int], *, waited: bool) -> None:
        self.waited = waited
        self._handles = tuple(handles)
        self._next_report = 0.0
        self._write(Holder(pid=os.getpid(), host=socket.gethostname()))

    def report(self, done: int, total: int) -> None:
        """Let waiting processes know how far this one is; cheap, and written once a second."""
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + _REPORT_SECONDS
            self._write(Holder(pid=os.getpid(), host=socket.gethostname(), done=done, total=total))

    def _write(self, holder: Holder) -> None:
        text = json.dumps({"pid": holder.pid, "host": holder.host, "done": holder.done, "total": holder.total})
        for handle in self._handles:
            with contextlib.suppress(OSError):  # a full disk must not end what may still fit
                os.pwrite(handle, text.encode().ljust(200) + b"\n", 0)


@contextlib.contextmanager
def lease(layout: Layout, ids: Iterable[str], waiting: Callable[[Holder | None], None]) -> Iterator[Lease]:
    """
    Hold the lease of targets while the context lasts, waiting for it as long as another process has it.

    Args:
        layout: The cache. One that cannot be written gives a lease that excludes nobody.
        ids: Ids of the targets.
        waiting: Called twice a second while another process holds it; None when it cannot be known who.
    """
    held: dict[Path, int] = {}
    waited = False
    try:
        with contextlib.suppress(CacheError, OSError):
            folder = make_folder(layout.path, "tmp")
            for name in sorted(set(ids)):  # one order for all, so that two processes never wait for each other
                path = folder / f"lease.{name}"
                held[path], more = _locked(path, waiting)
                waited = waited or more
        yield Lease(held.values(), waited=waited)
    finally:
        for path, handle in held.items():
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)


def _locked(path: Path, waiting: Callable[[Holder | None], None]) -> tuple[int, bool]:
    """Return a handle to the locked file, and whether that took waiting."""
    waited = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            waited = _lock(handle, waiting) or waited
            if _is_at(path, handle):
                return handle, waited
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    """Whether the file is still the one of that name: whoever had the lease has removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _lock(handle: int, waiting: Callable[[Holder | None], None]) -> bool:
    """Lock a file, and say whether that took waiting; where there are no locks it is not locked."""
    waited = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            waiting(_holder(handle))
            time.sleep(_POLL_SECONDS)
        except OSError as exc:
            if exc.errno in _NO_LOCKS:
                return waited
            raise
        else:
            return waited


def _holder(handle: int) -> Holder | None:
    try:
        value = json.loads(os.pread(handle, 1000, 0))
        return Holder(pid=int(value["pid"]), host=str(value["host"]), done=value["done"], total=value["total"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
