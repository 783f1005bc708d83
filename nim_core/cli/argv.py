"""
The habits of argparse that typer lacks, as a pure rewriting of the arguments.

The documented command line has abbreviated long options (``--profile`` for ``--profiles``) and options with several
values (``--profiles a b``). :func:`normalise` spells both out, so that what is left is what typer reads: every long
option by its full name and one value per option. What it does not know it leaves for typer to complain about.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from attrs import frozen
from typer.core import TyperCommand, TyperGroup

__all__ = ["ArgparseCommand", "Declared", "PlainGroup", "UnreadableArgumentError", "normalise"]


@frozen(kw_only=True)
class Declared:
    """
    An option of a command.

    Attributes:
        names: As the user writes them, with their dashes.
        values: How many values one occurrence takes. ``many`` includes none.
    """

    names: tuple[str, ...]
    values: Literal["none", "one", "many"]


class UnreadableArgumentError(ValueError):
    """The arguments do not say what is meant; the message says why."""


_END: Final = "--"
_NUMBER = re.compile(r"-\d+|-\d*\.\d+")


class _Names:
    """Tells options from values as argparse does, and finds the option that a token means."""

    def __init__(self, options: Iterable[Declared]) -> None:
        self._by_name = {name: option for option in options for name in option.names}

    def find(self, name: str) -> tuple[str, Declared] | None:
        """Return full name and option, None when there is none. Raises UnreadableArgumentError when several fit."""
        if name in self._by_name:
            return name, self._by_name[name]
        fitting = [full for full in self._by_name if name.startswith("--") and full.startswith(name)]
        if len(fitting) > 1:
            raise UnreadableArgumentError(f"ambiguous option: {name} could match {', '.join(fitting)}")
        return (fitting[0], self._by_name[fitting[0]]) if fitting else None

    def split(self, token: str) -> tuple[str, Declared, str | None] | None:
        """Return the full name, the option and the value written in the same token. None for no option of ours."""
        if token in self._by_name:
            return token, self._by_name[token], None
        if not token.startswith("--"):
            option = self._by_name.get(token[:2])
            return (
                None if option is None or option.values == "none" else (token[:2], option, token[2:].removeprefix("="))
            )
        name, equals, value = token.partition("=")
        found = self.find(name)
        return None if found is None else (*found, value if equals else None)

    def reads_as_option(self, token: str) -> bool:
        """Say whether ``token`` is an option, known or not; a negative number and a text with blanks are values."""
        if len(token) < 2 or not token.startswith("-"):
            return False
        if token == _END or self.split(token) is not None:
            return True
        return " " not in token and not _NUMBER.fullmatch(token)


def normalise(arguments: Sequence[str], options: Sequence[Declared]) -> list[str]:
    """
    Spell out abbreviated options and options with several values.

    Args:
        arguments: What stands after the command's name.
        options: The options of the command.

    Returns:
        Arguments of the same meaning in which every option stands by its full name, followed by one value if it takes
        any; an option given without any of its ``many`` values is left out. ``--`` ends the options.

    Raises:
        UnreadableArgumentError: An abbreviation fits several options, or an option lacks its value.
    """
    names, done, rest = _Names(options), list[str](), list(arguments)
    while rest:
        token = rest.pop(0)
        if token == _END:
            return [*done, token, *rest]
        split = names.split(token) if names.reads_as_option(token) else None
        done += [token] if split is None else _spell_out(*split, names, rest)
    return done


def _spell_out(name: str, option: Declared, attached: str | None, names: _Names, rest: list[str]) -> list[str]:
    """Return one option in full; takes its values from the front of ``rest``."""
    if option.values == "none":
        return [name] if attached is None else [f"{name}={attached}"]
    limit = 1 if option.values == "one" else len(rest)
    values = [attached] if attached is not None else _take_values(rest, limit, names)
    if option.values == "one" and not values:
        raise UnreadableArgumentError(f"option {name} needs a value")
    return [part for value in values for part in (name, value)]


def _take_values(rest: list[str], limit: int, names: _Names) -> list[str]:
    following = itertools.takewhile(lambda token: not names.reads_as_option(token), rest[:limit])
    taken = list(following)
    del rest[: len(taken)]
    return taken


def _declared(parameter: Any) -> Declared:
    values: Literal["none", "one", "many"] = "many" if parameter.multiple else "one"
    if parameter.is_flag or parameter.count:
        values = "none"
    return Declared(names=(*parameter.opts, *parameter.secondary_opts), values=values)


_PLAIN_TYPES: Final[Mapping[Any, Callable[[Any], Any]]] = {bool: bool, str: str, Path: Path, list[str]: list}


@frozen
class _PlainValue:
    """Reads a value as typer's own reader of text, paths and lists of text does."""

    convert: Callable[[Any], Any]

    def coerce(self, value: Any, *_context: Any, **_more: Any) -> Any:
        return None if value is None else self.convert(value)


def _read_plainly(parameter: Any) -> None:
    """Spare typer, where it would, building a pydantic model to read text with: loading pydantic takes 0.1 s."""
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if annotation in _PLAIN_TYPES and hasattr(parameter, "get_runtime_param"):
        parameter.get_runtime_param = lambda: _PlainValue(_PLAIN_TYPES[annotation])


class ArgparseCommand(TyperCommand):
    """A command whose arguments may be written as argparse allows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments as typer does, spelled out first."""
        for param in self.get_params(ctx):
            _read_plainly(param)
        options = [_declared(param) for param in self.get_params(ctx) if param.param_type_name == "option"]
        try:
            spelled = normalise(args, options)
        except UnreadableArgumentError as error:
            ctx.fail(str(error))
        return super().parse_args(ctx, spelled)


class PlainGroup(TyperGroup):
    """A group of commands that starts as fast as they do."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments as typer does."""
        for param in self.get_params(ctx):
            _read_plainly(param)
        return super().parse_args(ctx, args)
