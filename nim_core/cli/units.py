"""Quantities as people read them: decimal units, as disks and networks are sold."""

from __future__ import annotations

import re
from typing import Final

from nim_core.errors import ConfigError

__all__ = ["duration", "fraction", "parse_count", "parse_rate", "rate", "size"]

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


def parse_rate(text: str) -> float:
    """
    Return the bytes per second that ``text`` means: a number, with k, M or G behind it for powers of 1000.

    Raises:
        ConfigError: It is none, or nothing at all.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)B?(?:/s)?", text.strip(), re.IGNORECASE | re.ASCII)
    value = float(match[1]) * 1000 ** " kmg".index(match[2].lower() or " ") if match else 0.0
    if value <= 0:
        raise ConfigError(f"not a rate in bytes per second: {text!r}", hint="write a number, such as 200M")
    return value


def parse_count(text: str) -> int:
    """Return the whole number of at least 1 that ``text`` is. Raises ConfigError when it is none."""
    if not re.fullmatch("[1-9][0-9]{0,3}", text.strip(), re.ASCII):
        raise ConfigError(f"not a number from 1 to 9999: {text!r}")
    return int(text)
