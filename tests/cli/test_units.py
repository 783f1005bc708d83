from __future__ import annotations

import pytest

from nim_core.cli.units import duration, fraction, rate, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_234_000_000, "1.2 GB"),
        (99_960_000_000, "100 GB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


def test_fraction_has_the_unit_of_the_total() -> None:
    assert fraction(1_230_000_000, 2_900_000_000) == "1.2/2.9 GB"
    assert fraction(0, 512) == "0/512 B"


def test_rate() -> None:
    assert rate(210_000_000) == "210 MB/s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (8.4, "8 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7_800, "2 h 10 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
