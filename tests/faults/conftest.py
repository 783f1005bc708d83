"""Fixtures for downloads that go wrong, and the table of what becomes of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.downloads import Downloads
from tests.faults.matrix import OBSERVED, ROWS, page
from tests.faults.shelf import install

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the test's source is installed."""
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture
def new_cache(tmp_path: Path, installed: Path) -> Callable[..., Downloads]:
    """Return a function that makes an empty cache; arguments as for :class:`Downloads`."""
    numbers = itertools.count()
    return lambda **options: Downloads(cache=tmp_path / f"cache-{next(numbers)}", installed=installed, **options)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, or write the page, when NIM_TEST_FAULTS says ``print`` or ``write`` and every row was run."""
    wish = os.environ.get("NIM_TEST_FAULTS")
    if wish and len(OBSERVED) == len(ROWS):
        terminalreporter.write_line(page(OBSERVED))
    if wish == "write" and len(OBSERVED) == len(ROWS):
        PAGE.write_text(page(OBSERVED), encoding="utf-8")
