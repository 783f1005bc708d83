"""A plugin made by ``nim-llm plugins new``, from its wheel, next to core's. Run by the session ``wheels``."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = os.environ.get("NIM_TEST_WHEELS")
pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="needs built wheels: uv run noxfile.py -s wheels"),
    pytest.mark.timeout(600),
]

DOWNLOAD = """
import os, subprocess, sys
from pathlib import Path
from nim_core.testing.corpus import sample_corpus
sys.path.insert(0, "tests")
from server import TOKEN, store

corpus = sample_corpus()
with store("team/model/1", corpus.files) as server:
    environ = {**os.environ, "ACME_URL": server.url, "ACME_TOKEN": TOKEN}
    subprocess.run(["download-to-cache", "--model-uri", "acme://team/model:1"], env=environ, check=True)
    checks = ["nim-llm", "plugins", "check", "acme", "--uri"]
    subprocess.run([*checks, "acme://team/model:1"], env=environ, check=True)
    failed = subprocess.run([*checks, "acme://team/none:1"], env=environ, capture_output=True, text=True)
    assert failed.returncode == 20 and "NotFoundError: Acme has no acme://team/none:1" in failed.stdout, failed
(folder,) = Path(os.environ["NIM_CACHE_PATH"]).glob("*/hub/*/snapshots/*")
print(corpus.differences(folder) or "the same")
"""

TOOLS = ("hatchling", "mypy", "ruff", "xllamacpp")
NAMES = {"source": "acme", "sink": "depot", "backend": "bell"}
"""One plugin of each kind; they are installed together."""

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An environment with core's wheel, and what runs a command in it; fails the test when the command fails."""
    folder = tmp_path_factory.mktemp("author")
    uv = os.environ.get("NIM_TEST_UV") or shutil.which("uv")
    assert uv, "uv is not installed here"
    ours = ("PYTEST_", "NIM_", "UV_PYTHON", "UV_PROJECT")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {
        "PATH": os.pathsep.join([str(folder / "env" / "bin"), os.defpath]),
        "HOME": str(folder),
        "NIM_CACHE_PATH": str(folder / "cache"),
        "VIRTUAL_ENV": str(folder / "env"),
    }

    def call(*words: str | Path, cwd: Path = folder) -> str:
        words = (uv, *words[1:]) if words[0] == "uv" else words
        done = subprocess.run(words, cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    call("uv", "venv", "--quiet", f"--python={sys.executable}", folder / "env")
    (core,) = Path(FOLDER or "").glob("nim_core-*.whl")
    python = f"--python={folder / 'env' / 'bin' / 'python'}"
    locked = f"--constraint={ROOT / 'requirements' / 'dev.txt'}"
    wanted = f"nim-core[serve,testing,template] @ {core.as_uri()}"
    call("uv", "pip", "install", "--quiet", python, "--no-cache", locked, wanted, *TOOLS)
    return call


@pytest.fixture(scope="module")
def projects(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A new plugin of each kind, installed from its wheel."""
    base, python = tmp_path_factory.mktemp("projects"), run("which", "python").strip()
    folders = {kind: base / f"nim-{kind}-{name}" for kind, name in NAMES.items()}
    for kind, folder in folders.items():
        words = ("--kind", kind, "--ci", "github", "--json")
        told = json.loads(run("nim-llm", "plugins", "new", NAMES[kind], folder, *words))
        assert told["folder"] == str(folder)
        package = folder.name.replace("-", "_")
        assert {f"{package}/{kind}.py", ".github/workflows/test.yml", ".copier-answers.yml"} <= set(told["files"])
        run("uv", "build", "--quiet", "--wheel", "--no-build-isolation", folder)
        (wheel,) = (folder / "dist").glob("*.whl")
        run("uv", "pip", "install", "--quiet", f"--python={python}", "--no-cache", "--no-deps", wheel)
    return folders


@pytest.fixture(scope="module")
def project(projects: dict[str, Path]) -> Path:
    """The new source."""
    return projects["source"]


@pytest.mark.parametrize("kind", NAMES)
def test_it_is_formatted_and_has_no_faults(run: Run, projects: dict[str, Path], kind: str) -> None:
    run("ruff", "check", ".", cwd=projects[kind])
    run("ruff", "format", "--check", ".", cwd=projects[kind])
    run("mypy", cwd=projects[kind])


def test_it_is_one_folder_of_six_files_and_next_to_no_lines(project: Path) -> None:
    files = [file for file in (project / "nim_source_acme").iterdir() if file.suffix == ".py"]
    assert len(files) == 6
    lines = [line for file in files for line in file.read_text().splitlines() if line.strip()]
    assert len(lines) <= 150


@pytest.mark.parametrize("kind", NAMES)
def test_it_passes_its_own_tests(run: Run, projects: dict[str, Path], kind: str) -> None:
    told = run("python", "-m", "pytest", "-p", "no:cacheprovider", cwd=projects[kind])
    assert "plugin conformance" in told
    assert "left out: " not in told


@pytest.mark.parametrize("kind", NAMES)
def test_the_installed_plugin_passes_its_check(run: Run, projects: dict[str, Path], kind: str) -> None:
    listed = [line.split() for line in run("nim-llm", "plugins", "list").splitlines()]
    assert [row[3] for row in listed if row[1:2] == [projects[kind].name]] == ["active"]
    assert NAMES[kind] in run("nim-llm", "plugins", "show", NAMES[kind])
    assert "FAILED" not in run("nim-llm", "plugins", "check", NAMES[kind])


def test_an_old_plugin_takes_what_the_template_has_now(run: Run, tmp_path: Path) -> None:
    template, folder = tmp_path / "template", tmp_path / "acme"
    shutil.copytree(ROOT / "template", template / "template")
    shutil.copy(ROOT / "copier.yml", template)
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")

    def commit(repository: Path, *words: str) -> None:
        run("git", "init", "--quiet", ".", cwd=repository)
        run("git", "add", "--all", cwd=repository)
        run(*git, "commit", "--quiet", "--message=x", cwd=repository)
        for word in words:
            run("git", "tag", word, cwd=repository)

    commit(template, "v1.0.0")
    run(
        "nim-llm",
        "plugins",
        "new",
        "acme",
        folder,
        "--summary",
        "models of mine",
        "--template",
        f"git+file://{template}",
    )
    mine = folder / "nim_source_acme" / "source.py"
    mine.write_text(mine.read_text(encoding="utf-8") + "\n\nMINE = 1\n", encoding="utf-8")
    commit(folder)
    ignored = template / "template" / ".gitignore"
    ignored.write_text(ignored.read_text(encoding="utf-8") + "*.orig\n", encoding="utf-8")
    commit(template, "v1.1.0")
    run("copier", "update", "--defaults", "--quiet", cwd=folder)
    assert "*.orig" in (folder / ".gitignore").read_text(encoding="utf-8")
    assert "MINE = 1" in mine.read_text(encoding="utf-8")
    assert "models of mine" in (folder / "pyproject.toml").read_text(encoding="utf-8")
    assert "_commit: v1.1.0" in (folder / ".copier-answers.yml").read_text(encoding="utf-8")


def test_core_downloads_with_it(run: Run, project: Path) -> None:
    assert run("python", "-c", DOWNLOAD, cwd=project).strip().endswith("the same")


TUTORIAL = ROOT / "docs" / "plugins" / "first-source.md"
BY_UV = {
    'pip install "nim-core[testing,template]"': ["true"],  # the fixture has: from the wheel, which no index has
    "pip install --editable . --group dev": ["uv", "pip", "install", "--quiet", "--no-deps", "--editable", "."],
}
"""Commands of the tutorial that ask an index for nim-core, and what is run instead."""


def blocks(kind: str) -> list[str]:
    """Return the code of one kind in the tutorial."""
    text = TUTORIAL.read_text(encoding="utf-8")
    return [block.rstrip("\n") for block in re.findall(rf"(?ms)^```{kind}\n(.*?)^```", text)]


def test_the_tutorial_is_short_and_shows_what_the_template_has(project: Path) -> None:
    assert len(TUTORIAL.read_text(encoding="utf-8").splitlines()) <= 200
    files = [file.read_text(encoding="utf-8") for file in project.rglob("*.py")]
    shown = blocks("python")
    assert len(shown) >= 5
    assert [block for block in shown if not any(block in text for text in files)] == []


def test_the_tutorial_s_commands_work(run: Run, tmp_path: Path) -> None:
    folder = tmp_path
    commands = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    assert set(BY_UV) <= set(commands)
    told = {}
    for command in commands:
        words = BY_UV.get(command) or shlex.split(command)
        if words[0] == "cd":
            folder = folder / words[1]
        else:
            python = [f"--python={run('which', 'python').strip()}"] if words[0] == "uv" else []
            told[command] = run(*words, *python, cwd=folder)
    assert "plugin conformance" in told["pytest"]
    assert "FAILED" not in told["nim-llm plugins check acme"]
    assert "acme" in told["nim-llm plugins show acme"]
