"""
Log lines on stderr, from structlog and from the standard library alike.

Two forms. For people, that of the product whose behaviour is matched::

    INFO 2026-03-03 12:00:10.079 download.py:42] file_published file=config.json bytes=512

For machines, with NIM_JSONL_LOGGING, one JSON object per line: ``timestamp``, ``level``, ``message``, the event's own
keys and ``caller``. An event may bring the key :data:`HUMAN`, the sentence people get in place of event and keys.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Final

from attrs import frozen

from nim_core.cli.redact import Redactor
from nim_core.errors import ConfigError
from nim_core.types import Variables

__all__ = ["HUMAN", "LEVELS", "LogStyle", "Stderr", "configure", "format_line", "printable"]

HUMAN: Final = "_sentence"
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_OWN_KEYS: Final = frozenset({"timestamp", "level", "filename", "lineno"})
"""Keys that this module makes; a secret that happens to be one of these words must not cost a line its form."""

_TEXT_KEYS: Final = ("event", HUMAN, "exception")

_QUIET_LOGGERS: Final = ("httpx", "httpcore")
"""These name signed URLs below WARNING, and tell nothing that core does not."""


@frozen(kw_only=True)
class LogStyle:
    """How much is logged, and in which form."""

    level: str = "INFO"
    json_lines: bool = False

    @classmethod
    def from_variables(cls, variables: Variables) -> LogStyle:
        """Read NIM_LOG_LEVEL and NIM_JSONL_LOGGING. Raises ConfigError naming the one that cannot be."""
        level = (variables.text("NIM_LOG_LEVEL") or "INFO").strip().upper()
        if level not in LEVELS:
            raise ConfigError(
                f"NIM_LOG_LEVEL is not a log level: {variables.text('NIM_LOG_LEVEL')!r}",
                hint=f"set NIM_LOG_LEVEL to one of {', '.join(LEVELS)}",
            )
        return cls(level=level, json_lines=variables.flag("NIM_JSONL_LOGGING"))


class Stderr:
    """Whole lines to stderr, from any thread; above a live display while there is one. Never raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._write: Callable[[str], None] = _write_stderr

    def line(self, text: str) -> None:
        """Write one line, or several held together by line breaks."""
        with self._lock:
            self._write(text)

    @contextmanager
    def through(self, write: Callable[[str], None]) -> Iterator[None]:
        """Give lines to ``write`` for as long as the context lasts."""
        before, self._write = self._write, write
        try:
            yield
        finally:
            self._write = before


def _write_stderr(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # closed, full or absent: no reason to fail the work
        return


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped: a server's words must not move the cursor or forge a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def format_line(event: Mapping[str, Any], style: LogStyle, redactor: Redactor) -> str:
    """
    Return the line for one event.

    Args:
        event: ``event``, ``level`` in lower case, ``timestamp`` in Unix seconds, ``filename``, ``lineno`` and the
            event's own keys.
        style: The form.
        redactor: Applied to all that was not made here.
    """
    own = {name: value for name, value in event.items() if name in _OWN_KEYS}
    texts = {name: redactor.value("", event[name]) for name in _TEXT_KEYS if name in event}
    facts = {name: value for name, value in event.items() if name not in own and name not in texts}
    clean = redactor.event(facts) | own | texts
    return _format_json(clean) if style.json_lines else _format_human(clean)


def _format_json(event: dict[str, Any]) -> str:
    event.pop(HUMAN, None)
    moment = datetime.fromtimestamp(event.pop("timestamp"), UTC)
    first = {
        "timestamp": moment.isoformat(timespec="milliseconds"),
        "level": event.pop("level").upper(),
        "message": event.pop("event"),
    }
    caller = _pop_caller(event)
    if caller:
        event["caller"] = caller
    return json.dumps(first | {f"{name}_" if name in first else name: value for name, value in event.items()})


def _format_human(event: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(event.pop("timestamp")).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    level, name, exception = event.pop("level").upper(), event.pop("event"), event.pop("exception", None)
    caller = _pop_caller(event) or "?"
    message = event.pop(HUMAN, None)
    if message is None:
        event.pop("logger", None)
        message = " ".join([str(name), *(f"{key}={_human_value(value)}" for key, value in event.items())])
    lines = [f"{level} {moment} {caller}] {printable(message)}"]
    return "\n".join([*lines, *map(printable, str(exception).splitlines())] if exception else lines)


def _pop_caller(event: dict[str, Any]) -> str:
    """Take out the place in the source that logged, as ``file.py:42``; empty when it is not known."""
    place = [str(event.pop(key)) for key in ("filename", "lineno") if key in event]
    return ":".join(place)


def _human_value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    plain = text and text.isprintable() and not set(text) & set(' "=')
    return text if plain or not isinstance(value, str) else json.dumps(text, ensure_ascii=False)


def configure(style: LogStyle, redactor: Redactor, stderr: Stderr) -> None:
    """Send what structlog and the standard library log to ``stderr``; may be called again."""
    structlog = _import_structlog()

    def write(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        return format_line({"timestamp": time.time()} | dict(event), style, redactor)

    callsite = structlog.processors.CallsiteParameter
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.CallsiteParameterAdder({callsite.FILENAME, callsite.LINENO}),
            structlog.processors.format_exc_info,
            write,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, style.level)),
        logger_factory=lambda *_names: _LineLogger(stderr),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(_Handler(style, redactor, stderr))


def _import_structlog() -> ModuleType:
    """Import structlog without rich, which it would load for a renderer that is not used here; that takes 0.15 s."""
    hide = "rich" not in sys.modules and "structlog" not in sys.modules
    if hide:
        sys.modules["rich"] = None  # type: ignore[assignment] # what Python takes for "cannot be imported"
    try:
        return importlib.import_module("structlog")
    finally:
        if hide:
            del sys.modules["rich"]


class _LineLogger:
    """What structlog hands finished lines to."""

    def __init__(self, stderr: Stderr) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = stderr.line


class _Handler(logging.Handler):
    """Gives records of the standard library the form of the other log lines."""

    def __init__(self, style: LogStyle, redactor: Redactor, stderr: Stderr) -> None:
        super().__init__(style.level)
        self._style, self._redactor, self._stderr = style, redactor, stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; one that cannot be formatted is its sender's bug and no reason to fail the work."""
        try:
            self._stderr.line(format_line(_event_of(record), self._style, self._redactor))
        except Exception:  # noqa: BLE001
            self.handleError(record)


def _event_of(record: logging.LogRecord) -> dict[str, Any]:
    event = {
        "timestamp": record.created,
        "level": record.levelname.lower(),
        "event": record.getMessage(),
        "logger": record.name,
        "filename": record.filename,
        "lineno": record.lineno,
    }
    if record.exc_info:
        event["exception"] = logging.Formatter().formatException(record.exc_info)
    return event


def _route_standard_library(handler: logging.Handler) -> None:
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(handler.level)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
