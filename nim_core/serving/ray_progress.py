"""What a Ray cluster's driver tells until every node has the model, and the errors that this leads to."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from nim_core import errors
from nim_core.errors import BackendError, NimError

__all__ = ["Progress", "node_error", "read_event"]

_HINT: Final = "start nim-serve-ray --head-address on the others, or set NIM_RAY_NODES_TIMEOUT to more seconds"
_LEVELS: Final = {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
_KINDS: Final[Mapping[int, type[NimError]]] = {
    kind.exit_code: kind for kind in (getattr(errors, name) for name in errors.__all__) if kind.exit_code > 1
}
"""Errors by the exit code that a command of ours has for them."""

_log = logging.getLogger(__name__)


class Progress:
    """
    How far the nodes are.

    Args:
        count: How many there have to be.
        seconds: How long they may take to come.

    Attributes:
        ready: Whether all of them have the model.
    """

    def __init__(self, count: int, seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self._addresses: Sequence[str] = ()
        self._said: dict[str, list[str]] = {}
        self.ready = False

    @property
    def waits(self) -> bool:
        """Whether nodes are still missing."""
        return len(self._addresses) < self._count

    def note(self, told: Mapping[str, Any]) -> None:
        """Take up what the driver told; raises NimError when a node cannot get the model."""
        match told:
            case {"event": "nodes", "addresses": addresses}:
                self._addresses = addresses
                _log.info("%d of %d nodes are there: %s", len(addresses), self._count, ", ".join(addresses) or "none")
            case {"event": "line", "node": node, "text": text}:
                self._said.setdefault(node, []).append(text)
                _log_of_node(node, text)
            case {"event": "done", "node": node, "status": 0}:
                _log.info("%s has the model", node)
            case {"event": "done", "node": node, "status": status}:
                raise node_error(node, status, self._said.get(node, ()))
            case {"event": "broken", "node": node, "text": text}:
                reason = next(iter(str(text).strip().splitlines()), "no reason given")
                raise BackendError(f"node {node} did not get the model: {reason}")
            case {"event": "ready"}:
                self.ready = True

    def missing(self) -> BackendError:
        """Return the error for nodes that did not come."""
        there = ", ".join(self._addresses) or "none"
        return BackendError(
            f"{len(self._addresses)} of {self._count} nodes came within {self._seconds:.0f} s: {there}", hint=_HINT
        )


def read_event(text: str) -> dict[str, Any] | None:
    """Return what the driver tells in a line. None for a line of Ray's."""
    with suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict) and isinstance(value.get("event"), str):
            return value
    return None


def node_error(node: str, status: int | None, lines: Sequence[str]) -> NimError:
    """
    Return the error for a node that cannot get the model, in the class that it had there.

    Args:
        node: Address.
        status: What the command ended with there. None: it could not be run.
        lines: What it wrote; the last one is the diagnosis, as ``cli/errors.py`` words it.
    """
    if status is None:
        return BackendError(
            f"node {node} was not started by nim-serve-ray", hint="start it by nim-serve-ray --head-address"
        )
    said = [line for line in lines if line.strip()]
    diagnosis, _, hint = (said[-1] if said else f"status {status}").partition("; hint: ")
    reason = diagnosis.removeprefix("error: ").removesuffix(f" (exit {status})")
    details = "".join(f"\n{line}" for line in said[:-1] if _level_of(line) is None)
    kind = _KINDS.get(status, BackendError)
    return kind(f"node {node} cannot get the model: {reason}{details}", hint=hint or None)


def _level_of(line: str) -> int | None:
    """Return the level of a log line of ours. None where it is none."""
    return _LEVELS.get(line.partition(" ")[0])


def _log_of_node(node: str, line: str) -> None:
    """Log what another node said, at the level that it had there."""
    level = _level_of(line)
    _log.log(level or logging.INFO, "%s: %s", node, line if level is None else line.partition("] ")[2])
