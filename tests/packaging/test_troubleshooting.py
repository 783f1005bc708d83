"""The messages that the page about troubleshooting explains are messages that the program has."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from nim_core import errors

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"(?ms)^### `(.*?)`$\n(.*?)(?=^##|\Z)", TEXT))
HOLE = "…"


def literal(node: ast.AST) -> str | None:
    """Return the text of a string in source code, with ``…`` for what is put in. None when it is none."""
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"\{\w*\}", HOLE, text)
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in parts)
        case _:
            return None


@cache
def sources() -> list[str]:
    """Return the text of every module of the core and of the plugins."""
    files = chain((ROOT / "nim_core").rglob("*.py"), ROOT.glob("plugins/*/nim_*/**/*.py"))
    return [path.read_text(encoding="utf-8") for path in files if "testing" not in path.parts]


@cache
def messages() -> frozenset[str]:
    """Return every string of the core and of the plugins."""
    return frozenset(text for source in sources() for node in ast.walk(ast.parse(source)) if (text := literal(node)))


@cache
def codes() -> dict[str, set[int]]:
    """Return the exit codes of the errors that a string is given to, where the source shows it."""
    found: dict[str, set[int]] = {}
    for source in sources():
        for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
            names = {it.id for it in [call.func, *call.args] if isinstance(it, ast.Name)} & set(errors.__all__)
            for text in filter(None, map(literal, call.args)):
                found.setdefault(text, set()).update(getattr(errors, name).exit_code for name in names)
    return found


def is_printed(message: str) -> bool:
    """Whether one string of the program is ``message``, where ``…`` stands for anything."""
    return len(message.replace(HOLE, "")) >= 9 and any(re.fullmatch(pattern_of(message), text) for text in messages())


def pattern_of(message: str) -> str:
    """Return what finds a message among the strings of the program."""
    return ".*".join(map(re.escape, message.split(HOLE)))


@pytest.mark.parametrize("message", ENTRIES)
def test_messages_are_in_the_program(message: str) -> None:
    assert is_printed(message)


@pytest.mark.parametrize(
    "message", ["no such thing is ever said: …", "…", "… …: …", "no version of …", "half a key: … is set"]
)
def test_other_messages_are_not_found(message: str) -> None:
    assert not is_printed(message)


def test_every_entry_is_found_and_has_a_meaning() -> None:
    assert len(ENTRIES) == len(re.findall("(?m)^### ", TEXT)) >= 40
    assert [message for message, meaning in ENTRIES.items() if len(meaning.split()) < 5] == []


def test_exit_codes_are_those_of_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    known = set(re.findall(r"(?m)^\| (\d+) \|", page))
    without = [message for message, meaning in ENTRIES.items() if not re.search(r"\(exit (\d+)\)", meaning)]
    assert without == []
    assert set(re.findall(r"\(exit (\d+)\)", TEXT)) <= known


def test_exit_codes_are_those_of_the_errors() -> None:
    wrong, compared = [], 0
    for message, meaning in ENTRIES.items():
        told = set(map(int, re.findall(r"\(exit (\d+)\)", meaning)))
        raised = {code for text, found in codes().items() if re.fullmatch(pattern_of(message), text) for code in found}
        compared += bool(raised)
        if raised and not told <= raised:
            wrong.append((message, told, raised))
    assert wrong == []
    assert compared >= 40


def test_variables_and_options_exist() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:NIM|NGC|HF|HTTPS|SSL)_[A-Z_]+)", TEXT))
    assert named
    assert [name for name in named if f"`{name}`" not in page] == []
    commands = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    ours = {it for line in re.findall(r"`([^`\n]*--[^`\n]*)`", TEXT) for it in re.findall(r"(?<!\S)--[a-z-]+", line)}
    foreign = {"--from-file", "--from-literal"}
    assert [option for option in ours - foreign if option not in commands] == []
