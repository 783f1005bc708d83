"""
Holds the front and the engine together: what one of them comes to, the other one shares.

Ends: the engine ended or the front failed, so the other one is stopped, and an error says why; or SIGTERM or SIGINT
came, so requests in flight end, then the engine does, and all is well (0). Where that takes too long, or a second
signal comes, all is killed (128 + number of the signal).

Kubernetes ends pods by SIGTERM and takes 0 for "Completed", anything else for an error; a drain that lost nothing is
none.
"""

from __future__ import annotations

import logging
import queue
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

from nim_core.errors import BackendError, BackendExitedError
from nim_core.serving.front import prepare
from nim_core.serving.process import EngineProcess
from nim_core.serving.state import Engine, ServingState
from nim_core.types import LaunchPlan

if TYPE_CHECKING:
    from nim_core.serving.listener import Listener

__all__ = ["DRAIN_SECONDS", "Supervisor"]

DRAIN_SECONDS: Final = 25.0
"""How long requests in flight may take; Kubernetes kills after 30 s if it is not told otherwise."""

_POLLS: Final = (0.02, 0.5)
"""Seconds between two looks at an engine that starts: at first, and at most."""

_HEALTH_SECONDS: Final = 2.0
_KILL_SECONDS: Final = 15.0
_SHOWN_LINES: Final = 10

_log = logging.getLogger(__name__)


class _Ended:
    """The engine's main process ended."""


class _FrontFailed:
    """A listener ended by itself."""


class _Failed:
    """Something else failed that serving cannot go on without."""

    def __init__(self, error: BackendError) -> None:
        self.error = error


class _Drained:
    """A listener has ended as it was asked to."""


class _HurriedError(Exception):
    """There is no time for an end in order."""


