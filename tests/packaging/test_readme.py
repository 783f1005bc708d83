from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = "pip install uv && uv run noxfile.py -s demo"
TESTS = "pip install uv && uv run noxfile.py -s tests"
PRESENT = README.partition("## Not there yet")[0]
BLOCKS = re.findall(r"(?ms)^```[a-z]*\n(.*?)^```", README)


def commands(name: str) -> list[str]:
    """Return the lines of the README's code blocks that call ``name``, continued lines joined."""
    lines = [line.strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.search(rf"(^|[\s=]){name}(\s|$)", line)]


def installed(name: str, *arguments: str) -> str:
    """Return what an installed command prints."""
    command = Path(sysconfig.get_path("scripts"), name)
    done = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fresh_machine_needs_exactly_two_commands() -> None:
    calls = [line for line in README.splitlines() if re.match(r"\s*(\$ )?[^#`]*noxfile\.py", line)]
    assert calls == [DEMO, TESTS]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert f"timed '{TESTS}'" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_independence_is_said_before_anything_is_run() -> None:
    start = " ".join(README[: README.index("```")].split())
    assert "independent of NVIDIA" in start
    assert "not endorsed by NVIDIA" in start


def test_plugins_that_are_said_to_be_there_are_there() -> None:
    there = re.findall(r"(?m)^\| `([a-z0-9]+)` \| `nim-(?:source|backend)-([a-z0-9]+)`", README)
    assert sorted(folder for folder, _ in there) == sorted(
        path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml")
    )


def test_options_shown_are_options_of_the_command() -> None:
    shown = {option for line in commands("download-to-cache") for option in re.findall(r"(?<=\s)(--[a-z-]+)", line)}
    offered = installed("download-to-cache", "--help")
    assert shown
    assert [option for option in sorted(shown) if option not in offered] == []


def test_sub_commands_shown_exist() -> None:
    shown = {tuple(re.findall(r"nim-llm ((?:[a-z][a-z-]*)(?: [a-z]+)?)", line)) for line in commands("nim-llm")}
    assert shown
    for (words,) in shown - {()}:
        assert installed("nim-llm", *words.split(), "--help")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b(?:NIM|NGC)_[A-Z_]+\b", PRESENT))))
def test_variables_named_are_read_by_something(name: str) -> None:
    program = (
        "from nim_core.registry import load_registry; from nim_core.settings import CORE_VARIABLES, Settings\n"
        "declared = [*CORE_VARIABLES, *load_registry(Settings({})).declared_variables]\n"
        f"raise SystemExit({name!r} not in [variable.name for variable in declared])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
