"""What an engine writes, as whole lines, without ever making it wait for whoever reads them."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["LINE_BYTES", "Lines", "Patient"]

LINE_BYTES: Final = 32 * 1024
"""Longer lines are given in pieces."""

_READ_BYTES: Final = 64 * 1024
_SHOWN_SECONDS: Final = 5.0
_WAITING_LINES: Final = 10_000


class Lines:
    """
    Lines out of the pieces that come from one pipe.

    A progress bar, which overwrites its line with carriage returns, becomes a line every five seconds and one at its
    end. Text is UTF-8; other bytes are replaced.

    Args:
        line: Gets each line, without its end.
        clock: Seconds.
    """

    def __init__(self, line: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._clock = clock
        self._rest = b""
        self._shown = clock()

    def read(self, descriptor: int) -> bool:
        """Take what is there; False when there will be nothing any more."""
        data = os.read(descriptor, _READ_BYTES)
        self.feed(data) if data else self.finish()
        return bool(data)

    def feed(self, data: bytes) -> None:
        """Take a piece."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for text in whole:
            self._give(text)
        if b"\r" in self._rest:
            self._overwritten()
        while len(self._rest) >= LINE_BYTES:
            piece, self._rest = self._rest[:LINE_BYTES], self._rest[LINE_BYTES:]
            self._give(piece)

    def finish(self) -> None:
        """Give what has no end."""
        rest, self._rest = self._rest, b""
        if rest:
            self._give(rest)

    def _overwritten(self) -> None:
        before, _, self._rest = self._rest.rpartition(b"\r")
        if not self._rest:  # a carriage return at the very end may belong to the line feed that comes next
            self._rest = _last(before) + b"\r"
        if self._clock() - self._shown >= _SHOWN_SECONDS:
            self._give(before)

    def _give(self, text: bytes) -> None:
        self._shown = self._clock()
        shown = _last(text.rstrip(b"\r"))
        for start in range(0, max(len(shown), 1), LINE_BYTES):
            self._line(shown[start : start + LINE_BYTES].decode("utf-8", "replace"))


def _last(text: bytes) -> bytes:
    """Return what a terminal would show of a line that overwrites itself."""
    return text.rpartition(b"\r")[2]


class Patient:
    """
    Hands lines to somebody who may be slow, on a thread of its own; the oldest are left out when too many wait.

    Args:
        line: Gets each line. What it raises is its own business: lines go on.
    """

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._waiting: deque[str] = deque()
        self._left_out = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine-lines", daemon=True)
        self._thread.start()

    def put(self, text: str) -> None:
        """Take a line; returns at once."""
        with self._changed:
            if len(self._waiting) >= _WAITING_LINES:
                self._waiting.popleft()
                self._left_out += 1
            self._waiting.append(text)
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Take no more, and wait so long at most until all were handed over."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                texts, left_out = [*self._waiting], self._left_out
                self._waiting.clear()
                self._left_out = 0
                closed = self._closed
            if left_out:
                self._hand_over(f"({left_out} lines of the engine left out)")
            for text in texts:
                self._hand_over(text)
            if closed and not texts:
                return

    def _hand_over(self, text: str) -> None:
        try:
            self._line(text)
        except Exception:  # noqa: BLE001 -- an engine must not stand still because a line cannot be shown
            return
