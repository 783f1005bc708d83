from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

BY_NAME = ["create-model-store", "download-model", "download-to-cache", "nim-serve"]
GROUPS = [(), ("huggingface-cli",), ("plugins",)]
COMMANDS = [
    *GROUPS,
    *((name,) for name in BY_NAME),
    ("huggingface-cli", "download"),
    ("install-commands",),
    ("plugins", "list"),
]


@pytest.mark.parametrize("path", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help(path: tuple[str, ...], flag: str, cli: Cli) -> None:
    ended = cli(*path, flag)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: {' '.join(('nim-llm', *path))} [OPTIONS]")
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.parametrize("name", BY_NAME)
def test_help_by_the_bare_name_is_the_same(name: str, cli: Cli) -> None:
    by_name, beneath = cli("-h", name=name).out.split("Options:"), cli(name, "-h").out.split("Options:")
    assert by_name[0].split() == beneath[0].replace("nim-llm ", "", 1).split()
    assert by_name[1:] == beneath[1:]


@pytest.mark.parametrize("path", GROUPS)
def test_no_command_shows_help(path: tuple[str, ...], cli: Cli) -> None:
    ended = cli(*path)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == cli(*path, "--help").out


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"nim-llm {metadata.version('nim-core')}\n"


@pytest.mark.parametrize(
    ("arguments", "diagnosis"),
    [
        (("download-cache",), "no such command 'download-cache'. Did you mean 'download-to-cache'"),
        (("xyz",), "no such command 'xyz'"),
        (("plugins", "lst"), "no such command 'lst'. Did you mean 'list'?"),
        (("download-to-cache", "--jsn"), "no such option: --jsn"),
        (("download-to-cache", "x"), "got unexpected extra argument"),
        (("download-to-cache", "--all=1"), "option '--all' does not take a value"),
        (
            ("download-to-cache", "--m", "x"),
            "ambiguous option: --m could match --model-uri, --manifest-file, --model-cache-path",
        ),
        (("download-to-cache", "--model-uri"), "option --model-uri needs a value"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], diagnosis: str, cli: Cli) -> None:
    ended = cli(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert re.fullmatch(re.escape(f"error: {diagnosis}") + r".* \(exit 2\)(; hint: see nim-llm.* --help)?\n", ended.err)
