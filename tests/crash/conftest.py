"""Fixtures for downloads that are killed, or whose storage fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nim_core.testing.storage import why_not
from tests.crash.results import table
from tests.faults.shelf import install


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the test's source is installed."""
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def traceable() -> None:
    """Skips where nothing can be traced; in CI that is a failure."""
    reason = why_not()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the killed downloads cost."""
    for line in table():
        terminalreporter.write_line(line)
