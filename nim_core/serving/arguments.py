"""
The arguments of an engine, from everywhere they come from: pure.

Words of a command line are read by the options that a backend declares, as argparse reads them: ``--name value``,
``--name=value``, underscores for dashes, unambiguous beginnings of names, ``--no-switch``. :func:`merge` decides
between layers: a stronger one replaces a weaker one, but JSON objects are merged.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.types import Argument, ArgumentValue, Layer, Option

__all__ = ["merge", "read_object", "read_words"]

_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(r"[-+]?\d+", re.ASCII)


def read_words(
    words: Sequence[str], options: Sequence[Option], layer: Layer, origin: str, *, exact: bool = True
) -> tuple[Argument, ...]:
    """
    Read words of a command line.

    Args:
        words: As a shell split them.
        options: What the engine takes. Empty: every ``--name`` is taken, with the words that follow it.
        layer: How strong what they say is.
        origin: Where they stand, for people.
        exact: Whether ``options`` are all there are; where not, a name that is none is taken as when there are none.

    Returns:
        One argument per name: of an option that is given twice, the last one counts, but parts of a JSON object
        (``--name.key value``) add up.

    Raises:
        ConfigError: A word is no option, or a value is none of its option's.
    """
    reader = _Reader(options, layer, origin, exact=exact)
    rest = list(words)
    found: dict[str, Argument] = {}
    while rest:
        argument = reader.take(rest)
        earlier = found.pop(argument.name, None)
        if earlier is not None and isinstance(earlier.value, Mapping) and isinstance(argument.value, Mapping):
            argument = _argument(argument, _merged(argument.value, earlier.value), argument.origin)
        found[argument.name] = argument
    return tuple(found.values())


def read_object(
    values: Mapping[str, Any], options: Sequence[Option], layer: Layer, origin: str, *, exact: bool = True
) -> tuple[Argument, ...]:
    """
    Read arguments from a JSON object, such as ``{"max-model-len": 4096, "enable_lora": true}``; null is passed over.

    Args:
        values: The object.
        options: As for :func:`read_words`.
        layer: As there.
        origin: As there.
        exact: As there.

    Raises:
        ConfigError: As there.
    """
    reader = _Reader(options, layer, origin, exact=exact)
    return tuple(reader.named(name, value) for name, value in values.items() if value is not None)


def merge(arguments: Iterable[Argument]) -> dict[str, Argument]:
    """
    Return what counts of arguments of several layers, by name, in the order of first mention.

    Of one layer the later argument counts. JSON objects of several layers are merged, a stronger layer's keys first.
    """
    by_name: dict[str, list[Argument]] = {}
    for argument in arguments:
        by_name.setdefault(argument.name, []).append(argument)
    return {name: _strongest(found) for name, found in by_name.items()}


def _strongest(found: Sequence[Argument]) -> Argument:
    latest_first = found[::-1]
    first, *weaker = sorted(latest_first, key=lambda argument: argument.layer)
    for argument in weaker:
        if not isinstance(first.value, Mapping) or not isinstance(argument.value, Mapping):
            break
        value = _merged(first.value, argument.value)
        origins = first.origin.split(" + ")
        origin = first.origin if argument.origin in origins else f"{first.origin} + {argument.origin}"
        first = _argument(first, value, origin)
    return first


def _argument(like: Argument, value: ArgumentValue, origin: str) -> Argument:
    return Argument(name=like.name, value=value, layer=like.layer, origin=origin)


def _merged(stronger: Mapping[str, Any], weaker: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**weaker, **stronger}
    for key in stronger.keys() & weaker.keys():
        if isinstance(stronger[key], Mapping) and isinstance(weaker[key], Mapping):
            merged[key] = _merged(stronger[key], weaker[key])
    return merged


@frozen(kw_only=True)
class _Named:
    """
    An option as a word names it.

    Attributes:
        option: The option.
        declared: Whether it is one of those that were declared.
        keys: Which part of a JSON object is meant.
        off: Whether it is turned off.
        attached: The value in the same word. None when there is none.
    """

    option: Option
    declared: bool = True
    keys: tuple[str, ...] = ()
    off: bool = False
    attached: str | None = None


class _Reader:
    """Reads arguments of one layer."""

    def __init__(self, options: Sequence[Option], layer: Layer, origin: str, *, exact: bool) -> None:
        self._exact = exact and bool(options)
        self._layer = layer
        self._origin = origin
        self._by_word = {f"--{option.name}": option for option in options}
        self._by_word |= {alias: option for option in options for alias in option.aliases}
        switches = [option for option in options if option.kind == "switch"]
        self._negations = {word: option for option in switches for word in (f"--no-{option.name}", *option.negations)}

    def take(self, rest: list[str]) -> Argument:
        """Take one argument from the front of ``rest``."""
        word = rest.pop(0)
        if not _reads_as_option(word):
            raise self._error(f"unexpected word: {word}", hint="values follow the name of their argument")
        named = self._find(word)
        option = named.option
        values = [] if named.attached is None else [named.attached]
        if named.off or option.kind == "switch":
            if values:
                raise self._error(f"argument --{option.name} takes no value: {word}")
            return self._made(option, value=not named.off)
        limit = len(rest) if option.many and not values else 1 - len(values)
        values += self._following(rest, limit)
        if not values:
            if option.optional:
                return self._made(option, value=True)
            raise self._error(f"argument --{option.name} needs a value")
        if not named.declared:
            return self._made(option, _guessed(values))
        if option.many:
            return self._made(option, tuple(self._checked(option, value) for value in values))
        (text,) = values
        if named.keys:
            return self._made(option, _nested(named.keys, text))
        return self._made(option, self._read(option, text))

    def named(self, name: str, value: Any) -> Argument:
        """Return an argument that is named by a key and has a value of JSON."""
        named = self._find(f"--{name}")
        option = named.option
        if isinstance(value, bool):
            if option.kind not in {"switch", "json"} and not option.optional:
                raise self._error(f"argument --{option.name} needs a value, not {json.dumps(value)}")
            return self._made(option, value is not named.off)
        if isinstance(value, Mapping):
            return self._made(option, dict(value))
        if option.kind == "switch":
            raise self._error(f"argument --{option.name} is true or false, not {json.dumps(value)}")
        if isinstance(value, list):
            return self._made(option, tuple(self._checked(option, _text(item)) for item in value))
        text = _text(value)
        if not named.declared:
            return self._made(option, text)
        return self._made(option, (self._checked(option, text),) if option.many else self._read(option, text))

    # ------------------------------------------------------------------------------------------------------- names
    def _find(self, word: str) -> _Named:
        name, equals, text = word.partition("=")
        attached = text if equals else None
        found = self._by_word.get(name) or self._short_with_value(word)
        if isinstance(found, _Named):
            return found
        if found is not None:
            return _Named(option=found, attached=attached)
        base, *keys = name.split(".") if name.startswith("--") else [name]
        spelled = base[:2] + base[2:].replace("_", "-")
        if spelled in self._negations:
            return _Named(option=self._negations[spelled], off=True, attached=attached)
        option = self._by_word.get(spelled) or self._beginning(spelled)
        if option is None and not self._exact:
            return self._undeclared(name, attached)
        if option is None or (keys and option.kind != "json"):
            raise self._unknown(name)
        return _Named(option=option, keys=tuple(keys), attached=attached)

    def _undeclared(self, name: str, attached: str | None) -> _Named:
        if not name.startswith("--"):
            raise self._error(f"cannot read: {name}", hint="arguments that are not known are passed on as --name value")
        option = Option(name=name[2:].replace("_", "-"), many=True, optional=True)
        return _Named(option=option, declared=False, attached=attached)

    def _short_with_value(self, word: str) -> _Named | None:
        """Read ``-O3`` as ``-O 3``."""
        option = None if word.startswith("--") else self._by_word.get(word[:2])
        if option is None or option.kind == "switch":
            return None
        return _Named(option=option, attached=word[2:].removeprefix("="))

    def _beginning(self, spelled: str) -> Option | None:
        if not spelled.startswith("--"):
            return None
        fitting = {name: option for name, option in self._by_word.items() if name.startswith(spelled)}
        if len({option.name for option in fitting.values()}) > 1:
            raise self._error(f"ambiguous argument: {spelled} could be {', '.join(sorted(fitting))}")
        return next(iter(fitting.values()), None)

    def _unknown(self, name: str) -> ConfigError:
        spelled = name.replace("_", "-").partition(".")[0]
        near = difflib.get_close_matches(spelled, [*self._by_word, *self._negations], n=1)
        return self._error(f"unknown argument: {name}", hint=f"did you mean {near[0]}?" if near else None)

    # ------------------------------------------------------------------------------------------------------ values
    def _following(self, rest: list[str], limit: int) -> list[str]:
        taken: list[str] = []
        while rest and len(taken) < limit and not _reads_as_option(rest[0]):
            taken.append(rest.pop(0))
        return taken

    def _read(self, option: Option, text: str) -> ArgumentValue:
        if option.kind != "json":
            return self._checked(option, text)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            if text.lstrip().startswith("{"):
                raise self._error(f"argument --{option.name} is not valid JSON: {self._shown(option, text)}") from None
            return text
        return value if isinstance(value, dict) else text

    def _checked(self, option: Option, text: str) -> str:
        pattern, what = {"integer": (_INTEGER, "a whole number"), "number": (_NUMBER, "a number")}.get(
            option.kind, (None, "")
        )
        if pattern is not None and not pattern.fullmatch(text.strip()):
            raise self._error(f"argument --{option.name} is not {what}: {self._shown(option, text)}")
        if option.choices and text not in option.choices:
            near = difflib.get_close_matches(text, option.choices, n=1)
            raise self._error(
                f"argument --{option.name} has no such choice: {self._shown(option, text)}",
                hint=f"did you mean {near[0]}?" if near else f"it is one of {', '.join(option.choices)}",
            )
        return text

    def _shown(self, option: Option, text: str) -> str:
        return "***" if option.secret else text

    def _made(self, option: Option, value: ArgumentValue) -> Argument:
        return Argument(name=option.name, value=value, layer=self._layer, origin=self._origin)

    def _error(self, message: str, *, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{self._origin}: {message}", hint=hint)


def _reads_as_option(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and not _NUMBER.fullmatch(word) and " " not in word


def _guessed(values: Sequence[str]) -> ArgumentValue:
    """Return the value of an option that was not declared: one text, a JSON object, or several texts."""
    if len(values) > 1:
        return tuple(values)
    try:
        value = json.loads(values[0])
    except (ValueError, RecursionError):
        return values[0]
    return value if isinstance(value, dict) else values[0]


def _nested(keys: Sequence[str], text: str) -> dict[str, Any]:
    """Return ``{"a": {"b": value}}`` for the keys ``a`` and ``b``; what is no JSON is text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    for key in reversed(keys):
        value = {key: value}
    return {} if not isinstance(value, dict) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
