"""What the killed downloads cost, printed when all is over."""

from __future__ import annotations

import os
import secrets

from tests.crash.killing import HEAD, Killings

__all__ = ["SEED", "record", "table"]

SEED = os.environ.get("NIM_TEST_KILL_SEED") or str(secrets.randbelow(1 << 32))
_ROWS: list[tuple[str, ...]] = []


def record(series: Killings) -> None:
    """Have a series in the table."""
    _ROWS.append(series.row())


def table() -> list[str]:
    """Return the lines of the table; none where nothing was killed."""
    if not _ROWS:
        return []
    widths = [max(map(len, column)) for column in zip(HEAD, *_ROWS, strict=True)]
    lines = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in (HEAD, *_ROWS)]
    return [f"killed downloads, NIM_TEST_KILL_SEED={SEED}", *("  ".join(line).rstrip() for line in lines)]
