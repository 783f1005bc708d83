from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from nim_core.cli.app import command
from nim_core.cli.argv import Declared, UnreadableArgumentError, normalise

DOCUMENTED = ("--all", "--profiles", "--lora", "--model-uri", "--manifest-file", "--model-cache-path", "--use-cache")
MANY = ("profiles", "include", "exclude")
OURS = (
    *("--include", "--exclude"),
    *("--verify-checksums", "--no-verify-checksums", "--verify", "--force", "--json"),
    *("--max-connections", "--limit-rate", "--dry-run"),
)
USAGE_ERROR = typer.BadParameter.__mro__[1]
OPTIONS = (
    Declared(names=("--all",), values="none"),
    Declared(names=("-p", "--profiles"), values="many"),
    Declared(names=("--model-uri",), values="one"),
    Declared(names=("--manifest-file",), values="one"),
    Declared(names=("--model",), values="one"),
)


class UnreadableError(Exception):
    """The oracle refuses the arguments."""


class Oracle(argparse.ArgumentParser):
    """A documented usage as argparse reads it."""

    def __init__(self) -> None:
        super().__init__(add_help=False)

    def error(self, message: str) -> NoReturn:
        raise UnreadableError(message)


class DownloadToCache(Oracle):
    """Repeated options of several values add up, the one wish of our own."""

    def __init__(self) -> None:
        super().__init__()
        self.add_argument("--all", action="store_true", dest="every")
        self.add_argument("-p", "--profiles", nargs="*", action="extend")
        self.add_argument("--lora", action="store_true")
        self.add_argument("--model-uri")
        self.add_argument("--include", nargs="*", action="extend")
        self.add_argument("--exclude", nargs="*", action="extend")
        self.add_argument("--manifest-file")
        self.add_argument("--model-cache-path")
        self.add_argument("--use-cache", action="store_true")
        self.add_argument("--verify-checksums", action=argparse.BooleanOptionalAction, default=True)
        self.add_argument("--verify", action="store_true", dest="recheck")
        self.add_argument("--force", action="store_true")
        self.add_argument("--max-connections", default="32")
        self.add_argument("--limit-rate")
        self.add_argument("--dry-run", action="store_true")
        self.add_argument("--json", action="store_true", dest="as_json")


class CreateModelStore(Oracle):
    def __init__(self) -> None:
        super().__init__()
        self.add_argument("-p", "--profile")
        self.add_argument("--model-repo")
        self.add_argument("-m", "--model-store")
        self.add_argument("--model-cache-path")
        self.add_argument("--manifest-file")
        self.add_argument("--use-cache", action="store_true")
        self.add_argument("--dry-run", action="store_true")
        self.add_argument("--copy", action="store_true")
        self.add_argument("--json", action="store_true", dest="as_json")


class ListModelProfiles(Oracle):
    """The same of ``list-model-profiles``; ``--manifest-file`` and ``-m`` are documented for its siblings."""

    def __init__(self) -> None:
        super().__init__()
        self.add_argument("-m", "--manifest-file")
        self.add_argument("--model-cache-path")
        self.add_argument("--lora", action="store_true")
        self.add_argument("--explain", action="store_true")
        self.add_argument("--json", action="store_true", dest="as_json")


class DownloadModel(Oracle):
    def __init__(self) -> None:
        super().__init__()
        self.add_argument("-p", "--profile")
        self.add_argument("--model-uri")
        self.add_argument("--workspace-path")
        self.add_argument("--manifest-file")
        self.add_argument("--model-cache-path")
        self.add_argument("--use-cache", action="store_true")
        self.add_argument("--dry-run", action="store_true")
        self.add_argument("--json", action="store_true", dest="as_json")


ORACLES = {
    "create-model-store": CreateModelStore,
    "download-model": DownloadModel,
    "download-to-cache": DownloadToCache,
    "list-model-profiles": ListModelProfiles,
}


def read_by_argparse(arguments: list[str], name: str = "download-to-cache") -> dict[str, object] | None:
    try:
        values = vars(ORACLES[name]().parse_args(arguments))
    except UnreadableError:
        return None
    return {name: value or None if name in MANY else value for name, value in values.items()}


