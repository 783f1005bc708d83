"""Quantities as people read them: decimal units, as disks and networks are sold."""

from __future__ import annotations

from typing import Final

__all__ = ["duration", "fraction", "rate", "size"]

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


def _exponent(count: float) -> int:
    exponent = 0
    while exponent < len(_UNITS) - 1 and count >= 999.5 * 1000**exponent:
        exponent += 1
    return exponent


def _number(count: float, exponent: int) -> str:
    value = count / 1000**exponent
    return f"{value:.1f}" if exponent and value < 99.95 else f"{value:.0f}"


def size(count: float) -> str:
    """Return ``count`` bytes such as ``512 B``, ``1.2 GB`` or ``210 MB``."""
    exponent = _exponent(count)
    return f"{_number(count, exponent)} {_UNITS[exponent]}"


def fraction(done: float, total: float) -> str:
    """Return ``done`` of ``total`` bytes in the unit of the total, such as ``1.2/2.9 GB``."""
    exponent = _exponent(total)
    return f"{_number(done, exponent)}/{_number(total, exponent)} {_UNITS[exponent]}"


def rate(bytes_per_second: float) -> str:
    """Return a speed such as ``210 MB/s``."""
    return f"{size(bytes_per_second)}/s"


def duration(seconds: float) -> str:
    """Return a time span such as ``8 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
