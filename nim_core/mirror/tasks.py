"""Work for a number of threads: what is begun is ended before more is begun, and the first failure ends it all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Tasks"]

_TICK_SECONDS = 0.2


class Tasks:
    """
    Threads that carry out what is added.

    Args:
        name: For the threads' names.
        threads: How many.
        heavy: So many pieces of heavy work are under way at once, at most.
    """

    def __init__(self, name: str, threads: int, heavy: int) -> None:
        self._changed = threading.Condition()
        self._urgent: deque[Callable[[], None]] = deque()
        self._heavy: deque[Callable[[], None]] = deque()
        self._light: deque[Callable[[], None]] = deque()
        self._heavy_left = heavy
        self._running = 0
        self._failure: BaseException | None = None
        self.stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def begin(self, work: Callable[[], None], *, heavy: bool) -> None:
        """Have something begun when nothing that is under way is waiting. Raises what has failed, if anything has."""
        self._put(self._heavy if heavy else self._light, work)

    def go_on(self, work: Callable[[], None]) -> None:
        """Have something done that belongs to what was begun."""
        self._put(self._urgent, work)

    def wait(self) -> None:
        """Wait until all is done. Raises the first failure."""
        with self._changed:
            while self._failure is None and (self._running or self._urgent or self._heavy or self._light):
                self._changed.wait(_TICK_SECONDS)
            if self._failure is not None:
                raise self._failure

    def stop(self, seconds: float) -> None:
        """Begin nothing more and wait up to ``seconds`` for each thread."""
        with self._changed:
            self.stopping.set()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(seconds)

    def _put(self, line: deque[Callable[[], None]], work: Callable[[], None]) -> None:
        with self._changed:
            if self._failure is not None:
                raise self._failure
            line.append(work)
            self._changed.notify()

    def _take(self) -> tuple[Callable[[], None], bool] | None:
        with self._changed:
            while not self.stopping.is_set():
                if self._urgent:
                    self._running += 1
                    return self._urgent.popleft(), False
                if self._heavy and self._heavy_left:
                    self._running += 1
                    self._heavy_left -= 1
                    return self._heavy.popleft(), True
                if self._light:
                    self._running += 1
                    return self._light.popleft(), False
                self._changed.wait()
        return None

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            work, heavy = taken
            failure: BaseException | None = None
            try:
                work()
            except BaseException as exc:  # noqa: BLE001 - handed to whoever waits
                failure = exc
            with self._changed:
                self._running -= 1
                self._heavy_left += heavy
                if failure is not None:
                    self._failure = self._failure or failure
                    self.stopping.set()
                self._changed.notify_all()
