"""Medians, spreads and ratios; pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from attrs import frozen

__all__ = ["Summary", "parse_size", "ratios", "show_bytes", "summarize"]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@frozen
class Summary:
    """The middle of some figures and how far they spread."""

    median: float
    low: float
    high: float
    count: int

    def show(self, digits: int = 2) -> str:
        """Return ``median (low to high)``, or the figure alone where there is one."""
        if self.count == 1:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def summarize(values: Iterable[float]) -> Summary:
    """Summarize figures. Raises ValueError when there are none."""
    known = list(values)
    if not known:
        raise ValueError("nothing to summarize")
    return Summary(statistics.median(known), min(known), max(known), len(known))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours by theirs, round by round: what disturbs a whole round disturbs both."""
    return [our / their for our, their in zip(ours, theirs, strict=False) if their > 0]


def parse_size(text: str) -> int:
    """Return the bytes that ``512M``, ``4G`` or ``8192`` mean. Raises ValueError."""
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = number[-1:] if number[-1:] in {"K", "M", "G"} else ""
    return int(float(number.removesuffix(unit)) * _UNITS[unit])


def show_bytes(count: float) -> str:
    """Return a number of bytes for people."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count:.0f} B"
