"""
What a plugin does to the process while it loads, undone and told.

Plugins run in core's process, so this keeps accidents from others, not attacks. Undone: text printed to ``sys.stdout``,
which is for data; changes of environment variables, current folder, umask, signal handlers, ``sys.path``, the streams
of ``sys``, modules that were there before, the root logger, sockets' default timeout, the locale, and filters that make
errors of warnings. A load that takes too long is ended by SIGALRM, as only the main thread can be.

Not undone: attributes put into core's modules and classes; fakes of libraries yet to be imported; threads (told, but
one that is no daemon keeps the process alive); what C code does by itself, such as writing to descriptor 1 (the
executables keep that one from plugins) or never returning; ``os._exit``, ``atexit``, limits of the process; and
whatever is done later, when a hook is called or a source is used.
"""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from nim_core.registry.info import SideEffect
from nim_core.registry.process_state import PARTS

__all__ = ["LoadTimeoutError", "isolated"]

_SLOW_SECONDS: Final = 1.0
_MAX_TEXT: Final = 200

_one_at_a_time = threading.RLock()


class LoadTimeoutError(BaseException):
    """Raised in a plugin's code that takes too long; no Exception, as its own handlers must not swallow it."""

    hint = "name it in NIM_PLUGINS_DISABLED, or set NIM_PLUGIN_LOAD_TIMEOUT to more seconds"


@contextmanager
def isolated(seconds: float) -> Iterator[list[SideEffect]]:
    """
    Run what loads one plugin; afterwards the process is as it was. One thread at a time.

    Args:
        seconds: Then LoadTimeoutError is raised in it, each second anew; 0 for never. Only in the main thread.

    Yields:
        A list that is filled at the end with what the plugin did.
    """
    with _one_at_a_time:
        yield from _isolated(seconds)


def _isolated(seconds: float) -> Iterator[list[SideEffect]]:
    effects: list[SideEffect] = []
    began, stdout, printed = time.monotonic(), sys.stdout, io.BytesIO()
    sys.stdout = io.TextIOWrapper(printed, encoding="utf-8", errors="replace", write_through=True)
    before = [part.read() for part in PARTS]
    try:
        with _alarm(seconds):
            yield effects
    finally:
        effects += [effect for part, was in zip(PARTS, before, strict=True) for effect in part.undo(was)]
        sys.stdout = stdout
    text = "" if printed.closed else printed.getvalue().decode("utf-8", "replace").strip()
    took = time.monotonic() - began
    if text:
        effects.append(SideEffect(kind="printed", detail=" ".join(text.split())[:_MAX_TEXT]))
    if took > _SLOW_SECONDS:
        effects.append(SideEffect(kind="seconds", detail=f"{took:.1f}"))


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    running = True

    def ring(_signal: int, frame: FrameType | None) -> None:
        if not running:
            return
        place = f", at {Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else ""
        raise LoadTimeoutError(f"not done after {seconds:g} s{place}")

    began, handler = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.01), interval)
