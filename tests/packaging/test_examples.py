"""The plugins below ``examples``, from their wheels, next to core's. Run by the session ``wheels``."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = os.environ.get("NIM_TEST_WHEELS")
EXAMPLES = sorted(path.parent.name for path in ROOT.glob("examples/*/pyproject.toml"))
CONTRACT = {"nim_core.hookspecs", "nim_core.types", "nim_core.errors"}
pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="needs built wheels: uv run noxfile.py -s wheels"),
    pytest.mark.timeout(900),
]

DOWNLOADS = {
    "nim-source-oci": """
import subprocess, sys, tempfile
from pathlib import Path
sys.path.insert(0, "tests")
from nim_core.testing.corpus import sample_corpus
from real_registry import running_registry

corpus = sample_corpus()
with tempfile.TemporaryDirectory() as folder, running_registry(Path(folder)) as registry:
    registry.push("team/model", "v1", corpus.files)
    uri = f"oci://{registry.host}/team/model:v1"
    subprocess.run(["download-model", "--model-uri", uri, "--workspace-path", "workspace"], check=True)
print(corpus.differences(Path("workspace")))
""",
    "nim-credential-files": """
import os, subprocess
from pathlib import Path
from nim_core.testing.corpus import sample_corpus
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer

corpus = sample_corpus()
Path("secrets/hf").mkdir(parents=True)
with HubServer([HubModel(files=corpus.files)]) as server:
    Path("secrets/hf/token").write_text(server.token)
    wrong = {**os.environ, **server.environment("hf_of_the_variable"), "NIM_CREDENTIALS_DIR": "secrets"}
    command = ["download-model", "--model-uri", "hf://acme/sample-llm", "--workspace-path", "workspace"]
    subprocess.run(command, env=wrong, check=True)
print(corpus.differences(Path("workspace")))
""",
}


class Installed(NamedTuple):
    """
    An example in an environment of its own.

    Attributes:
        name: Of the distribution.
        run: Runs a command where its tests are, but not its package, and returns what it wrote to stdout; fails the
            test when the command fails.
    """

    name: str
    run: Callable[..., str]


def wheel_of(folder: Path | str, name: str) -> str:
    """Return the requirement that is the one wheel of a distribution in ``folder``."""
    (wheel,) = Path(folder).glob(f"{name.replace('-', '_')}-*.whl")
    return f"{name} @ {wheel.resolve().as_uri()}"


def ours(name: str) -> list[str]:
    """Return the names of our distributions that an example's tests need, besides core."""
    extras = tomllib.loads(Path(ROOT, "examples", name, "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    names = [line.partition(">")[0].partition("[")[0] for line in extras["testing"]]
    return [found for found in names if found.startswith("nim-") and found != "nim-core"]


@pytest.fixture(scope="module", params=EXAMPLES)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build an example's wheel, and install it with core's and those that its tests need into an empty environment."""
    name = request.param
    base = tmp_path_factory.mktemp(name)
    uv = os.environ.get("NIM_TEST_UV") or shutil.which("uv")
    assert uv, "uv is not installed here"
    shutil.copytree(ROOT / "examples" / name, base / "project")
    elsewhere = base / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(base / "project" / "tests", elsewhere / "tests")
    shutil.copy(base / "project" / "pyproject.toml", elsewhere)
    of_this_run = ("PYTEST_", "NIM_", "UV_PYTHON", "UV_PROJECT")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(of_this_run)}
    environment |= {
        "PATH": os.pathsep.join([str(base / "env" / "bin"), os.defpath]),
        "HOME": str(base),
        "NIM_CACHE_PATH": str(base / "cache"),
        "VIRTUAL_ENV": str(base / "env"),
    }

    def run(*words: str | Path) -> str:
        words = (uv, *words[1:]) if words[0] == "uv" else words
        done = subprocess.run(
            words, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    run("uv", "venv", "--quiet", f"--python={sys.executable}", base / "env")
    locked = f"--constraint={ROOT / 'requirements' / 'dev.txt'}"
    install = ("uv", "pip", "install", "--quiet", f"--python={base / 'env' / 'bin' / 'python'}", "--no-cache", locked)
    run(*install, "hatchling", "mypy")
    run("uv", "build", "--quiet", "--wheel", "--no-build-isolation", f"--out-dir={base / 'dist'}", base / "project")
    wheels = [
        wheel_of(FOLDER or "", needed).replace("nim-core @", "nim-core[testing] @")
        for needed in ("nim-core", *ours(name))
    ]
    run(*install, *wheels, wheel_of(base / "dist", name).replace(" @", "[testing] @"))
    return Installed(name, run)


def test_core_finds_it(installed: Installed) -> None:
    rows = [line.split() for line in installed.run("nim-llm", "plugins", "list").splitlines()]
    assert [row[3] for row in rows if row[1:2] == [installed.name]] == ["active"]


def test_it_passes_its_own_tests(installed: Installed) -> None:
    told = installed.run("pytest", "-rs", "-p", "no:cacheprovider")
    assert " passed" in told
    skipped = [line for line in told.splitlines() if line.startswith("SKIPPED")]
    assert [line for line in skipped if ": not declared: " not in line] == []


def test_it_has_types(installed: Installed) -> None:
    installed.run("mypy", "--strict", "--package", installed.name.replace("-", "_"))


def test_it_downloads(installed: Installed) -> None:
    told = installed.run("python", "-c", DOWNLOADS[installed.name]).splitlines()
    assert told[-1] == "['not in the corpus: .nim-workspace']"


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_imports_the_contract_and_nothing_else_of_core(name: str) -> None:
    names: set[str] = set()
    for file in Path(ROOT, "examples", name, name.replace("-", "_")).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    assert {found for found in names if found.startswith("nim_core")} <= CONTRACT


def test_it_is_told_here_what_every_example_downloads() -> None:
    assert sorted(DOWNLOADS) == EXAMPLES
