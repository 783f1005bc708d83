"""
One process at a time fetches a target; others wait, see whose download it is and how far, and take over when it dies.

A lease is an owned folder ``tmp/lease.<target id>``, see :mod:`~nim_core.transfer.ownership`. It saves work and nothing
else: should two processes think that they have it, they fetch side by side, and what becomes visible is verified all
the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.cache.layout import Layout, make_folder
from nim_core.errors import CacheError
from nim_core.transfer.ownership import Owner, give_up, owned, read_record, remove_gone

__all__ = ["Holder", "Lease", "lease"]

_POLL_SECONDS: Final = 0.5
_REPORT_SECONDS: Final = 1.0


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

    def __init__(self, owners: Iterable[Owner], *, waited: bool) -> None:
        self.waited = waited
        self._owners = tuple(owners)
        self._next_report = 0.0

    def report(self, done: int, total: int) -> None:
        """Let waiting processes know how far this one is; cheap, and written once a second."""
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + _REPORT_SECONDS
            for owner in self._owners:
                owner.tell(done, total)


@contextlib.contextmanager
def lease(layout: Layout, ids: Iterable[str], waiting: Callable[[Holder | None], None]) -> Iterator[Lease]:
    """
    Hold the lease of targets while the context lasts, waiting for it as long as another process has it.

    Args:
        layout: The cache. One that cannot be written gives a lease that excludes nobody.
        ids: Ids of the targets.
        waiting: Called twice a second while another process holds it; None when it cannot be known who.
    """
    held: dict[Path, Owner] = {}
    waited = False
    try:
        with contextlib.suppress(CacheError, OSError):
            folder = make_folder(layout.path, "tmp")
            for name in sorted(set(ids)):  # one order for all, so that two processes never wait for each other
                path = folder / f"lease.{name}"
                held[path], more = _acquired(path, waiting)
                waited = waited or more
        yield Lease(held.values(), waited=waited)
    finally:
        for path, owner in held.items():
            give_up(path, owner)


def _acquired(path: Path, waiting: Callable[[Holder | None], None]) -> tuple[Owner, bool]:
    """Return what owns a lease from now on, and whether that took waiting."""
    waited = False
    while True:
        if not path.exists():
            with contextlib.suppress(FileExistsError):  # another process was faster
                return owned(path), waited
        try:
            remove_gone(path)
        except FileNotFoundError:
            continue
        except BlockingIOError:
            waited = True
            waiting(_holder(path))
            time.sleep(_POLL_SECONDS)


def _holder(path: Path) -> Holder | None:
    record = read_record(path)
    if not record.id:
        return None
    return Holder(pid=record.pid, host=record.host, done=record.done, total=record.total)
