"""Installed distributions to candidates: what may be a plugin, found without importing any."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from attrs import frozen

from nim_core.hookspecs import ENTRY_POINT_GROUP

if TYPE_CHECKING:
    from importlib.metadata import Distribution

__all__ = ["Candidate", "canonical_name", "discover", "installed_distributions"]


@frozen(kw_only=True)
class Candidate:
    """
    An entry point of the plugins' group.

    Attributes:
        name: Name of the entry point.
        distribution: Name of the distribution that has it.
        version: Version of that distribution.
        module: What the entry point names.
        requires: Its ``Requires-Dist`` lines, unread.
        fault: Why it cannot even be tried. None when it can.
    """

    name: str
    distribution: str
    version: str
    module: str = ""
    requires: tuple[str, ...] = ()
    fault: str | None = None

    @property
    def label(self) -> str:
        """Name, distribution and version, for messages."""
        return f"{self.name} ({self.distribution} {self.version})"


def canonical_name(distribution: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def installed_distributions() -> Iterable[Distribution]:
    """Return what is installed, in the order of ``sys.path``."""
    import importlib.metadata  # slow, and --help does without

    return importlib.metadata.distributions()


def discover(distributions: Iterable[Distribution]) -> tuple[Candidate, ...]:
    """
    Find the entry points of the plugins' group.

    The first of several distributions of one name counts, as it does for ``import``; an editable install has two.

    Returns:
        Candidates sorted by name, then distribution.
    """
    found: dict[str, tuple[Candidate, ...]] = {}
    for distribution in distributions:
        candidates = tuple(_candidates(distribution))
        if candidates:
            found.setdefault(canonical_name(candidates[0].distribution), candidates)
    unique = {candidate for candidates in found.values() for candidate in candidates}
    return tuple(sorted(unique, key=lambda candidate: (candidate.name, candidate.distribution, candidate.module)))


def _candidates(distribution: Distribution) -> Iterator[Candidate]:
    if not _mentions_group(distribution):
        return
    try:
        metadata = distribution.metadata
        name, version = metadata["Name"], metadata["Version"]
        entries = [entry for entry in distribution.entry_points if entry.group == ENTRY_POINT_GROUP]
        requires = tuple(distribution.requires or ())
    except Exception as exc:  # noqa: BLE001 - malformed files make the parser raise anything
        yield _unreadable(distribution, type(exc).__name__)
        return
    if not name or not version:
        yield _unreadable(distribution, "no name or version")
        return
    for entry in entries:
        yield Candidate(name=entry.name, distribution=name, version=version, module=entry.value, requires=requires)


def _unreadable(distribution: Distribution, what: str) -> Candidate:
    """Return a candidate that stands for a half-removed or malformed installation, by the name of its folder."""
    path = getattr(distribution, "_path", None)
    name = path.name if path is not None else "unknown"
    return Candidate(name=name, distribution=name, version="?", fault=f"its metadata cannot be read: {what}")


def _mentions_group(distribution: Distribution) -> bool:
    """Say cheaply whether entry points are worth parsing; most distributions have none."""
    try:
        return ENTRY_POINT_GROUP in (distribution.read_text("entry_points.txt") or "")
    except (OSError, UnicodeError):
        return False
