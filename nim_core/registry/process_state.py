"""The parts of a process that a plugin may change by accident: how each is read, compared and set again."""

from __future__ import annotations

import locale
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from attrs import frozen

from nim_core.registry.info import SideEffect

__all__ = ["PARTS", "Part"]

_STREAMS: Final = ("stdin", "stdout", "stderr", "excepthook")
_SIGNALS: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGCHLD,
)


@frozen
class Part:
    """
    Something of the process.

    Attributes:
        kind: Its name.
        read: Returns how it is.
        restore: Sets it as it was, given that and how it is now; says what had changed, or nothing.
    """

    kind: str
    read: Callable[[], Any]
    restore: Callable[[Any, Any], str]

    def undo(self, was: Any) -> Iterator[SideEffect]:
        """Set it as it was, and yield what had changed."""
        try:
            now = self.read()
            detail = "" if now == was else self.restore(was, now)
        except Exception as exc:  # noqa: BLE001 - a plugin may leave anything behind
            detail = f"cannot be undone: {type(exc).__name__}"
        if detail:
            yield SideEffect(kind=self.kind, detail=detail)


def _changed(was: Mapping[Any, Any], now: Mapping[Any, Any]) -> list[Any]:
    return sorted((key for key in {**was, **now} if was.get(key) is not now.get(key)), key=str)


def _environment(was: dict[str, str], now: dict[str, str]) -> str:
    names = sorted(name for name in {**was, **now} if was.get(name) != now.get(name))
    for name in names:
        if name in was:
            os.environ[name] = was[name]
        else:
            del os.environ[name]
    return ", ".join(names)


def _folder() -> str | None:
    with suppress(OSError):
        return os.getcwd()  # noqa: PTH109 - as it was told, to go back to
    return None


def _go_back(was: str | None, now: str | None) -> str:
    if was is not None:
        os.chdir(was)
    return now or "unknown"


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _set_umask(was: int, now: int) -> str:
    os.umask(was)
    return f"{now:#o}"


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _set_handlers(was: dict[int, Any], now: dict[int, Any]) -> str:
    numbers = _changed(was, now)
    for number in numbers:
        if was[number] is not None:
            signal.signal(number, was[number])
    return ", ".join(sorted(signal.Signals(number).name for number in numbers))


def _set_streams(was: dict[str, Any], now: dict[str, Any]) -> str:
    names = _changed(was, now)
    for name in names:
        setattr(sys, name, was[name])
    return ", ".join(names)


def _set_path(was: list[str], now: list[str]) -> str:
    sys.path[:] = was
    return ", ".join(str(it) for it in now if it not in was) or "taken from, or in another order"


def _set_modules(was: dict[str, Any], now: dict[str, Any]) -> str:
    """Bring back what was replaced or removed, and take out what stands in the way of an import to come."""
    changed = [name for name, module in was.items() if now.get(name) is not module]
    planted = [name for name, module in now.items() if name not in was and _is_planted(name, module)]
    sys.modules.update({name: was[name] for name in changed})
    for name in planted:
        del sys.modules[name]
    return ", ".join([*changed, *planted])


def _is_planted(name: str, module: Any) -> bool:
    """Say whether a new entry is none that an import made: nothing at all, or a stranger by the name of core's."""
    return module is None or (
        name.startswith("nim_core.") and getattr(getattr(module, "__spec__", None), "name", None) != name
    )


def _logging() -> tuple[list[logging.Handler], int, int]:
    return list(logging.root.handlers), logging.root.level, logging.root.manager.disable


def _set_logging(was: tuple[list[logging.Handler], int, int], _now: object) -> str:
    logging.root.handlers[:] = was[0]
    logging.root.setLevel(was[1])
    logging.disable(was[2])
    return "handlers or level"


def _timeout() -> float | None:
    """Return sockets' default timeout, without importing for it what nothing needs yet."""
    socket = sys.modules.get("socket")
    return socket.getdefaulttimeout() if socket else None


def _set_timeout(was: float | None, now: float | None) -> str:
    sys.modules["socket"].setdefaulttimeout(was)
    return f"{now} s"


def _set_locale(was: str, now: str) -> str:
    locale.setlocale(locale.LC_ALL, was)
    return now


def _strict_filters() -> list[Any]:
    return [it for it in warnings.filters if it[0] == "error"]


def _set_filters(was: list[Any], _now: object) -> str:
    mutable: Any = warnings.filters
    mutable[:] = [it for it in mutable if it[0] != "error" or it in was]
    return "makes errors of warnings"


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def _tell_threads(was: set[threading.Thread], now: set[threading.Thread]) -> str:
    return ", ".join(sorted(thread.name for thread in now - was))


PARTS: Final = (
    Part("environment", lambda: dict(os.environ), _environment),
    Part("current folder", _folder, _go_back),
    Part("umask", _umask, _set_umask),
    Part("signals", _handlers, _set_handlers),
    Part("streams", lambda: {name: getattr(sys, name, None) for name in _STREAMS}, _set_streams),
    Part("sys.path", lambda: list(sys.path), _set_path),
    Part("modules", sys.modules.copy, _set_modules),
    Part("logging", _logging, _set_logging),
    Part("socket timeout", _timeout, _set_timeout),
    Part("locale", lambda: locale.setlocale(locale.LC_ALL), _set_locale),
    Part("warnings", _strict_filters, _set_filters),
    Part("threads", _threads, _tell_threads),
)
