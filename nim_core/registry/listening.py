"""Telling plugins of a transfer, so that none can hold it up: each hears on a thread of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from nim_core.registry.guard import describe
from nim_core.registry.info import PluginInfo
from nim_core.types import TransferEvent

__all__ = ["Listener"]

_BACKLOG: Final = 2000
"""Events that may wait for a plugin; some seconds of a busy transfer."""


class Listener:
    """
    One plugin's ``nim_transfer_event``. May be told from any thread.

    Args:
        plugin: Whose hook it is.
        call: The hook.
        report: Gets the plugin and a reason once, when the plugin fails or does not keep up; it hears no more then.
    """

    def __init__(
        self, plugin: PluginInfo, call: Callable[..., object], report: Callable[[PluginInfo, str], None]
    ) -> None:
        self.plugin = plugin
        self._call = call
        self._report = report
        self._events: queue.Queue[TransferEvent | None] = queue.Queue(_BACKLOG)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._dropped = False

    def tell(self, event: TransferEvent) -> None:
        """Have the plugin hear of ``event``, after those before it; never waits for the plugin."""
        if self._dropped:
            return
        self._start()
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._drop(f"does not keep up: {_BACKLOG} events wait")

    def finish(self, seconds: float) -> None:
        """Let the plugin hear all that it was told of; one that takes longer than ``seconds`` is dropped."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None or self._dropped:
            return
        deadline = time.monotonic() + seconds
        with suppress(queue.Full):
            self._events.put(None, timeout=seconds)
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            self._drop(f"still busy {seconds:g} s after the transfer")

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    name = f"events-{self.plugin.name}"
                    self._thread = threading.Thread(target=self._hear, name=name, daemon=True)
                    self._thread.start()

    def _hear(self) -> None:
        while not self._dropped:
            event = self._events.get()
            if event is None:
                return
            try:
                self._call(event=event)
            except BaseException as exc:  # noqa: BLE001 - the transfer goes on
                self._drop(describe(exc))

    def _drop(self, reason: str) -> None:
        with self._lock:
            first, self._dropped = not self._dropped, True
        if first:
            self._report(self.plugin, reason)
