"""
The engine: brings files here, verified, over one bounded pool of connections.

All decisions are taken on the thread that calls :meth:`Engine.run`; everything else (libcurl's loop, hashing, asking
sources, publishing) runs on threads of its own and posts what happened to it. Largest files begin first; parts of a
file are asked for in order, not further ahead of its digest than a window.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from nim_core.errors import NimError, SourceError, StalledError
from nim_core.transfer.curl import CurlLoop
from nim_core.transfer.exchange import Ended, Request
from nim_core.transfer.finishing import Finishing, Outcomes
from nim_core.transfer.flights import Flight, laggards
from nim_core.transfer.jobs import FileTask, Job, Part, Stage, Verified
from nim_core.transfer.journal import open_partial
from nim_core.transfer.network import NetworkConfig
from nim_core.transfer.options import EngineOptions, raise_handle_limit
from nim_core.transfer.outcomes import Decision, Next, Refusal, decide
from nim_core.transfer.pace import Paces
from nim_core.transfer.retry import backoff_seconds
from nim_core.transfer.routes import Route
from nim_core.transfer.sinks import FileSink, MemorySink
from nim_core.transfer.storage import storage_error
from nim_core.transfer.streams import copy_stream
from nim_core.transfer.telling import Teller
from nim_core.transfer.workers import Workers
from nim_core.types import HttpObject, LocalObject, Location, Secret, StreamObject, TransferEvent
from nim_core.types.events import EventKind

__all__ = ["Engine"]

_TICK_SECONDS: Final = 0.2
_WINDOW_BYTES: Final = 1 << 30
"""How far beyond the digest's frontier a part may begin, so that the bytes are still in the page cache then."""

_AHEAD: Final = 2
"""Files per connection that are located before a connection is free for them."""

_MAX_WAIT_SECONDS: Final = 300.0
_MAX_RESTARTS: Final = 2
_MAX_REPAIRS: Final = 2
_FILE_RETRIES: Final = 8
"""Retries of a file in all, as a multiple of those of one part."""

_TRICKLE_BYTES: Final = 1 << 20
"""A request that stood still counts as failed although it brought fewer bytes than this."""

_RUN_RETRIES: Final = 64
"""How many more requests of a run may fail than succeed, as a multiple of the retries of one part."""

_SHUTDOWN_SECONDS: Final = 0.3


