"""What the engine tells the outside while it works."""

from __future__ import annotations

from collections.abc import Callable

from nim_core.transfer.jobs import FileTask, Part
from nim_core.types import TransferEvent
from nim_core.types.events import EventKind

__all__ = ["Teller"]


class Teller:
    """
    Turns what happens to files into events.

    Args:
        emit: Gets each event, on the thread that reports it.
    """

    def __init__(self, emit: Callable[[TransferEvent], None]) -> None:
        self._emit = emit

    def progress(self, task: FileTask) -> int:
        """Report the bytes that have come since the last report, and return their number."""
        new = task.received - task.reported
        if new <= 0:
            return 0
        self.tell(task, "progress", count=new)
        task.reported += new
        return new

    def trouble(
        self, task: FileTask, part: Part, kind: EventKind, reason: object, seconds: float | None = None
    ) -> None:
        """Report that a request for a part ended badly, and the seconds until the next."""
        self.tell(task, kind, offset=part.offset + part.done, seconds=seconds, reason=str(reason))

    def tell(
        self,
        task: FileTask,
        kind: EventKind,
        *,
        count: int | None = None,
        offset: int | None = None,
        seconds: float | None = None,
        reason: str | None = None,
    ) -> None:
        """Report a fact about a file; the arguments are those of :class:`~nim_core.types.TransferEvent`."""
        self._emit(
            TransferEvent(
                kind=kind,
                uri=task.name,
                file=task.job.file.path,
                bytes=count,
                total=task.size,
                host=task.host or None,
                offset=offset,
                seconds=seconds,
                reason=reason,
            )
        )
