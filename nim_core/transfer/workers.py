"""Threads for work that blocks: asking sources, hashing, making files visible."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

__all__ = ["Batcher", "Workers", "available_cores", "map_threads"]

_CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")

T = TypeVar("T")
R = TypeVar("R")


def available_cores(cpu_max: Path = _CPU_MAX) -> int:
    """
    Return how many cores this process may use: those it may run on, fewer where its container has a share of them.

    Args:
        cpu_max: The cgroup's file, microseconds per period (kernel documentation, cgroup-v2).
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return cores


class Workers:
    """
    A fixed number of daemon threads that carry out what is submitted, in order of submission.

    The standard library's executor is not used because it makes the interpreter wait for its threads at exit, and an
    interrupted download must end although a source does not answer.

    Args:
        name: For the threads' names.
        threads: How many.
        failed: Called with what a piece of work raised, on the thread it ran on.
    """

    def __init__(self, name: str, threads: int, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.stopping = False
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        """Have ``work`` done."""
        self._work.put(work)

    def stop(self, seconds: float) -> None:
        """Begin nothing more and wait up to ``seconds`` in all for what is under way."""
        self.stopping = True
        for _ in self._threads:
            self._work.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (work := self._work.get()) is not None and not self.stopping:
            try:
                work()
            except BaseException as exc:  # noqa: BLE001 - handed to whoever owns the work
                self._failed(exc)


class Batcher(Generic[T]):
    """
    One thread that hands over everything that has gathered since it was last free.

    Args:
        name: For the thread's name.
        limit: Most items in one batch.
        handle: Called with each batch.
        failed: Called with what ``handle`` raised.
    """

    def __init__(
        self, name: str, limit: int, handle: Callable[[list[T]], None], failed: Callable[[BaseException], None]
    ) -> None:
        self._limit = limit
        self._handle = handle
        self._failed = failed
        self._items: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Add an item to the next batch."""
        self._items.put(item)

    def stop(self, seconds: float) -> bool:
        """Begin no further batch, wait up to ``seconds`` for the one under way, and say whether none is."""
        self._stopping = True
        self._items.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._items.get()) is not None and not self._stopping:
            batch = [item, *self._more()]
            try:
                self._handle(batch)
            except BaseException as exc:  # noqa: BLE001 - handed to whoever owns the work
                self._failed(exc)

    def _more(self) -> list[T]:
        items: list[T] = []
        while len(items) < self._limit - 1:
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                break
            if item is None:
                self._items.put(None)
                break
            items.append(item)
        return items


def map_threads(name: str, function: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """
    Return ``function`` of every item, in order, computed on several threads; an interrupt does not wait for them.

    Raises:
        BaseException: The first that ``function`` raised; what has not begun by then does not begin.
    """
    done: queue.SimpleQueue[tuple[int, R] | BaseException] = queue.SimpleQueue()
    workers = Workers(name, min(threads, len(items)), done.put)
    try:
        for index, item in enumerate(items):
            workers.submit(partial(_put_result, done, index, function, item))
        results: dict[int, R] = {}
        while len(results) < len(items):
            outcome = done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            results[outcome[0]] = outcome[1]
    finally:
        workers.stop(0.0)
    return [results[index] for index in range(len(items))]


def _put_result(
    done: queue.SimpleQueue[tuple[int, R] | BaseException], index: int, function: Callable[[T], R], item: T
) -> None:
    done.put((index, function(item)))