class Engine:
    """
    Fetches files.

    Args:
        options: Limits.
        network: Proxy, trust and address rules.
        folder: Where partials are kept; on the file system of the cache's blobs.
        publish: Makes verified files visible; called on one thread, with all that have gathered.
        emit: Hears of everything; called on the thread of :meth:`run`.

    Attributes:
        bytes_received: Over the network, by now.
        failed: The file that ended the run. None when none did.
    """

    def __init__(
        self,
        *,
        options: EngineOptions,
        network: NetworkConfig,
        folder: Path,
        publish: Callable[[Sequence[Verified]], None],
        emit: Callable[[TransferEvent], None],
    ) -> None:
        self._options = options
        self._network = network
        self._folder = folder
        self._publish = publish
        self._teller = Teller(emit)
        self._random = random.Random()  # noqa: S311 - spreads retries, protects nothing
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: deque[FileTask] = deque()
        self._active: list[FileTask] = []
        self._again: list[FileTask] = []
        self._paces = Paces(options.connections, options.max_connections)
        self._flights: dict[Flight, Callable[[str], None]] = {}
        self._in_flight = 0
        self._excess = 0
        self._locating = 0
        self._unfinished = 0
        self._error: BaseException | None = None
        self._stopping = False
        self._next_tick = 0.0
        self.bytes_received = 0
        self.failed: Job | None = None

    def run(self, jobs: Iterable[Job]) -> None:
        """
        Fetch all files; returns when each has been published.

        Raises:
            NimError: The first file that could not be had, or what ``publish`` raised. Partials are kept.
            KeyboardInterrupt: As it came; partials are kept.
        """
        tasks = [FileTask(job, job.file.size) for job in jobs]
        tasks.sort(key=lambda task: (task.size is not None, -(task.size or 0)))
        self._waiting.extend(tasks)
        self._unfinished = len(tasks)
        raise_handle_limit()
        failed = partial(self._post_failure, None)
        self._finishing = Finishing(
            folder=self._folder,
            threads=self._options.hash_threads,
            verify=self._options.verify,
            publish=self._publish,
            post=self._events.put,
            outcomes=Outcomes(damaged=self._damaged, wrong=self._wrong, published=self._published, failed=failed),
        )
        self._loop = CurlLoop(self._network, self._options.timeouts, self._options.user_agent, rate=self._options.rate)
        self._locators = Workers("nim-locate", self._options.locate_threads, failed)
        try:
            self._work()
        except OSError as exc:
            raise storage_error(exc, self._folder) from exc
        finally:
            self._shutdown(tasks)

    def _work(self) -> None:
        while self._unfinished:
            self._fill()
            self._drain()
            self._tick()
            if self._error is not None:
                raise self._error

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._events.get(timeout=self._patience())()
            while True:
                self._events.get_nowait()()

    def _patience(self) -> float:
        now = time.monotonic()
        waits = [task.not_before - now for task in self._again]
        waits += [part.not_before - now for task in self._active for part in task.parts[task.cursor :][:64]]
        return max(0.001, min([_TICK_SECONDS, *(wait for wait in waits if wait > 0)]))

    def _post_failure(self, task: FileTask | None, exc: BaseException) -> None:
        self._events.put(lambda: self._fail(task, exc))

    def _fail(self, task: FileTask | None, exc: BaseException) -> None:
        if self._error is not None or self._stopping:
            return
        error: BaseException = storage_error(exc, self._folder) if isinstance(exc, OSError) else exc
        if error is not exc:
            error.__cause__ = exc
        if task is not None and isinstance(error, SourceError) and error.uri is None:
            error.uri = task.name
        if task is not None:
            self.failed = task.job
            self._teller.tell(task, "failed", reason=str(error))
        self._error = error

    def _shutdown(self, tasks: Sequence[FileTask]) -> None:
        self._stopping = True
        ended = self._loop.stop(_SHUTDOWN_SECONDS)
        self._locators.stop(0.0)
        ended = self._finishing.stop(_SHUTDOWN_SECONDS) and ended
        for task in tasks:
            if ended and task.partial is not None and task.stage is not Stage.DONE:
                for part in task.parts:
                    task.checkpoint(part)
                task.partial.close()

    # ------------------------------------------------------------------------------------------ which request is next
    def _fill(self) -> None:
        while self._in_flight < self._options.max_connections and not self._finishing.crowded:
            pick = self._pick()
            if pick is None:
                break
            self._request(*pick)
        now = time.monotonic()
        for task in [task for task in self._again if task.not_before <= now]:
            self._again.remove(task)
            self._locate(task)
        ahead = max(self._options.connections, self._in_flight) * _AHEAD
        while self._waiting and self._locating + len(self._active) < ahead and not self._finishing.backlog:
            self._locate(self._waiting.popleft())

    def _pick(self) -> tuple[FileTask, Part] | None:
        now = time.monotonic()
        for task in self._active:
            if task.stage is not Stage.FETCHING or task.stale or not self._paces.open(task.host, now):
                continue
            part = task.next_part(now, _WINDOW_BYTES + self._finishing.position(task))
            if part is not None and not self._renew(task):
                return task, part
        return None

    def _renew(self, task: FileTask) -> bool:
        """Ask the source again when what it said is about to expire, and say whether that is so."""
        if task.route.fresh_until is None or time.time() < task.route.fresh_until:
            return False
        self._locate(task)
        return True

    # ----------------------------------------------------------------------------------------------- asking the source
    def _locate(self, task: FileTask) -> None:
        task.stage = Stage.LOCATING
        self._locating += 1

        def ask() -> None:
            try:
                location = task.job.locate()
            except BaseException as exc:  # noqa: BLE001 - posted to the deciding thread
                self._post_failure(task, exc)
            else:
                self._events.put(lambda: self._located(task, location))

        self._locators.submit(ask)

    def _located(self, task: FileTask, location: Location) -> None:
        self._locating -= 1
        if isinstance(location, LocalObject):
            self._leave_active(task)
            self._finishing.take_local(task, location.path)
            return
        if isinstance(location, HttpObject):
            self._take_location(task, location)
        else:
            task.single = task.unranged = True
        task.stage = Stage.FETCHING
        if not task.parts:
            self._begin(task)
        if task.size == 0:
            self._finish_small(task, bytearray())
        elif isinstance(location, StreamObject):
            self._start_stream(task, location)

    def _take_location(self, task: FileTask, location: HttpObject) -> None:
        task.source, task.route = location, Route.to(location, self._network)
        if task.size is None:
            task.size = location.size
        if location.ranges is False:
            task.single = task.unranged = True
        task.validator = task.validator or location.validator

    def _begin(self, task: FileTask) -> None:
        """Begin a file that has been located, with what its partial has of it."""
        if not task.small:
            task.partial = task.partial or open_partial(self._folder, task.job.id)
            if task.size is not None:
                task.partial.begin(task.record())
        task.adopt()
        task.reported = task.received
        if task not in self._active:
            self._active.append(task)
        if not task.small:
            self._finishing.follow(task)
        self._teller.tell(task, "started", count=task.received)

    def _leave_active(self, task: FileTask) -> None:
        if task in self._active:
            self._active.remove(task)

    # ------------------------------------------------------------------------------------------------------- requests
    def _request(self, task: FileTask, part: Part) -> None:
        whole = task.single or len(task.parts) == 1
        if task.partial is None:
            part.reset()
        request = Request(
            url=task.route.url,
            headers=task.route.headers,
            first=part.offset + part.done,
            last=None if whole else part.last,
            fresh=task.fresh or part.fresh,
            multiplex=task.small,
            from_outside=task.route.from_outside,
            authorities=task.route.authorities,
        )
        flight = self._take_off(task, part, request)
        self._flights[flight] = self._loop.submit(request, flight.sink, partial(self._post_end, flight))

    def _take_off(self, task: FileTask, part: Part, request: Request) -> Flight:
        sink: FileSink | MemorySink
        if task.partial is None:
            sink = MemorySink(task, part)
        else:
            sink = FileSink(task, part, task.partial.data, partial(self._finishing.poke, task))
        sink.expect(request.first, request.last)
        part.in_flight = True
        self._in_flight += 1
        self._paces.of(task.host).in_flight += 1
        return Flight(
            task=task,
            part=part,
            sink=sink,
            request=request,
            before=part.done,
            route=task.route,
            began=time.monotonic(),
        )

    def _start_stream(self, task: FileTask, stream: StreamObject) -> None:
        flight = self._take_off(task, task.parts[0], Request(url=Secret("")))

        def copy() -> None:
            self._post_end(flight, copy_stream(stream, flight.sink, lambda: self._stopping))

        self._locators.submit(copy)

    def _post_end(self, flight: Flight, ended: Ended) -> None:
        self._events.put(lambda: self._ended(flight, ended))

    def _ended(self, flight: Flight, ended: Ended) -> None:
        task, part, sink = flight.task, flight.part, flight.sink
        part.in_flight = False
        self._in_flight -= 1
        self._flights.pop(flight, None)
        pace = self._paces.of(flight.route.host)
        pace.in_flight -= 1
        self.bytes_received += sink.received
        if task.stale:
            self._restart_when_idle(task)
            return
        gained = part.done - flight.before
        if gained > (_TRICKLE_BYTES if ended.stalled else 0) and not task.unranged:
            part.failures = task.relocations = 0
        whole = part.complete or (part.length is None and ended.code == 0 and ended.error is None)
        if whole and ended.accepted and ended.error is None:
            decision = Decision(next=Next.DONE)
        else:
            peer = flight.peer(self._network)
            decision = decide(ended, refusal=sink.refusal, whole=whole, peer=peer, name=task.name, now=time.time())
        self._steps[decision.next](self, flight, decision)

    # ----------------------------------------------------------------------------------------- what a request led to
    def _done(self, flight: Flight, _decision: Decision) -> None:
        task, part = flight.task, flight.part
        self._excess = max(0, self._excess - 1)
        if part.length is None:
            task.size = part.length = part.done
            if task.partial is not None:
                os.ftruncate(task.partial.data, part.done)
        if isinstance(flight.sink, MemorySink):
            self._finish_small(task, flight.sink.data)
            return
        task.finish_part(part)
        self._finishing.part_ended(task)
        if task.complete and not task.in_flight:
            self._leave_active(task)

    def _redirected(self, flight: Flight, decision: Decision) -> None:
        if flight.task.route is flight.route:
            flight.task.route = flight.route.redirected(decision.location, self._network)

    def _to_disk(self, flight: Flight, _decision: Decision) -> None:
        """Begin again with a file that the first answer showed to be too large for memory."""
        self._begin(flight.task)

    def _relocate(self, flight: Flight, decision: Decision) -> None:
        """Ask the source once more; the same answer again is final."""
        task = flight.task
        if task.route is not flight.route or task.stage is Stage.LOCATING:
            return
        if task.relocations:
            self._give_up(flight, decision)
            return
        task.relocations += 1
        self._teller.trouble(task, flight.part, "retry", decision.error)
        self._locate(task)

    def _single(self, flight: Flight, decision: Decision) -> None:
        flight.task.single = flight.task.unranged = True
        self._restart(flight, decision)

    def _restart(self, flight: Flight, decision: Decision) -> None:
        """Fetch a file from its beginning, as what comes does not fit what came before; a few times only."""
        task = flight.task
        task.restarts += 1
        if task.restarts > _MAX_RESTARTS:
            self._give_up(flight, decision)
            return
        if flight.sink.refusal is Refusal.CHANGED and task.restarts == _MAX_RESTARTS:
            task.any_version = self._options.verify and bool(task.job.file.digests)
        self._start_over(task, str(decision.error))

    def _start_over(self, task: FileTask, reason: str) -> None:
        """Forget all bytes of a file and begin again, as soon as no request writes to it any more."""
        self._teller.tell(task, "restart", count=-task.reported, reason=reason)
        task.reported = 0
        task.generation += 1
        task.stale = True
        self._restart_when_idle(task)

    def _restart_when_idle(self, task: FileTask) -> None:
        if not task.in_flight:
            self._finishing.recall(task)
            self._leave_active(task)
            task.forget()
            self._again.append(task)

    def _retry(self, flight: Flight, decision: Decision) -> None:
        task, part = flight.task, flight.part
        part.failures += 1
        task.failures += 1
        limit = self._options.retries
        self._excess += 1
        spent = part.failures > limit or task.failures > limit * (1 if task.unranged else _FILE_RETRIES)
        if spent or self._excess > limit * _RUN_RETRIES or (decision.delay or 0) > _MAX_WAIT_SECONDS:
            self._give_up(flight, decision)
            return
        now = time.monotonic()
        if decision.refused:
            self._paces.of(flight.route.host).refused(now)
        if decision.delay is not None:
            self._paces.pause(flight.route.host, now + decision.delay)
        delay = decision.delay or backoff_seconds(part.failures, self._options.backoff, self._random)
        part.not_before = now + delay
        kind: EventKind = "stall" if isinstance(decision.error, StalledError) else "retry"
        self._teller.trouble(task, part, kind, decision.error, delay)
        if task.source is None or (task.unranged and part.done) or part.complete:
            task.not_before = part.not_before
            self._start_over(task, str(decision.error))

    def _give_up(self, flight: Flight, decision: Decision) -> None:
        self._fail(flight.task, decision.error or SourceError(f"failed too often: {flight.route.host}"))

    _steps: Final = {
        Next.DONE: _done,
        Next.FOLLOW: _redirected,
        Next.TO_DISK: _to_disk,
        Next.RELOCATE: _relocate,
        Next.SINGLE: _single,
        Next.RESTART: _restart,
        Next.RETRY: _retry,
        Next.FAIL: _give_up,
    }

    # ------------------------------------------------------------------------------- what became of the bytes of a file
    def _finish_small(self, task: FileTask, data: bytearray) -> None:
        self._leave_active(task)
        self._finishing.take(task, data)

    def _damaged(self, task: FileTask, part: Part) -> None:
        """Fetch a part again that an earlier process left damaged."""
        task.cursor = min(task.cursor, part.number)
        if task not in self._active:
            self._active.append(task)
        reason = "damaged since the last run"
        self._teller.tell(task, "restart", count=-(part.length or 0), offset=part.offset, reason=reason)
        task.reported = task.received

    def _wrong(self, task: FileTask, error: NimError, again: bool) -> None:
        """Fetch wrong content again, on fresh connections, the second time as a single stream; then give up."""
        task.repairs += 1
        if task.repairs > _MAX_REPAIRS or not again:
            if task.partial is not None:
                task.partial.discard()
                task.partial = None
            self._fail(task, error)
            return
        task.fresh = True
        task.single = task.single or task.repairs == _MAX_REPAIRS
        self._start_over(task, str(error))

    def _published(self, task: FileTask, size: int) -> None:
        task.stage = Stage.DONE
        self._unfinished -= 1
        if task.partial is not None:
            task.partial.discard()
        self._teller.progress(task)
        self._teller.tell(task, "published", count=size)

    # --------------------------------------------------------------------------------------------------------- telling
    def _tick(self) -> None:
        now = time.monotonic()
        if now < self._next_tick:
            return
        self._next_tick = now + _TICK_SECONDS
        for task in (*self._active, *self._finishing.settling):
            self._paces.of(task.host).received(self._teller.progress(task))
            self._finishing.poke(task)
        self._paces.adapt(now, lambda host: any(task.host == host and task.wants(now) for task in self._active))
        for flight in laggards(self._flights, now):
            flight.part.fresh = True
            self._flights[flight]("far less than from its siblings from")
