from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nim_core.cli import install_commands as module
from nim_core.cli.app import command

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

NAMES = {"create-model-store", "download-model", "download-to-cache", "huggingface-cli", "nim-serve"}


def install(cli: Cli, folder: Path) -> list[str]:
    ended = cli("install-commands", str(folder))
    assert (ended.code, ended.err) == (0, "")
    return [Path(line).name for line in ended.out.splitlines()]


def test_every_command_but_those_about_the_installation(cli: Cli, tmp_path: Path) -> None:
    names = install(cli, tmp_path / "a/bin")
    root = command()
    assert set(names) == set(root.commands) - {"doctor", "hardware", "plan", "plugins", "install-commands"} >= NAMES
    assert sorted(path.name for path in (tmp_path / "a/bin").iterdir()) == sorted(names)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_they_work_with_no_path_and_from_anywhere(name: str, cli: Cli, tmp_path: Path) -> None:
    install(cli, tmp_path / "bin")
    (tmp_path / "nim_core").mkdir()
    (tmp_path / "nim_core/__init__.py").write_text("raise SystemExit('the wrong one')")
    done = subprocess.run(
        [tmp_path / "bin" / name, "-h"], env={}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {name} [OPTIONS]")


def test_arguments_arrive_as_they_are(cli: Cli, tmp_path: Path) -> None:
    install(cli, tmp_path / "bin")
    done = subprocess.run(
        [tmp_path / "bin/download-to-cache", "--model-uri", "nope://a b/$HOME'\"*"],
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (24, "")


def test_an_interpreter_with_awkward_characters(monkeypatch: pytest.MonkeyPatch, cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / ("a folder with 'quotes' " + "x" * 200)
    place.mkdir()
    python = place / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    install(cli, tmp_path / "bin")
    done = subprocess.run([tmp_path / "bin/download-model", "-h"], env={}, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0


def test_a_second_time_changes_nothing_and_a_newer_interpreter_everything(
    monkeypatch: pytest.MonkeyPatch, cli: Cli, tmp_path: Path
) -> None:
    install(cli, tmp_path)
    before = {path: (path.stat().st_ino, path.stat().st_ctime_ns) for path in tmp_path.iterdir()}
    install(cli, tmp_path)
    assert {path: (path.stat().st_ino, path.stat().st_ctime_ns) for path in tmp_path.iterdir()} == before
    monkeypatch.setattr(sys, "executable", "/opt/other/python")
    install(cli, tmp_path)
    assert all("/opt/other/python" in path.read_text() for path in tmp_path.iterdir())
    assert all(os.access(path, os.X_OK) for path in tmp_path.iterdir())


@pytest.mark.parametrize("there", ["file", "link", "folder", "dangling"])
def test_what_is_not_ours_is_not_replaced(there: str, cli: Cli, tmp_path: Path) -> None:
    name = tmp_path / "bin/huggingface-cli"
    name.parent.mkdir()
    {
        "file": lambda: name.write_text("#!/usr/bin/python\n"),
        "link": lambda: name.symlink_to(sys.executable),
        "folder": name.mkdir,
        "dangling": lambda: name.symlink_to("/nowhere"),
    }[there]()
    ended = cli("install-commands", str(tmp_path / "bin"))
    assert (ended.code, ended.out) == (10, "")
    assert "1 of the commands' names are taken by other files" in ended.last_line
    assert "  huggingface-cli" in ended.err.splitlines()
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["huggingface-cli"]


def test_a_folder_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = cli("install-commands", str(tmp_path / "file/bin"))
    assert ended.code == 10
    assert "cannot write" in ended.last_line


def test_the_mark_is_in_every_file() -> None:
    assert module.script("x").splitlines()[:2] == ["#!/bin/sh", module._MARK]
