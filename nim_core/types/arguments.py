"""Arguments of an engine: what it takes, and the values it is to be given, each with where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

__all__ = ["Argument", "ArgumentValue", "Layer", "Option", "argument_words"]

ArgumentValue: TypeAlias = str | bool | tuple[str, ...] | Mapping[str, Any]
"""Text; whether a switch is on; several texts; a JSON object."""


class Layer(IntEnum):
    """
    Where the value of an argument came from, strongest first.

    Source: "Advanced Configuration" of NIM LLM 2.0.9 and 2.0.11.
    """

    COMMAND_LINE = 0
    PASSTHROUGH = 1
    VARIABLE = 2
    RUNTIME_CONFIG = 3
    TAG = 4
    DERIVED = 5
    DEFAULT = 6


@frozen(kw_only=True)
class Option:
    """
    An argument that an engine takes.

    Attributes:
        name: Without the leading dashes, its words joined by dashes: ``max-model-len``.
        aliases: Other spellings, with their dashes: ``-tp``, ``--tp``.
        kind: How a value is read. ``switch`` takes none and is turned off as ``--no-NAME``; ``json`` is a JSON object,
            a part of which may be given as ``--NAME.key value``.
        negations: Spellings that turn a switch off, besides ``--no-NAME``, with their dashes: ``--disable-lora``.
        many: Takes several values, up to the next option.
        optional: The value may be left out.
        choices: The only values there are. Empty: any.
        secret: Whether the value must not be shown.
    """

    name: str
    aliases: tuple[str, ...] = ()
    kind: Literal["text", "integer", "number", "switch", "json"] = "text"
    negations: tuple[str, ...] = ()
    many: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()
    secret: bool = False


@frozen(kw_only=True)
class Argument:
    """
    The value of one argument.

    Attributes:
        name: As :attr:`Option.name`.
        value: A switch that is on is True, one that is off False.
        layer: How strong it is.
        origin: Where it came from, for people: ``NIM_MAX_MODEL_LEN``, ``profile tag tp``.
    """

    name: str
    value: ArgumentValue
    layer: Layer
    origin: str = field()

    @origin.default
    def _origin(self) -> str:
        return self.layer.name.lower().replace("_", " ")


def argument_words(arguments: Iterable[Argument], *, without: Sequence[str] = ()) -> list[str]:
    """
    Return arguments as an engine's command line has them: ``--name value``, ``--switch``, ``--no-switch``.

    Args:
        arguments: In the order they are to be written.
        without: Names to leave out.
    """
    words: list[str] = []
    for argument in arguments:
        if argument.name not in without:
            words += _words(argument.name, argument.value)
    return words


def _words(name: str, value: ArgumentValue) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, str):
        return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
    if isinstance(value, Mapping):
        return [f"--{name}", json.dumps(value, separators=(",", ":"), ensure_ascii=False)]
    return [f"--{name}", *value]