class _Signalled(Exception):  # noqa: N818 -- what unwinds a start, and no error
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Supervisor:
    """
    Runs one engine behind listeners that are up already.

    Args:
        state: Told of every step.
        listeners: Stopped when the engine ends, or when all is to end.
        drain_seconds: How long requests in flight may take when all is to end.
    """

    def __init__(
        self, state: ServingState, listeners: Sequence[Listener], *, drain_seconds: float = DRAIN_SECONDS
    ) -> None:
        self._state = state
        self._listeners = tuple(listeners)
        self._drain_seconds = drain_seconds
        # put() may be called from signal handlers, where a lock might be held already by what they interrupt
        self._events: queue.SimpleQueue[_Ended | _FrontFailed | _Failed | _Drained | _Signalled] = queue.SimpleQueue()
        for listener in self._listeners:
            listener.failed = lambda: self._events.put(_FrontFailed())

    def serve(self, plan: LaunchPlan, url: str, environ: Mapping[str, str], line: Callable[[str], None]) -> int:
        """
        Run the engine until it ends or all is to end; in the main thread.

        Args:
            plan: What is run.
            url: Where the engine listens, such as ``http://127.0.0.1:8001``.
            environ: Core's own environment.
            line: Gets each line that the engine writes.

        Returns:
            The exit code: 0 after a clean end that was asked for, else 128 and the signal's number.

        Raises:
            BackendExitedError: The engine ended by itself.
            BackendError: It could not be started, the front failed, or what :meth:`fail` was told.
        """
        process = EngineProcess(plan, environ, line)
        process.on_end(lambda: self._events.put(_Ended()))
        with self._signals():
            try:
                self._start(process, plan, url)
                self._until_something(process, None)
            except _Signalled as signalled:
                return self._wind_down(process, plan, signalled.number)
            except BackendError:
                self._abandon(process)
                raise
            except BaseException:
                process.kill()
                raise
        raise AssertionError("unreachable")

    def fail(self, error: BackendError) -> None:
        """Have serving end with ``error``, now or as soon as it begins; from any thread."""
        self._events.put(_Failed(error))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT)

        def note(number: int, _frame: FrameType | None) -> None:
            self._events.put(_Signalled(number))

        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- start ---------------------------------------------------------------------------------------------------------

    def _start(self, process: EngineProcess, plan: LaunchPlan, url: str) -> None:
        self._state.enter("starting engine")
        threading.Thread(target=prepare, name="prepare", daemon=True).start()
        process.start()
        self._state.started(Engine(url=url, plan=plan))
        if plan.health_path is not None:
            self._until_well(process, url + plan.health_path)
        seconds = self._state.seconds
        self._state.enter("serving")
        _log.info("serving; the engine took %.1f s to start", seconds)

    def _until_well(self, process: EngineProcess, url: str) -> None:
        """Ask until the answer is 200, and notice meanwhile what ends the start."""
        pause, longest = _POLLS
        while not _is_well(url):
            self._until_something(process, pause)
            pause = min(pause * 1.3, longest)

    def _until_something(self, process: EngineProcess, seconds: float | None) -> None:
        """
        Wait for what ends serving.

        Args:
            process: The engine.
            seconds: How long at most. None: until something happens.

        Raises:
            BackendError: The engine ended, the front failed, or something else did.
            _Signalled: A signal came.
        """
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            return
        if isinstance(event, _Signalled):
            raise event
        if isinstance(event, _Failed):
            raise event.error
        if isinstance(event, _FrontFailed):
            raise BackendError("the front ended by itself", hint="the log says why, above")
        self._engine_ended(process)

    def _engine_ended(self, process: EngineProcess) -> NoReturn:
        when = "while it served" if self._state.ready else "before it could serve"
        self._state.enter("stopping")
        self._state.started(None)
        process.wait(_KILL_SECONDS)
        lines = [f"  {text}" for text in process.last_lines[-_SHOWN_LINES:]]
        message = f"the engine ended {when}, with status {process.status}{_signal_name(process.status)}"
        raise BackendExitedError("\n".join([message, *lines]), hint="its last lines are above")

    # -- end -----------------------------------------------------------------------------------------------------------

    def _abandon(self, process: EngineProcess) -> None:
        """Stop all that still runs, when one part of it has failed."""
        self._state.enter("stopping")
        process.terminate()
        self._stop_listeners(0)
        if process.wait(_KILL_SECONDS) is None:
            process.kill()
            process.wait(_KILL_SECONDS)
        self._state.started(None)

    def _wind_down(self, process: EngineProcess, plan: LaunchPlan, number: int) -> int:
        """End all in order, and return the exit code."""
        _log.info("stopping on %s", signal.Signals(number).name)
        self._state.enter("stopping")
        try:
            clean = self._drain()
            process.terminate()
            self._wait_for_end(process, plan.stop_seconds)
        except _HurriedError as hurried:
            _log.warning("killing the engine: %s", hurried)
            process.kill()
            self._stop_listeners(0)
            process.wait(_KILL_SECONDS)
            clean = False
        self._state.started(None)
        return 0 if clean else 128 + number

    def _drain(self) -> bool:
        """Let requests in flight end, and return whether all of them did. Raises _HurriedError."""
        clean: list[bool] = []

        def stop(listener: Listener) -> None:
            clean.append(listener.stop(self._drain_seconds))
            self._events.put(_Drained())

        for listener in self._listeners:
            threading.Thread(target=stop, args=(listener,), name="drain", daemon=True).start()
        while len(clean) < len(self._listeners):
            self._next_event(None)
        return all(clean)

    def _wait_for_end(self, process: EngineProcess, seconds: float) -> None:
        """Wait for the engine's end. Raises _HurriedError, too when it takes longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        while process.wait(0.05) is None:
            if time.monotonic() > deadline:
                raise _HurriedError(f"it did not end within {seconds:g} s")
            self._next_event(0)

    def _next_event(self, seconds: float | None) -> None:
        """Wait for something to happen. Raises _HurriedError when that is another signal."""
        with suppress(queue.Empty):
            event = self._events.get(block=seconds != 0, timeout=seconds)
            if isinstance(event, _Signalled):
                for listener in self._listeners:
                    listener.abort()
                raise _HurriedError(f"another signal came: {signal.Signals(event.number).name}")

    def _stop_listeners(self, seconds: float) -> None:
        for listener in self._listeners:
            listener.stop(seconds)


def _is_well(url: str) -> bool:
    """
    Whether a health check is answered with 200.

    By the standard library's client: the others take longer to import than a small engine to start.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = HTTPConnection(host, port, timeout=_HEALTH_SECONDS)
    if parts.scheme == "https":
        # an engine is asked on this machine, where its certificate, made out to a public name, proves nothing
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection(host, port, timeout=_HEALTH_SECONDS, context=context)
    with closing(connection):
        try:
            connection.request("GET", parts.path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False


def _signal_name(status: int | None) -> str:
    if status is None or status <= 128:
        return ""
    try:
        return f" ({signal.Signals(status - 128).name})"
    except ValueError:
        return ""
