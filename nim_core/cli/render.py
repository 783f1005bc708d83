"""
Showing how a download goes on, on stderr: a live display on a terminal, else a line in the log every few seconds.

What goes wrong on the way (retries, stalls, restarts) is logged in both cases. Only names, hosts and reasons of events
are shown, which hold no secrets, and every line passes the redactor besides.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field

from nim_core.cli.logging import HUMAN, LogStyle
from nim_core.cli.session import Session
from nim_core.cli.tally import UPLOADING, Snapshot, Tally
from nim_core.cli.units import duration, fraction, rate, size
from nim_core.plan import Plan
from nim_core.types import TransferEvent

if TYPE_CHECKING:
    from nim_core.mirror.upload import ObjectResult

__all__ = ["HEARTBEAT_SECONDS", "Display", "Troubles", "heartbeat", "planned_text", "progress_text", "watch"]

HEARTBEAT_SECONDS: Final = 5.0
_REPEAT_SECONDS: Final = 5.0
_PHASE_WORDS: Final = {"fetching": "downloading"}
_NUMBER = re.compile(r"\d+")
_TROUBLES: Final = frozenset({"retry", "stall", "restart", "failed"})


def progress_text(snapshot: Snapshot) -> str:
    """Return a snapshot as a line: ``downloading  42%  1.2/2.9 GB  210 MB/s  3/18 files  8 s left``."""
    word = _PHASE_WORDS.get(snapshot.phase, snapshot.phase)
    if snapshot.sent is not None and snapshot.phase in UPLOADING:
        moved = fraction(snapshot.sent, snapshot.to_send) if snapshot.to_send else size(snapshot.sent)
        return "  ".join([word, moved, rate(snapshot.speed)])
    if snapshot.phase != "fetching" or snapshot.files is None:
        return f"{word}  {duration(snapshot.seconds)}"
    share, left = snapshot.share, snapshot.seconds_left
    percent = "" if share is None else f"{int(share * 100)}%"
    parts = [
        f"{word} {percent:>4}" if percent else word,
        size(snapshot.done) if snapshot.total is None else fraction(snapshot.done, snapshot.total),
        rate(snapshot.speed),
        f"{snapshot.files_done}/{snapshot.files} files",
        "" if left is None else f"{duration(left)} left",
        "" if snapshot.sent is None else f"uploaded {fraction(snapshot.sent, snapshot.to_send)}",
    ]
    return "  ".join(filter(None, parts))


def planned_text(plan: Plan) -> str:
    """Return a plan as a line: ``to fetch: 18 files, 2.9 GB; on this machine: 3 files, 1.1 GB``."""
    unknown = f" and {plan.unknown_sizes} of unknown size" if plan.unknown_sizes else ""
    here = len(plan.present)
    wanted = f"to fetch: {_files(len(plan.fetches))}, {size(plan.bytes_to_fetch)}{unknown}"
    parts = [
        wanted if plan.fetches else "nothing to fetch",
        f"on this machine: {_files(here)}, {size(plan.bytes_present)}",
    ]
    return "; ".join(parts if here else parts[:1])


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    facts = {
        "phase": snapshot.phase,
        "percent": None if snapshot.share is None else int(snapshot.share * 100),
        "bytes": snapshot.done,
        "total": snapshot.total,
        "bytes_per_second": round(snapshot.speed),
        "files_done": snapshot.files_done,
        "files": snapshot.files,
        "bytes_sent": snapshot.sent,
    }
    return {name: value for name, value in facts.items() if value is not None}


@define
class Troubles:
    """Logs retries, stalls, restarts and failures; the like of one, numbers aside, again only after a while."""

    log: Any
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _told: dict[tuple[str, str | None, str], float] = field(factory=dict, init=False)
    _untold: dict[tuple[str, str | None, str], int] = field(factory=dict, init=False)

    def event(self, event: TransferEvent) -> None:
        """Log an event that is trouble, unless the like was logged a moment ago."""
        if event.kind not in _TROUBLES:
            return
        key = (event.kind, event.host, _NUMBER.sub("0", event.reason or ""))
        if not self._is_due(key):
            return
        repeated = self._untold.pop(key, 0)
        names = ("file", "host", "offset", "reason")
        facts = {name: getattr(event, name) for name in names if getattr(event, name) is not None}
        if event.seconds is not None:
            facts["seconds"] = round(event.seconds, 1)
        if repeated:
            facts["repeated"] = repeated
        self.log.warning(f"transfer_{event.kind}", **facts)

    def _is_due(self, key: tuple[str, str | None, str]) -> bool:
        with self._lock:
            now = self.clock()
            if now - self._told.get(key, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
                self._untold[key] = self._untold.get(key, 0) + 1
                return False
            self._told[key] = now
            return True


class Display:
    """
    The observer of a download: counts into ``tally`` and logs what should be read later, too.

    Args:
        tally: What is drawn from.
        log: Where lines go.
    """

    def __init__(self, tally: Tally, log: Any) -> None:
        self._tally, self._log, self._troubles = tally, log, Troubles(log)
        self._waits = False

    def phase(self, name: str) -> None:
        """Hear that a phase begins; that another process is waited for is said at once, not with the next heartbeat."""
        self._tally.phase(name)
        waits = name.startswith("waiting for ")
        if waits and not self._waits:
            self._log.info("waiting", phase=name, **{HUMAN: name})
        else:
            self._log.debug("phase", phase=name)
        self._waits = waits

    def planned(self, plan: Plan) -> None:
        """Hear what will be done."""
        self._tally.planned(plan)
        facts = {
            "files": len(plan.fetches),
            "bytes": plan.bytes_to_fetch,
            "files_present": len(plan.present),
            "bytes_present": plan.bytes_present,
        }
        self._log.info("planned", **facts, **{HUMAN: planned_text(plan)})

    def event(self, event: TransferEvent) -> None:
        """Hear a fact about a file."""
        self._tally.event(event)
        if event.kind == "published":
            self._log.debug("file_published", file=event.file, bytes=event.bytes)
        self._troubles.event(event)

    def sent(self, count: int) -> None:
        """Hear of bytes that were uploaded."""
        self._tally.sent(count)

    def stored(self, result: ObjectResult) -> None:
        """Hear of an object that is in its bucket."""
        self._log.debug("object_stored", key=result.key, state=result.state, bytes=result.size)

    def retried(self, key: str, reason: str, seconds: float) -> None:
        """Hear that an upload is tried again."""
        self._troubles.event(TransferEvent(kind="retry", uri=key, file=key, reason=reason, seconds=seconds))

    def damaged(self, path: str, reason: str) -> None:
        """Hear of a cached file that is damaged."""
        self._log.warning("damaged", file=path, reason=reason)


@contextmanager
def watch(session: Session, style: LogStyle, tally: Tally | None = None) -> Iterator[Display]:
    """Give an observer for one download, and show what it hears, counted into ``tally``, while the context lasts."""
    import structlog

    log, tally = structlog.get_logger(), tally or Tally()
    live = session.moves_cursor and not style.json_lines
    with _live(session, tally) if live else heartbeat(tally, log):
        yield Display(tally, log)


@contextmanager
def _live(session: Session, tally: Tally) -> Iterator[None]:
    from nim_core.cli.live import live_progress

    with live_progress(tally) as write, session.stderr.through(write):
        yield


@contextmanager
def heartbeat(tally: Tally, log: Any, seconds: float = HEARTBEAT_SECONDS) -> Iterator[None]:
    """Log every ``seconds`` how far it is."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            snapshot = tally.snapshot()
            if snapshot.phase:
                log.info("progress", **_facts(snapshot), **{HUMAN: progress_text(snapshot)})

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
