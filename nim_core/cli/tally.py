"""
How far a download is: counts what worker threads report, and answers whoever draws it.

Events come from many threads, hundreds a second; each costs a lock and a few additions. Nothing is drawn here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from nim_core.plan import Plan
from nim_core.types import TransferEvent

__all__ = ["UPLOADING", "ActiveFile", "Snapshot", "Tally"]

_SPEED_WINDOW_SECONDS: Final = 10.0
UPLOADING: Final = frozenset({"uploading", "verifying"})
"""Phases whose bytes are those of uploads."""


@frozen(kw_only=True)
class ActiveFile:
    """One file under way: ``done`` bytes of ``total``, which is None when unknown."""

    name: str
    done: int
    total: int | None


@frozen(kw_only=True)
class Snapshot:
    """
    How far a download is at one moment.

    Attributes:
        phase: What is being done. Empty before the first phase.
        seconds: How long that phase lasts by now.
        done: Bytes that are here of those to fetch.
        total: Bytes to fetch. None while the size of a file is unknown.
        files_done: Files that are verified and in place.
        files: Files to fetch. None before the plan is made.
        speed: Bytes per second over the last seconds.
        active: Files under way, in the order they began.
        sent: Bytes uploaded. None where nothing is uploaded, as yet.
        to_send: Bytes there are to upload in all, as far as is known.
    """

    phase: str = ""
    seconds: float = 0.0
    done: int = 0
    total: int | None = None
    files_done: int = 0
    files: int | None = None
    speed: float = 0.0
    active: tuple[ActiveFile, ...] = ()
    sent: int | None = None
    to_send: int = 0

    @property
    def share(self) -> float | None:
        """Part of the bytes that is here, 0 to 1. None when the total is unknown."""
        if self.total is None or self.files is None:
            return None
        return min(1.0, self.done / self.total) if self.total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """Time the rest takes at this speed. None when that cannot be said."""
        if self.total is None or self.speed < 1:
            return None
        return max(0, self.total - self.done) / self.speed


@define
class _File:
    name: str
    total: int | None
    done: int = 0
    published: bool = False


@define
class Tally:
    """Counts one download."""

    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _phase: str = field(default="", init=False)
    _since: float = field(default=0.0, init=False)
    _files: dict[str, _File] | None = field(default=None, init=False)
    _active: dict[str, _File] = field(factory=dict, init=False)
    _done: int = field(default=0, init=False)
    _files_done: int = field(default=0, init=False)
    _received: int = field(default=0, init=False)
    _sent: int | None = field(default=None, init=False)
    _to_send: int = field(default=0, init=False)
    _samples: deque[tuple[float, int]] = field(factory=deque, init=False)

    def phase(self, name: str) -> None:
        """Note that a phase begins."""
        with self._lock:
            other = (name in UPLOADING) != (self._phase in UPLOADING)
            self._phase, self._since = name, self.clock()
            if other:
                self._samples = deque([(self.clock(), self._moved)])

    def planned(self, plan: Plan) -> None:
        """Note what is to be fetched."""
        with self._lock:
            self._files = {
                fetch.identity.display: _File(name=fetch.file.path, total=fetch.file.size) for fetch in plan.fetches
            }
            self._to_send = plan.bytes_to_fetch + plan.bytes_present
            self._samples = deque([(self.clock(), self._moved)])

    def event(self, event: TransferEvent) -> None:
        """Count one event."""
        with self._lock:
            file = self._file(event)
            if event.kind == "started":
                self._active[event.uri] = file
                self._count(file, event.bytes or 0)
            elif event.kind == "progress":
                self._received += event.bytes or 0
                self._count(file, event.bytes or 0)
            elif event.kind == "restart":
                self._count(file, -(file.done if event.bytes is None else abs(event.bytes)))
            elif event.kind == "published":
                self._finish(event.uri, file)

    def sent(self, count: int) -> None:
        """Count bytes that were uploaded; negative ones have to be uploaded again."""
        with self._lock:
            self._sent = max(0, (self._sent or 0) + count)

    def snapshot(self) -> Snapshot:
        """Return how far it is now."""
        with self._lock:
            now = self.clock()
            return Snapshot(
                phase=self._phase,
                seconds=now - self._since if self._phase else 0.0,
                done=self._done,
                total=self._total(),
                files_done=self._files_done,
                files=None if self._files is None else len(self._files),
                speed=self._speed(now),
                active=tuple(ActiveFile(name=f.name, done=f.done, total=f.total) for f in self._active.values()),
                sent=self._sent,
                to_send=self._to_send,
            )

    def _file(self, event: TransferEvent) -> _File:
        """Return the file an event is about, with its size if the event brings it."""
        files = self._files if self._files is not None else {}
        file = files.setdefault(event.uri, _File(name=event.file, total=event.total))
        file.total = event.total if file.total is None else file.total
        return file

    def _count(self, file: _File, count: int) -> None:
        count = max(count, -file.done)
        file.done += count
        self._done += count

    def _finish(self, uri: str, file: _File) -> None:
        self._active.pop(uri, None)
        if file.total is not None:
            self._count(file, file.total - file.done)
        self._files_done += not file.published
        file.published = True

    def _total(self) -> int | None:
        totals = [file.total for file in (self._files or {}).values()]
        return None if None in totals else sum(total for total in totals if total is not None)

    def _speed(self, now: float) -> float:
        self._samples.append((now, self._moved))
        while len(self._samples) > 2 and now - self._samples[0][0] > _SPEED_WINDOW_SECONDS:
            self._samples.popleft()
        then, before = self._samples[0]
        return max(0.0, (self._moved - before) / (now - then)) if now > then else 0.0

    @property
    def _moved(self) -> int:
        """Bytes whose speed is told: of uploads once there is nothing else."""
        return self._sent or 0 if self._phase in UPLOADING else self._received