def read_by_command(arguments: list[str], chosen: str = "download-to-cache") -> dict[str, object] | None:
    try:
        context = command(chosen).make_context(chosen, arguments, obj=None)
    except USAGE_ERROR:
        return None
    as_text = {name: str(value) for name, value in context.params.items() if isinstance(value, Path)}
    many = {name: list(context.params[name]) or None for name in MANY if context.params.get(name)}
    return context.params | as_text | many


STORES = ("--profile", "--model-repo", "--model-store", "--workspace-path", "--copy", "-m")
options = st.sampled_from([*DOCUMENTED, *OURS, *STORES])
abbreviations = options.filter(lambda name: len(name) > 2).flatmap(
    lambda name: st.integers(3, len(name)).map(lambda length: name[:length])
)
values = st.sampled_from(
    ["a", "b/c", "x=y", "-1", "-.5", "-", "with blank", "-with blank", "--with blank", "é", "a" * 64]
)
unknown = st.sampled_from(["--nope", "-x", "-xp", "--all=1", "--profile-s", "-1x"])
attached = st.builds(lambda name, value: f"{name}={value}", abbreviations, values)
short = st.one_of(st.just("-p"), values.map(lambda value: f"-p{value}"), values.map(lambda value: f"-p={value}"))
tokens = st.one_of(options, abbreviations, values, values, attached, short, unknown)


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=300, deadline=None)
@given(st.lists(tokens, max_size=7))
def test_reads_as_argparse_does(name: str, arguments: list[str]) -> None:
    assert read_by_command(arguments, name) == read_by_argparse(arguments, name)


def test_plan_has_the_options_that_choose() -> None:
    def names(name: str) -> set[str]:
        return {option for param in command(name).params for option in (*param.opts, *param.secondary_opts)}

    command_line = names("download-to-cache") - {"--max-connections", "--limit-rate", "--dry-run"}
    assert names("plan") == command_line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--profile", "x"], ["--profiles", "x"]),
        (["--profiles", "x", "y"], ["--profiles", "x", "--profiles", "y"]),
        (["-p", "x", "y", "--all"], ["-p", "x", "-p", "y", "--all"]),
        (["-px"], ["-p", "x"]),
        (["--profiles"], []),
        (["--profiles", "--all"], ["--all"]),
        (["--profiles="], ["--profiles", ""]),
        (["--manifest=m.yaml"], ["--manifest-file", "m.yaml"]),
        (["--model", "x"], ["--model", "x"]),
        (["--model-uri", "-"], ["--model-uri", "-"]),
        (["--model-uri", "store://a/b?file=c=d"], ["--model-uri", "store://a/b?file=c=d"]),
        (["--", "--profiles", "x"], ["--", "--profiles", "x"]),
        (["--profiles", "x", "--", "y"], ["--profiles", "x", "--", "y"]),
        (["--unknown", "-z", "word"], ["--unknown", "-z", "word"]),
    ],
)
def test_spells_out(arguments: list[str], expected: list[str]) -> None:
    assert normalise(arguments, OPTIONS) == expected


def test_an_abbreviation_of_several_options_names_them() -> None:
    with pytest.raises(UnreadableArgumentError) as caught:
        normalise(["--m", "x"], OPTIONS)
    assert str(caught.value) == "ambiguous option: --m could match --model-uri, --manifest-file, --model"


@pytest.mark.parametrize("arguments", [["--model-uri"], ["--model-uri", "--all"], ["--model-uri", "--", "x"]])
def test_an_option_without_its_value(arguments: list[str]) -> None:
    with pytest.raises(UnreadableArgumentError, match="option --model-uri needs a value"):
        normalise(arguments, OPTIONS)


@pytest.mark.parametrize(
    ("abbreviation", "name"),
    [("--profile", "profiles"), ("--manifest", "manifest_file"), ("--model-cache", "model_cache_path")],
)
def test_abbreviations_in_use_stay_unambiguous(abbreviation: str, name: str) -> None:
    params = read_by_command([abbreviation, "x"])
    assert params is not None
    assert params[name] in ("x", ["x"])
