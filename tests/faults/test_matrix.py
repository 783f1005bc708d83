"""Every fault, against every kind of file: the right bytes, or the documented error and nothing visible."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.downloads import RIGHT
from tests.faults.matrix import CELLS, OBSERVED, ROWS, page

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
REMEDY = "if that is right, run: NIM_TEST_FAULTS=write pytest tests/faults/test_matrix.py"


def tried(row, cell, cache):
    """Return how a download ended, and how the same one ended afterwards, from an origin that behaves."""
    files = {"model/weights.bin": cell.content}
    options = {"ranges": cell.ranges, "sizes": cell.listed}
    with row.elsewhere() as url:
        ended = cache.from_shelf(files, row.script(cell.size), url=url, **options)
    return ended, cache.from_shelf(files, **options)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_right_bytes_or_the_documented_error(row, new_cache):
    with ThreadPoolExecutor(len(CELLS)) as pool:
        results = list(pool.map(lambda cell: tried(row, cell, new_cache(retries=row.retries)), CELLS))
    OBSERVED[row.name] = [ended.outcome for ended, _ in results]
    for cell, (ended, again) in zip(CELLS, results, strict=True):
        where = f"{row.name}: {cell.name}: {ended.error}"
        assert ended.outcome in {RIGHT, *row.errors}, where
        assert ended.faults == [], where
        assert ended.outcome == RIGHT or ended.visible == [], where
        assert ended.outcome != RIGHT or ended.left == [], where
        assert (again.outcome, again.faults, again.left) == (RIGHT, [], []), where


@pytest.mark.skipif(os.environ.get("NIM_TEST_FAULTS") == "write", reason="the page is being written")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_page_says_what_was_observed(row):
    if row.name not in OBSERVED:
        pytest.skip("was not run")
    line = page({row.name: OBSERVED[row.name]}).splitlines()[-1]
    assert line in PAGE.read_text(encoding="utf-8").splitlines(), REMEDY


def test_the_page_has_nothing_else():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ...")] == [f"| ... {row.name}" for row in ROWS]
    assert page({}).splitlines() == lines[: len(page({}).splitlines())], REMEDY


def test_rows_have_names_of_their_own():
    assert len({row.name for row in ROWS}) == len(ROWS)
