from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("NIM_TEST_NOX_PYTHON") or sys.executable
NEW_PLUGIN = """
[project]
name = "nim-source-zebra"
version = "1.0"

[project.entry-points."nim_core.plugins"]
zebra = "nim_source_zebra.plugin"
"""


def run(folder: Path, *arguments: str) -> str:
    """Run the Python that has nox in ``folder`` and return what it printed."""
    environment = {**os.environ, "NOX_SCRIPT_MODE": "none"}
    done = subprocess.run(
        [PYTHON, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sessions(folder: Path) -> list[str]:
    """Return the names of the sessions that nox sees in ``folder``."""
    return re.findall(r"(?m)^[*-] (\S+) ->", run(folder, "-m", "nox", "--list"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of what the noxfile reads, with one more plugin folder."""
    shutil.copy(ROOT / "noxfile.py", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for project in ROOT.glob("plugins/*/pyproject.toml"):
        target = tmp_path / project.relative_to(ROOT)
        target.parent.mkdir(parents=True)
        shutil.copy(project, target)
    zebra = tmp_path / "plugins" / "zebra"
    zebra.mkdir()
    (zebra / "pyproject.toml").write_text(NEW_PLUGIN, encoding="utf-8")
    (tmp_path / "plugins" / "notes").mkdir()
    return tmp_path


def test_a_new_plugin_folder_is_tested_without_an_edit(tree: Path) -> None:
    added = set(sessions(tree)) - set(sessions(ROOT))
    assert added == {f"plugin-{python}(zebra)" for python in ("3.11", "3.12", "3.13")}


def test_a_new_plugin_folder_is_held_to_the_import_contracts(tree: Path) -> None:
    program = (
        "import noxfile; print(noxfile.import_contracts(noxfile.PROJECT['tool']['importlinter'], noxfile.PLUGINS))"
    )
    written = run(tree, "-c", program)
    assert written.count("    nim_source_zebra\n") == 3
    assert written.count("    nim_source_ngc\n") == 3
    assert "    nim_core.cli\n" in written


def test_the_script_brings_nox_and_uv_itself() -> None:
    block = re.search(r"(?m)^# /// script\n((?:# .*\n)+)# ///$", (ROOT / "noxfile.py").read_text(encoding="utf-8"))
    assert block is not None
    metadata = tomllib.loads(re.sub(r"(?m)^# ", "", block[1]))
    assert metadata["requires-python"] == ">=3.11"
    assert [name.split(">=")[0] for name in metadata["dependencies"]] == ["nox[uv]"]


def test_ci_runs_sessions_that_exist() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    block = re.search(r"(?ms)^sessions=\(\n(.*?)^\)", script)
    assert block is not None
    named = re.findall(r"[^\s\"']+", re.sub(r"(?m)#.*$", "", block[1]))
    known = {name.split("(")[0] for name in sessions(ROOT)}
    assert [name for name in named if name not in known] == []
    tests = {"core-3.13", "faults", "crash"}
    assert tests | {"lint", "types", "contracts", "docs", "minimum", "oracle", "stability", "wheels", "demo"} <= set(
        named
    )
