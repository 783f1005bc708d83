"""
The levels that disturb nobody, run against a plugin as it is installed: what ``nim-llm plugins check`` starts.

``python -m`` this module, with a file for the answer, the plugin's name and, where one is given, a model URI; the
answer is a JSON list of :class:`Outcome`. It is a process of its own as a plugin that hangs or prints has to harm
nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import pytest
from attrs import asdict, frozen

from nim_core.testing.conformance.suite import Level, Suite, case_of

__all__ = ["HARMLESS", "Outcome", "check", "suites_of"]

HARMLESS: Final[tuple[Level, ...]] = ("hygiene", "reading")
"""Levels that neither write nor need a server that misbehaves."""

_NOT_DECLARED: Final = "not declared: "

_MODULE: Final = "from nim_core.testing.conformance import checking\nglobals().update(checking._SUITES)\n"
"""The module that pytest finds the suites in."""

_SUITES: dict[str, type[Suite]] = {}


@frozen(kw_only=True)
class Outcome:
    """
    What became of one test.

    Attributes:
        level: The test's level.
        test: Its name, words joined by blanks.
        outcome: ``not-declared`` where it needs what the plugin, or who runs this, does not give.
        reason: Why it failed, or what is not declared; one line. Empty for one that passed.
    """

    level: str
    test: str
    outcome: Literal["passed", "failed", "not-declared"]
    reason: str = ""


def suites_of(name: str, uri: str | None, environment: Mapping[str, str]) -> list[type[Suite]]:
    """
    Return the suites that fit.

    Args:
        name: Of the plugin's entry point.
        uri: A model to list and to read from. None: nothing is asked for.
        environment: Values of the plugin's variables.
    """
    from nim_core.testing.conformance.hygiene import PluginSuite

    module = {"__module__": "checked", "plugin": name}
    if uri is None:
        return [type("TestPlugin", (PluginSuite,), module)]
    from nim_core.testing.conformance.live import LiveSuite, live_fixtures

    return [type("TestSource", (LiveSuite,), {**module, **live_fixtures(uri, environment)})]


class _Collector:
    """The harmless tests of some suites, as pytest runs them, and what becomes of them."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._tests: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what may disturb somebody."""
        kept = []
        for item in items:
            marked = case_of(getattr(item, "function", None))
            if marked is not None and marked.level in HARMLESS and isinstance(item, pytest.Function):
                kept.append(item)
                self._tests[item.nodeid] = (marked.level, item.name.removeprefix("test_").replace("_", " "))
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take an outcome up."""
        if report.when != "call" and report.passed:
            return
        level, test = self._tests[report.nodeid]
        self.outcomes.setdefault(report.nodeid, _outcome(report, level, test))


def _outcome(report: pytest.TestReport, level: str, test: str) -> Outcome:
    if report.passed:
        return Outcome(level=level, test=test, outcome="passed")
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        return Outcome(level=level, test=test, outcome="not-declared", reason=reason.removeprefix(_NOT_DECLARED))
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    first = text.partition("\nassert ")[0].strip().removeprefix("AssertionError: ").removeprefix("Failed: ")
    return Outcome(level=level, test=test, outcome="failed", reason=" ".join(first.split()))


def check(name: str, uri: str | None, environment: Mapping[str, str]) -> list[Outcome]:
    """Run the tests in this process; arguments as for :func:`suites_of`. Prints what pytest has to say."""
    collector = _Collector()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pytest.ini").write_text("[pytest]\naddopts =\n", encoding="utf-8")
        file = Path(folder) / "test_checked.py"
        file.write_text(_MODULE, encoding="utf-8")
        _SUITES.clear()
        _SUITES.update({suite.__name__: suite for suite in suites_of(name, uri, environment)})
        options = ["-q", "-p", "no:cacheprovider", "-p", "nim_core.testing.conformance.matrix", f"--rootdir={folder}"]
        pytest.main([*options, f"--config-file={folder}/pytest.ini", str(file)], plugins=[collector])
    return list(collector.outcomes.values())


def main(arguments: list[str]) -> None:
    """Check, and write the answer."""
    answer, name, *rest = arguments
    for variable in [key for key in os.environ if key.startswith("PYTEST_")]:
        del os.environ[variable]
    with contextlib.redirect_stdout(sys.stderr):
        outcomes = check(name, rest[0] if rest else None, dict(os.environ))
    Path(answer).write_text(json.dumps([asdict(outcome) for outcome in outcomes]), encoding="utf-8")


if __name__ == "__main__":
    from nim_core.testing.conformance.checking import main as imported_main

    imported_main(sys.argv[1:])
