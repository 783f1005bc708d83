from __future__ import annotations

import json
import sys

import pytest
import typer

from nim_core import errors as core_errors
from nim_core.cli.errors import OTHER_EXIT_CODES, Failure, Terminated, explain, failure_text, run
from nim_core.cli.session import Session
from nim_core.errors import NimError, NoPluginForSchemeError, ProfileError
from nim_core.settings import Settings

ALL_ERRORS = [getattr(core_errors, name) for name in core_errors.__all__]


class Terminal:
    """A stderr that a person reads."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


class Raising:
    """A command that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def make_context(self, info_name: str | None, args: list[str], *, obj: object) -> typer.Context:
        return typer.Context(typer.core.TyperCommand(info_name), info_name=info_name, obj=obj)

    def invoke(self, _context: object) -> None:
        raise self.error


def end(error: BaseException, **environ: str) -> int:
    return run(Raising(error), [], "nim-llm", Session(Settings(environ)))


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_every_error_has_its_exit_code(kind: type[NimError], capsys: pytest.CaptureFixture[str]) -> None:
    assert end(kind("it broke", hint="mend it")) == kind.exit_code
    assert capsys.readouterr().err == f"error: it broke (exit {kind.exit_code}); hint: mend it\n"


def test_exit_codes_differ_and_leave_the_others_alone() -> None:
    codes = [kind.exit_code for kind in ALL_ERRORS if kind is not NimError]
    assert len(set(codes)) == len(codes)
    assert not set(codes) & set(OTHER_EXIT_CODES)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            KeyboardInterrupt(),
            130,
            "error: interrupted (exit 130); hint: what was fetched is kept, the same command goes on with it\n",
        ),
        (
            Terminated(),
            143,
            "error: terminated (exit 143); hint: what was fetched is kept, the same command goes on with it\n",
        ),
        (typer.Exit(0), 0, ""),
        (typer.Exit(3), 3, ""),
        (typer.BadParameter("Not good."), 2, "error: invalid value: Not good (exit 2)\n"),
        (NimError("no way out"), 1, "error: no way out (exit 1)\n"),
        (NimError("x", hint="two\n  lines"), 1, "error: x (exit 1); hint: two lines\n"),
        (
            ProfileError("first\nthere are:\n  a\n  b", hint="choose"),
            13,
            "there are:\n  a\n  b\nerror: first (exit 13); hint: choose\n",
        ),
        (NimError("red \x1b[31m text\r"), 1, "error: red \\x1b[31m text\\r (exit 1)\n"),
    ],
)
def test_what_is_said(error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert end(error) == code
    assert capsys.readouterr().err == text


def test_anything_else_is_our_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(KeyError("x\ny")) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: internal error: KeyError: 'x\\ny' (exit 1); hint: this is a bug in nim-core ")
    assert text.endswith("; please report it with the output under NIM_LOG_LEVEL=DEBUG\n")


def test_an_error_without_words_is_named() -> None:
    assert explain(MemoryError()).message == "internal error: MemoryError"


def test_a_broken_connection_is_not_taken_for_a_closed_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(BrokenPipeError(32, "Broken pipe")) == 1
    assert "internal error: BrokenPipeError" in capsys.readouterr().err


def test_the_traceback_is_for_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    end(ValueError("x"), NIM_LOG_LEVEL="INFO")
    assert "Traceback" not in capsys.readouterr().err
    end(ValueError("x"), NIM_LOG_LEVEL="debug")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("error: internal error: ValueError: x")


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(ProfileError("which\nthere are:\n  a", hint="choose"), NIM_JSONL_LOGGING="1") == 13
    event = json.loads(capsys.readouterr().err)
    assert event.pop("timestamp")
    assert event == {
        "level": "ERROR",
        "message": "which",
        "exit_code": 13,
        "hint": "choose",
        "details": ["there are:", "  a"],
    }


def test_as_json_for_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    end(ValueError("x"), NIM_JSONL_LOGGING="1", NIM_LOG_LEVEL="DEBUG")
    event = json.loads(capsys.readouterr().err)
    assert event["exception"].startswith("Traceback (most recent call last):")


def test_variables_that_cannot_be_read_do_not_hide_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(NimError("it broke"), NIM_JSONL_LOGGING="maybe", NIM_LOG_LEVEL="loud") == 1
    assert capsys.readouterr().err == "error: it broke (exit 1)\n"


@pytest.mark.parametrize("environ", [{}, {"NIM_JSONL_LOGGING": "1"}, {"NIM_LOG_LEVEL": "DEBUG"}])
def test_no_secret_is_said(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    end(ValueError("proxy http://u:hunter22@p refused hunter22"), https_proxy="http://u:hunter22@p", **environ)
    assert "hunter22" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"TERM": "xterm"}, "\x1b[1;31merror:\x1b[0m no plugin (exit 24)\nhint: install one"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "error: no plugin (exit 24)\nhint: install one"),
        ({"TERM": "xterm", "NO_COLOR": ""}, "\x1b[1;31merror:\x1b[0m no plugin (exit 24)\nhint: install one"),
        ({"TERM": "dumb"}, "error: no plugin (exit 24)\nhint: install one"),
        ({}, "error: no plugin (exit 24)\nhint: install one"),
    ],
)
def test_on_a_terminal(environ: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert end(NoPluginForSchemeError("no plugin", hint="install one"), **environ) == 24
    assert terminal.text == text + "\n"


def test_in_a_pipe_the_last_line_says_it_all() -> None:
    failure = Failure(exit_code=24, message="no plugin", hint="install one", details=("a", "b"))
    text = failure_text(failure, Session(Settings({"TERM": "xterm"})))
    assert text == "a\nb\nerror: no plugin (exit 24); hint: install one"
