"""
The pytest side of the suites: tests that are set aside, and the table at the end that says what was run.

Part of ``pytest_plugins = ["nim_core.testing"]``. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final

import pytest

from nim_core.testing.conformance.suite import LEVELS, Suite, case_of

__all__ = ["Matrix"]

_NOT_DECLARED: Final = "not declared: "
_COLUMNS: Final = ("passed", "failed", "not declared", "set aside", "left out")
_KEY: Final = pytest.StashKey["Matrix"]()


class Matrix:
    """What became of every test of every suite that was collected."""

    def __init__(self) -> None:
        self._suites: dict[str, type[Suite]] = {}
        self._outcomes: defaultdict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
        self._nodes: dict[str, tuple[str, str]] = {}

    def add(self, item: pytest.Function, suite: type[Suite]) -> None:
        """Expect the outcome of a test, and of all others of its class."""
        label = item.nodeid.rpartition("::")[0]
        self._suites[label] = suite
        self._nodes[item.nodeid] = (label, item.originalname)

    def hear(self, report: pytest.TestReport) -> None:
        """Take the outcome of a test up; the worst one of a test with several parameters counts."""
        where = self._nodes.get(report.nodeid)
        if where is None or (report.when != "call" and report.passed):
            return
        label, name = where
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
        known = getattr(report, "wasxfail", None)
        outcome = (report.outcome, reason.removeprefix("Skipped: ")) if known is None else ("set aside", str(known))
        before = self._outcomes[label].get(name)
        if before is None or before[0] in {"passed", "skipped"}:
            self._outcomes[label][name] = outcome

    def lines(self) -> list[str]:
        """Return the table; empty when no suite was run."""
        if not self._suites:
            return []
        rows: list[tuple[str, ...]] = [("suite", "level", *_COLUMNS)]
        notes: list[str] = []
        for label, suite in self._suites.items():
            rows += self._rows(label, suite)
            notes += self._notes(label, suite)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return [*table, *notes]

    def _rows(self, label: str, suite: type[Suite]) -> list[tuple[str, ...]]:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for name, case in suite.cases().items():
            counts[case.level][self._column(label, name)] += 1
        levels = [level for level in LEVELS if level in counts]
        cells = {level: [str(counts[level][column] or "-") for column in _COLUMNS] for level in levels}
        return [(label if level == levels[0] else "", level, *cells[level]) for level in levels]

    def _column(self, label: str, name: str) -> str:
        outcome, reason = self._outcomes[label].get(name, ("left out", ""))
        if outcome == "skipped":
            return "not declared" if reason.startswith(_NOT_DECLARED) else "left out"
        return outcome

    def _notes(self, label: str, suite: type[Suite]) -> list[str]:
        """Return a line for each test that was not run, or known to fail."""
        notes: list[str] = []
        missing: defaultdict[str, list[str]] = defaultdict(list)
        for name in suite.cases():
            outcome, reason = self._outcomes[label].get(name, ("left out", "deselected"))
            if outcome in {"skipped", "left out"}:
                missing[reason].append(name)
            elif outcome == "set aside":
                notes.append(f"{label}: set aside: {name}: {reason}")
        return [*notes, *(f"{label}: {reason}: {', '.join(names)}" for reason, names in missing.items())]


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing seen."""
    config.stash[_KEY] = Matrix()
    config.pluginmanager.register(_Listener(config.stash[_KEY]), "nim-conformance-matrix")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is set aside, and expect the outcome of everything else, before anybody deselects."""
    for item in items:
        if not isinstance(item, pytest.Function) or case_of(item.function) is None:
            continue
        suite = item.cls
        if suite is None or not issubclass(suite, Suite):
            continue
        config.stash[_KEY].add(item, suite)
        reason = suite.set_aside.get(item.originalname)
        if reason is not None:
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    lines = config.stash[_KEY].lines()
    if lines:
        terminalreporter.section("plugin conformance")
        for line in lines:
            terminalreporter.write_line(line)


class _Listener:
    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Hear of an outcome."""
        self._matrix.hear(report)
