"""``nim-llm plugins new``: the real command in a process of its own; ``tests/packaging`` uses what it writes."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = "from nim_core.cli.app import main; main()"
WITHOUT_COPIER = f"import sys; sys.modules['copier'] = None; {MAIN}"


def command(*words: str | Path, code: str = MAIN) -> list[str]:
    return [sys.executable, "-c", code, "plugins", "new", *map(str, words)]


def new(*words: str | Path, code: str = MAIN, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words, code=code), capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL, check=False
    )


@pytest.mark.parametrize("kind", ["source", "sink", "backend"])
def test_what_was_written_is_told(tmp_path, kind):
    done = new("acme", "--kind", kind, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    folder = tmp_path / f"nim-{kind}-acme"
    assert told["folder"] == folder.name
    assert told["files"] == sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    assert {f"nim_{kind}_acme/plugin.py", f"nim_{kind}_acme/{kind}.py", "LICENSE"} <= set(told["files"])
    assert told["next"][0] == f"cd {folder.name}"


def test_people_are_told_three_steps(tmp_path):
    done = new("acme", cwd=tmp_path)
    *files, _, title, first, second, third = done.stdout.splitlines()
    assert "nim-source-acme/nim_source_acme/source.py" in files
    assert (title, first, second.split()[0], third.strip()) == ("next:", "  cd nim-source-acme", "pip", "pytest")


def test_options_are_answers(tmp_path):
    words = ("--summary", "models of the archive", "--author", "A & B", "--license", "MIT", "--ci", "gitlab")
    assert new("ar-chive", "x", *words, "--distribution", "archive-nim", "--defaults", cwd=tmp_path).returncode == 0
    folder = tmp_path / "x"
    project = (folder / "pyproject.toml").read_text(encoding="utf-8")
    assert 'name = "archive-nim"' in project
    assert 'ar-chive = "archive_nim.plugin"' in project
    assert 'authors = [{ name = "A & B" }]' in project
    assert "Copyright (c) A & B" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert (folder / ".gitlab-ci.yml").is_file()
    assert "class ArChiveSource:" in (folder / "archive_nim" / "source.py").read_text(encoding="utf-8")
    assert '"AR_CHIVE_URL"' in (folder / "archive_nim" / "credentials.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["ngc"], "nim-core has a plugin or a scheme called ngc"),
        (["https"], "nim-core has a plugin or a scheme called https"),
        (["Acme"], "up to 16 small letters, digits and single dashes"),
        (["../acme"], "up to 16 small letters, digits and single dashes"),
        (["a_b"], "up to 16 small letters, digits and single dashes"),
        (["acme\n"], "up to 16 small letters, digits and single dashes"),
        (["seventeenletters1"], "up to 16 small letters, digits and single dashes"),
        (["acme", "--distribution", "Acme Models"], "small letters, digits and single dashes"),
        (["acme", "--summary", 'a "good" one'], "without quotes and backslashes"),
        (["acme", "--summary", "two\nlines"], "without quotes and backslashes"),
        (["acme", "--author", "back\\slash"], "without quotes and backslashes"),
        (["acme", "--template", "./nowhere"], "Local template must be a directory"),
    ],
)
def test_what_cannot_be_a_plugin_is_refused(tmp_path, words, why):
    done = new(*words, cwd=tmp_path)
    assert done.returncode == 10
    assert done.stderr.startswith("error: cannot write the project: ")
    assert why in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_shipped_name_is_refused():
    root = Path(__file__).parents[2]
    questions = (root / "copier.yml").read_text(encoding="utf-8")
    from nim_core.known_schemes import KNOWN_SCHEMES

    names = {path.parent.name for path in root.glob("plugins/*/pyproject.toml")} | set(KNOWN_SCHEMES)
    assert [name for name in sorted(names) if f'"{name}"' not in questions] == []


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    done = new("acme", tmp_path)
    assert done.returncode == 10
    assert "there is something already" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_without_copier_the_way_to_it_is_told(tmp_path):
    done = new("acme", cwd=tmp_path, code=WITHOUT_COPIER)
    assert done.returncode == 10
    assert done.stderr.rstrip().endswith('hint: pip install "nim-core[template]"')


def test_without_a_name_it_says_so():
    done = new("--kind", "sink")
    assert done.returncode == 2
    assert "NAME" in done.stderr


def test_at_a_terminal_what_is_not_given_is_asked(tmp_path):
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        command("acme", "--summary", "models of mine", "--license", "MIT"),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        cwd=tmp_path,
        env={**os.environ, "TERM": "dumb"},
    ) as process:
        os.close(terminal)
        seen = answer(controller, process, {b"Who publishes it": b"Ada\r", b"Where its tests run": b"\r"})
        told = process.stdout.read()
        os.close(controller)
    assert process.returncode == 0, seen
    assert b"in a few words" not in seen
    assert b"Its licence" not in seen
    assert b"nim-source-acme/pyproject.toml" in told
    project = (tmp_path / "nim-source-acme" / "pyproject.toml").read_text(encoding="utf-8")
    assert 'authors = [{ name = "Ada" }]' in project


def answer(controller: int, process: subprocess.Popen[bytes], answers: dict[bytes, bytes]) -> bytes:
    """Answer questions at a terminal as they come; return all that was shown."""
    seen = b""
    while process.poll() is None:
        if not select.select([controller], [], [], 0.2)[0]:
            continue
        try:
            seen += os.read(controller, 4096)
        except OSError:  # the other end is closed
            break
        for question in [question for question in answers if question in seen]:
            os.write(controller, answers.pop(question))
    process.wait(60)
    assert not answers, f"was not asked: {answers}; shown was {seen!r}"
    return seen
