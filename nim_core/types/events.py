"""Facts about running transfers, and checks that ``doctor`` runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from attrs import frozen

from nim_core.types.environment import Variables

EventKind = Literal["started", "progress", "retry", "stall", "restart", "published", "failed"]


@frozen(kw_only=True)
class TransferEvent:
    """
    One fact about a running transfer.

    Attributes:
        kind: ``progress`` carries bytes since the last one; ``retry`` and ``stall`` carry a reason; ``restart``
            says that bytes counted before are fetched again.
        uri: Display form of the file's URI.
        file: Path within the repository.
        bytes: Bytes this event is about. None where it is about none.
        total: Size of the file in bytes. None when unknown.
        host: Host the bytes come from. None before that is known.
        offset: Position in the file, for ``retry`` and ``stall``.
        seconds: Duration the event is about.
        reason: One line, without secrets.
    """

    kind: EventKind
    uri: str
    file: str
    bytes: int | None = None
    total: int | None = None
    host: str | None = None
    offset: int | None = None
    seconds: float | None = None
    reason: str | None = None


@frozen(kw_only=True)
class CheckResult:
    """Outcome of one check of ``doctor``; ``hint`` says how to mend it."""

    status: Literal["ok", "warning", "failed", "not-applicable"]
    message: str
    hint: str | None = None


@frozen(kw_only=True)
class CheckSpec:
    """A check that ``doctor`` runs: ``run`` gets the plugin's variables and may use the network."""

    name: str
    summary: str
    run: Callable[[Variables], CheckResult]
