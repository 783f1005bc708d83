"""``nim-llm plugins check``: the real command in a process of its own, on plugins installed by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing.conformance.plain import install

OWN_CHECKS = """
from nim_core.types import CheckResult, CheckSpec

def failing(variables):
    return CheckResult(status="failed", message=f"{variables.text('PLAIN_URL')} does not answer", hint="start it")

def raising(variables):
    raise ValueError("no such thing")

@hookimpl
def nim_register_checks():
    return [CheckSpec(name="reachable", summary="asks", run=failing), CheckSpec(name="odd", summary="x", run=raising)]
"""
HANGS_WHEN_CHECKED = "import sys, time; time.sleep(60 * any('checking' in word for word in sys.orig_argv))"


def check(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "NIM_"))}
    command = [sys.executable, "-c", "from nim_core.cli.app import main; main()", "plugins", "check", *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**kept, "PYTHONPATH": path, **environ}, cwd=folder, check=False
    )


def test_a_good_plugin_passes(tmp_path):
    install(tmp_path)
    done = check(tmp_path, "plain")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["hygiene:", "  ok      core loads it"]
    assert all(line.startswith("  ok ") for line in lines[1:])


def test_a_broken_one_fails_and_says_what_to_do(tmp_path):
    install(tmp_path, imports="import yaml")
    done = check(tmp_path, "plain", "--json")
    assert done.returncode == 20
    checks = json.loads(done.stdout)["checks"]
    (failed,) = [it for it in checks if it["outcome"] == "failed"]
    assert failed["test"] == "loading imports no other library"
    assert failed["reason"].startswith("loading the plugin imports yaml; import them inside the functions")
    assert f"1 of {len(checks)} checks of plain (plain 1.0) failed" in done.stderr


def test_the_plugins_own_checks_are_run(tmp_path):
    install(tmp_path, imports=OWN_CHECKS)
    done = check(tmp_path, "plain", PLAIN_URL="http://here")
    assert done.returncode == 20
    own = done.stdout.partition("own checks:\n")[2].splitlines()
    assert own == [
        "  FAILED  reachable: http://here does not answer - start it",
        "  FAILED  odd: ValueError: no such thing",
    ]


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ({"imports": "raise ValueError('no')"}, 21, "plain (plain 1.0) cannot be checked: cannot import plain_plugin"),
        ({"requires": "nim-core>=7,<8"}, 23, "plain (plain 1.0) cannot be checked: requires nim-core>=7,<8"),
    ],
)
def test_what_core_set_aside_is_not_checked(tmp_path, what, code, message):
    install(tmp_path, **what)
    done = check(tmp_path, "plain")
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_an_unknown_name(tmp_path):
    install(tmp_path)
    done = check(tmp_path, "plan")
    assert done.returncode == 10
    assert "no plugin is called: plan" in done.stderr
    assert "plain" in done.stderr


def test_a_plugin_that_hangs_ends_the_command(tmp_path):
    install(tmp_path, body=HANGS_WHEN_CHECKED)
    done = check(tmp_path, "plain", "--timeout=3")
    assert done.returncode == 20
    assert "checks of plain did not end within 3 s" in done.stderr
