"""What holds a suite together: none of its tests is lost, and the table says what was run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nim_core.testing.conformance import PluginSuite, Suite
from nim_core.testing.conformance.suite import case_of
from tests.testing.conformance.plain import install


def run_suite(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a test module in which the plugins below ``folder`` are installed."""
    (folder / "conftest.py").write_text('pytest_plugins = ["nim_core.testing"]\n')
    (folder / "test_plain.py").write_text(f"from nim_core.testing.conformance import PluginSuite\n{text}")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, sys.path)])
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environ, check=False)


SUITE = 'class TestPlain(PluginSuite):\n    plugin = "plain"\n'


def test_a_good_plugin_passes_and_the_table_says_so(tmp_path):
    install(tmp_path)
    done = run_suite(tmp_path, SUITE)
    assert done.returncode == 0, done.stdout + done.stderr
    count = len(PluginSuite.cases())
    assert f"test_plain.py::TestPlain  hygiene  {count:<6}  -       -             -          -" in done.stdout


BROKEN = [
    ({"requires": "nim-core>=1.0.0.dev0"}, "test_it_says_which_core_it_works_with", "no upper bound"),
    ({"imports": "import yaml"}, "test_loading_imports_no_other_library", "imports yaml"),
    (
        {"body": "import socket; socket.getaddrinfo('localhost', 1)"},
        "test_loading_asks_nobody_and_writes_nothing",
        "network: socket.getaddrinfo",
    ),
    ({"body": "open('written', 'w').close()"}, "test_loading_asks_nobody_and_writes_nothing", "write: written"),
    ({"body": "import subprocess; subprocess.run(['true'])"}, "test_loading_asks_nobody_and_writes_nothing", "process"),
    ({"body": "print('hello')"}, "test_loading_prints_nothing", "prints 'hello'"),
    (
        {"body": "vars(__import__('os'))['environ']['PLAIN'] = '1'"},
        "test_loading_changes_no_variable",
        "changes environment variables: PLAIN",
    ),
    ({"body": "import os; os.umask(0o77)"}, "test_loading_leaves_the_process_as_it_was", "process: umask: 0o77"),
    ({"imports": "import nim_core.settings"}, "test_it_imports_only_the_contract", "imports nim_core.settings"),
    ({"imports": "from nim_core import uris"}, "test_it_imports_only_the_contract", "imports nim_core.uris"),
    ({"body": "import os; os.getenv('HOME')"}, "test_it_reads_no_variable_by_itself", "plain_plugin.py:8"),
    ({"variable": "PLAIN_TOKEN"}, "test_variables_that_are_secret_are_declared_so", "secret=True: PLAIN_TOKEN"),
]


@pytest.mark.parametrize(("what", "test", "message"), BROKEN, ids=[f"{i}-{row[1]}" for i, row in enumerate(BROKEN)])
def test_a_broken_plugin_fails_one_test_that_says_what_to_do(tmp_path, what, test, message):
    install(tmp_path, **what)
    done = run_suite(tmp_path, SUITE)
    failed = [
        line.split(" - ")[0].rpartition("::")[2] for line in done.stdout.splitlines() if line.startswith("FAILED")
    ]
    assert failed == [test], done.stdout + done.stderr
    assert message in done.stdout


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"imports": "raise ValueError('no')"}, "cannot import plain_plugin: ValueError: no"),
        ({"body": "yield"}, "nim_register_environment is a generator"),
        ({"requires": "nim-core>=7,<8"}, "requires nim-core>=7,<8"),
    ],
)
def test_a_plugin_that_core_sets_aside_fails_with_cores_reason(tmp_path, what, reason):
    install(tmp_path, **what)
    done = run_suite(tmp_path, SUITE)
    assert done.returncode == 1
    assert f"core sets plain (plain 1.0) aside: {reason}" in done.stdout


def test_a_plugin_that_is_not_installed_is_named(tmp_path):
    done = run_suite(tmp_path, SUITE)
    assert done.returncode == 1
    assert "no plugin is called 'plain'" in done.stdout


def test_a_test_that_is_set_aside_has_to_fail(tmp_path):
    install(tmp_path, body="print('hello')")
    aside = '    set_aside = {"test_loading_prints_nothing": "its library prints"}\n'
    done = run_suite(tmp_path, SUITE + aside)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "set aside: test_loading_prints_nothing: its library prints" in done.stdout
    (tmp_path / "fixed").mkdir()
    install(tmp_path / "fixed")
    done = run_suite(tmp_path / "fixed", SUITE + aside)
    assert done.returncode == 1
    assert "[XPASS(strict)] its library prints" in done.stdout


def test_what_is_deselected_is_shown(tmp_path):
    install(tmp_path)
    done = run_suite(tmp_path, SUITE, "-k", "not prints")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deselected: test_loading_prints_nothing" in done.stdout


def test_a_suite_cannot_lose_a_test():
    with pytest.raises(TypeError, match="Lossy replaces tests of the kit: test_core_loads_it"):
        type("Lossy", (PluginSuite,), {"plugin": "x", "test_core_loads_it": None})
    with pytest.raises(TypeError, match="sets tests aside that the kit does not have: test_nothing"):
        type("Unknown", (PluginSuite,), {"plugin": "x", "set_aside": {"test_nothing": "because"}})
    with pytest.raises(TypeError, match="without saying why"):
        type("Silent", (PluginSuite,), {"plugin": "x", "set_aside": {"test_core_loads_it": " "}})
    with pytest.raises(TypeError, match="__test__ = False"):
        type("Off", (PluginSuite,), {"plugin": "x", "__test__": False})


def test_every_test_of_a_suite_says_its_level():
    for suite in _suites(Suite):
        names = [name for name in dir(suite) if name.startswith("test_")]
        assert [name for name in names if case_of(getattr(suite, name)) is None] == []


def _suites(base):
    found = [base, *(it for sub in base.__subclasses__() for it in _suites(sub))]
    return [it for it in found if it.__module__.startswith("nim_core.")]
