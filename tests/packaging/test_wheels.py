"""Run by the session ``wheels``, which builds the distributions and names their folder in NIM_TEST_WHEELS."""

from __future__ import annotations

import configparser
import email
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = os.environ.get("NIM_TEST_WHEELS")
pytestmark = pytest.mark.skipif(not FOLDER, reason="needs built wheels: uv run noxfile.py -s wheels")

PROJECTS = {
    tomllib.loads(path.read_text(encoding="utf-8"))["project"]["name"]: path.parent
    for path in (ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml"))
}
NAMES = sorted(PROJECTS)
Command = Callable[..., subprocess.CompletedProcess[str]]


def wheel_of(name: str) -> zipfile.ZipFile:
    """Return the one wheel of a distribution."""
    (path,) = Path(FOLDER or "").glob(f"{name.replace('-', '_')}-*.whl")
    return zipfile.ZipFile(path)


def in_dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    """Return the text of a file of the wheel's dist-info folder."""
    (path,) = [
        entry for entry in wheel.namelist() if entry.split("/")[0].endswith(".dist-info") and entry.endswith(name)
    ]
    return wheel.read(path).decode("utf-8")


def metadata_of(name: str) -> Message:
    """Return the metadata of a distribution's wheel."""
    return email.message_from_string(in_dist_info(wheel_of(name), "/METADATA"))


@pytest.mark.parametrize("name", NAMES)
def test_metadata(name: str, projects: dict[str, dict[str, Any]]) -> None:
    metadata = metadata_of(name)
    assert metadata["Name"] == name
    assert metadata["Version"] == projects[name]["project"]["version"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip()
    assert [line for line in metadata.get_all("Requires-Dist", []) if "file:" in line or "@" in line] == []


@pytest.mark.parametrize("name", NAMES)
def test_contents(name: str) -> None:
    wheel, package = wheel_of(name), name.replace("-", "_")
    entries = wheel.namelist()
    assert f"{package}/py.typed" in entries
    assert in_dist_info(wheel, "/licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert {entry.split("/")[0].split("-")[0] for entry in entries} == {package}
    entries = [entry for entry in entries if not entry.startswith("nim_core/template/")]  # others' projects
    assert [entry for entry in entries if "tests" in entry.split("/")] == []
    project = PROJECTS[name]
    modules = {str(path.relative_to(project)) for path in project.glob(f"{package}/**/*.py")}
    assert {entry for entry in entries if entry.endswith(".py")} == modules


@pytest.mark.parametrize("name", NAMES)
def test_entry_points(name: str) -> None:
    entries = configparser.ConfigParser()
    entries.read_string(in_dist_info(wheel_of(name), "/entry_points.txt"))
    found = {section: dict(entries[section]) for section in entries.sections()}
    if name == "nim-core":
        assert set(found) == {"console_scripts"}
        assert {"nim-llm", "download-to-cache", "list-model-profiles"} <= set(found["console_scripts"])
    else:
        assert found == {"nim_core.plugins": {PROJECTS[name].name: f"{name.replace('-', '_')}.plugin"}}


@pytest.mark.parametrize("name", NAMES)
def test_source_distribution_is_whole(name: str) -> None:
    (path,) = Path(FOLDER or "").glob(f"{name.replace('-', '_')}-*.tar.gz")
    with tarfile.open(path) as archive:
        entries = {entry.partition("/")[2] for entry in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", f"{name.replace('-', '_')}/py.typed"} <= entries
    assert [entry for entry in entries if entry.startswith(("plugins/", ".nox", "uv.lock", "requirements/"))] == []


def uv(*arguments: str | Path) -> None:
    """Run uv, quietly."""
    command = os.environ.get("NIM_TEST_UV") or shutil.which("uv")
    assert command, "uv is not installed here"
    done = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def make_environment(folder: Path, *wheels: str) -> Command:
    """
    Install ``wheels`` into an empty environment and return what runs its commands from another folder.

    Third parties' packages come as locked. Our own come from the built files alone, with every index turned off, and
    without uv's cache, which takes a rebuilt wheel of the same version for the one before.
    """
    target = f"--python={folder / 'env' / 'bin' / 'python'}"
    uv("venv", f"--python={sys.executable}", folder / "env")
    uv("pip", "install", target, "--require-hashes", f"--requirements={ROOT / 'requirements' / 'runtime.txt'}")
    uv("pip", "install", target, "--no-cache", "--no-index", f"--find-links={FOLDER}", *wheels)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    environment = {
        "PATH": os.pathsep.join([str(folder / "env" / "bin"), os.defpath]),
        "HOME": str(folder),
        "NIM_CACHE_PATH": str(folder / "cache"),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = folder / "env" / "bin" / arguments[0]
        return subprocess.run(
            [program, *arguments[1:]],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def statuses(listed: str) -> dict[str, str]:
    """Return the status of each distribution that ``nim-llm plugins list`` printed."""
    rows = [line.split() for line in listed.splitlines()[1:] if not line.startswith(" ")]
    return {row[1]: row[3] for row in rows}


@pytest.fixture(scope="module")
def with_ngc(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Return a way to run commands where core and the NGC source are installed."""
    return make_environment(tmp_path_factory.mktemp("with_ngc"), "nim-core", "nim-source-ngc")


@pytest.fixture(scope="module")
def without_ngc(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Return a way to run commands where the NGC source was installed and is gone again."""
    folder = tmp_path_factory.mktemp("without_ngc")
    run = make_environment(folder, "nim-core", "nim-source-ngc")
    uv("pip", "uninstall", f"--python={folder / 'env' / 'bin' / 'python'}", "nim-source-ngc")
    return run


def test_version(with_ngc: Command, projects: dict[str, dict[str, Any]]) -> None:
    done = with_ngc("nim-llm", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert projects["nim-core"]["project"]["version"] in done.stdout


def test_installed_packages_are_used_and_not_this_folder(with_ngc: Command) -> None:
    done = with_ngc("python", "-c", "import nim_core, nim_source_ngc as ngc; print(nim_core.__file__, ngc.__file__)")
    paths = done.stdout.split()
    assert len(paths) == 2
    assert [path for path in paths if "/env/lib/" not in path] == []


def test_plugins_list(with_ngc: Command) -> None:
    done = with_ngc("nim-llm", "plugins", "list")
    assert done.returncode == 0, done.stderr
    assert statuses(done.stdout) == {"nim-source-ngc": "active"}


def test_both_spellings_of_the_command(with_ngc: Command) -> None:
    for command in (["download-to-cache"], ["nim-llm", "download-to-cache"]):
        done = with_ngc(*command, "--help")
        assert done.returncode == 0, done.stderr
        assert "--model-uri" in done.stdout


def test_a_removed_source_is_named_with_the_command_that_brings_it_back(without_ngc: Command) -> None:
    done = without_ngc("download-to-cache", "--model-uri", "ngc://a/b:c")
    assert done.returncode == 24, done.stderr
    assert "pip install nim-source-ngc" in done.stderr
    assert statuses(without_ngc("nim-llm", "plugins", "list").stdout) == {}


def test_extra_all_brings_every_source(tmp_path: Path) -> None:
    run = make_environment(tmp_path, "nim-core[all]")
    sources = [name for name in PROJECTS if name.startswith("nim-source-")]
    assert statuses(run("nim-llm", "plugins", "list").stdout) == dict.fromkeys(sources, "active")


def test_the_wheel_imports_with_nothing_but_its_dependencies(with_ngc: Command) -> None:
    program = (
        "import importlib, pkgutil, nim_core\n"
        "modules = [m.name for m in pkgutil.walk_packages(nim_core.__path__, 'nim_core.')]\n"
        "for name in modules:\n"
        "    if not name.startswith('nim_core.testing') and not name.endswith('__main__'):\n"
        "        importlib.import_module(name)\n"
    )
    done = with_ngc("python", "-W", "error", "-c", program)
    assert (done.returncode, done.stderr) == (0, "")
