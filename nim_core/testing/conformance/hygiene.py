"""The hygiene level: what holds for every plugin, whatever it brings. Needs no server and no network."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pytest

from nim_core.hookspecs import ENTRY_POINT_GROUP
from nim_core.registry import PluginInfo
from nim_core.testing.conformance.suite import Suite, case

__all__ = ["PluginSuite"]

_CONTRACT: Final = ("nim_core.hookspecs", "nim_core.types", "nim_core.errors")
_SECONDS: Final = 60
_SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|PASSWORD|SECRET|API_KEY|SECRET_ACCESS_KEY)$")


class PluginSuite(Suite):
    """The hygiene level; for plugins that bring neither source, sink, backend nor credential, all there is."""

    @case("hygiene")
    def test_core_loads_it(self) -> None:
        """The plugin is installed and active."""
        assert self.info().status == "active"

    @case("hygiene")
    def test_it_says_which_core_it_works_with(self) -> None:
        """Core checks this before it imports the plugin, so that another version says so and not a traceback."""
        requires = importlib.metadata.requires(self.info().distribution) or []
        lines = [line for line in requires if re.match(r"nim[-_.]core\b", line, re.IGNORECASE)]
        assert lines, 'the distribution does not require core; write: dependencies = ["nim-core>=1,<2"]'
        assert any("<" in line or "~=" in line for line in lines), (
            f"{lines[0]} has no upper bound: the contract may change with the next major version; write nim-core>=1,<2"
        )

    @case("hygiene")
    def test_loading_imports_no_other_library(self) -> None:
        """Every command loads every plugin; a vendor's library is imported when a source is made, or later."""
        found = sorted(_foreign(self.info(), _loading(self.plugin)["modules"]))
        assert not found, (
            f"loading the plugin imports {', '.join(found)}; import them inside the functions that use them, "
            "as they make each command slower, also those that do not need this plugin"
        )

    @case("hygiene")
    def test_loading_asks_nobody_and_writes_nothing(self) -> None:
        """Imports and collect hooks do no I/O: a plugin that hangs here hangs every command."""
        actions = _loading(self.plugin)["actions"]
        assert not actions, (
            f"while it is imported and asked what it brings, the plugin does: {'; '.join(actions[:5])}. Do it when a "
            "source, sink or backend is first used"
        )

    @case("hygiene")
    def test_loading_changes_no_variable(self) -> None:
        """The environment belongs to the user, and to the programs that core starts."""
        changed = _loading(self.plugin)["effects"].get("environment")
        assert not changed, f"loading the plugin changes environment variables: {changed}"

    @case("hygiene")
    def test_loading_leaves_the_process_as_it_was(self) -> None:
        """Signals, streams, the current folder and the like are shared with core and every other plugin."""
        effects = {kind: detail for kind, detail in _loading(self.plugin)["effects"].items() if kind != "environment"}
        assert not effects, (
            "loading the plugin changes the process: "
            f"{'; '.join(f'{kind}: {detail}' for kind, detail in effects.items())}"
        )

    @case("hygiene")
    def test_loading_prints_nothing(self) -> None:
        """What a command prints is read by other programs."""
        printed = _loading(self.plugin)["printed"]
        assert not printed, f"loading the plugin prints {printed[:200]!r}; log by structlog, or say nothing"

    @case("hygiene")
    def test_it_imports_only_the_contract(self) -> None:
        """The rest of core changes from one version to the next."""
        found = [f"{file.name}:{line} imports {name}" for file, line, name in _core_imports(self.info())]
        allowed = ", ".join(("nim_core", *_CONTRACT))
        assert not found, f"{'; '.join(found)}; a plugin may import {allowed} and, in tests, nim_core.testing"

    @case("hygiene")
    def test_it_reads_no_variable_by_itself(self) -> None:
        """Variables are declared and come with the context: so they are documented, checked and redacted."""
        found = [f"{file.name}:{line}" for file, line in _environment_reads(self.info())]
        assert not found, (
            f"os.environ is read at {', '.join(found)}; declare the variable as an EnvVar and read it from "
            "context.variables or request.variables"
        )

    @case("hygiene")
    def test_variables_that_are_secret_are_declared_so(self) -> None:
        """Only the values of variables declared secret are kept out of logs and messages."""
        open_ = [it.name for it in self.info().variables if _SECRET_NAME.search(it.name) and not it.secret]
        assert not open_, f"declare with secret=True: {', '.join(open_)}"

    @case("hygiene")
    def test_what_it_brings_is_described(self) -> None:
        """Summaries are what ``plugins show`` and the reference pages are made of."""
        info = self.info()
        records: tuple[Any, ...] = (*info.sources, *info.sinks, *info.backends, *info.checks, *info.variables)
        bare = [record.name for record in records if not record.summary.strip() or "\n" in record.summary]
        assert not bare, f"a summary of one line is missing for: {', '.join(bare)}"


@lru_cache
def _loading(plugin: str) -> dict[str, Any]:
    """Load the plugin in a process of its own; return what that did. Fails the test when it cannot be loaded."""
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("NIM_", "PYTEST_"))},
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "nim_core.testing.conformance.observe_loading", plugin]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, capture_output=True, text=True, check=False, env=environ, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"loading the plugin takes longer than {_SECONDS} s", pytrace=False)
    lines = done.stderr.strip().splitlines()
    if done.returncode != 0 or not lines:
        pytest.fail(f"loading the plugin ended with {done.returncode}: {done.stderr[-2000:]}", pytrace=False)
    report: dict[str, Any] = json.loads(lines[-1])
    if report["reason"] is not None:
        pytest.fail(f"core sets the plugin aside: {report['reason']}", pytrace=False)
    printed = report["effects"].pop("printed", "")
    return report | {"printed": "\n".join([printed, done.stdout.strip(), *lines[:-1]]).strip()}


def _foreign(info: PluginInfo, modules: list[str]) -> set[str]:
    """Return those top-level modules that another distribution than the plugin's brings."""
    owners = importlib.metadata.packages_distributions()
    return {
        module
        for module in modules
        if module != "nim_core" and (names := owners.get(module)) and info.distribution not in names
    }


def _package(info: PluginInfo) -> list[Path]:
    """Return the source files of the plugin's package."""
    (entry,) = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=info.name)
    top = importlib.util.find_spec(entry.module.partition(".")[0])
    if top is None:
        return []
    if top.submodule_search_locations:
        return [file for folder in top.submodule_search_locations for file in sorted(Path(folder).rglob("*.py"))]
    return [Path(top.origin)] if top.origin else []


def _trees(info: PluginInfo) -> Iterator[tuple[Path, ast.AST]]:
    for file in _package(info):
        yield file, ast.parse(file.read_text(encoding="utf-8"), str(file))


def _core_imports(info: PluginInfo) -> Iterator[tuple[Path, int, str]]:
    """Yield the imports of parts of core that are not the contract's."""
    for file, tree in _trees(info):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "nim_core":
                names = [alias.name if alias.name == "hookimpl" else f"nim_core.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                if name.startswith("nim_core.") and not name.startswith(_CONTRACT):
                    yield file, node.lineno, name


def _environment_reads(info: PluginInfo) -> Iterator[tuple[Path, int]]:
    """Yield where a module reads the environment; one that is a program of its own may."""
    for file, tree in _trees(info):
        if any(isinstance(node, ast.Constant) and node.value == "__main__" for node in ast.walk(tree)):
            continue
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "os"
                and node.attr in {"environ", "environb", "getenv"}
            ):
                yield file, node.lineno
