"""
The tokens that YAML and JSON text both become, each with its line, and those of JSON.

Nothing here recurses and nothing is held: how deep and how large the text may be is for the reader of the tokens to
say, at the first token too many.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from attrs import frozen

__all__ = ["MERGE", "Kind", "Plain", "Token", "json_tokens"]


class Kind(enum.Enum):
    """What a token begins or is. A container's keys and values follow it, up to its END."""

    SCALAR = enum.auto()
    MAP = enum.auto()
    LIST = enum.auto()
    END = enum.auto()
    ALIAS = enum.auto()


@frozen
class Plain:
    """A number or date, by its text: ``1.10`` must not become ``1.1``, nor ``26:10`` a number of seconds."""

    text: str


class _Merge:
    """The key ``<<``, unquoted."""


MERGE: Final = _Merge()


class Token(NamedTuple):
    """
    One step through a text.

    Attributes:
        kind: What it is.
        value: Of SCALAR: text, :class:`Plain`, a boolean, None or :data:`MERGE`. Of ALIAS: the anchor it repeats.
        line: Where it starts, from 1.
        anchor: The name it can be repeated by. None when it has none.
    """

    kind: Kind
    value: Any
    line: int
    anchor: str | None = None


_JSON_TOKEN = re.compile(r'[{}\[\]]|"[^"\\]*(?:\\.[^"\\]*)*"|[^\s{}\[\],:"]+')
_JSON_KINDS: Final = {"{": Kind.MAP, "[": Kind.LIST, "}": Kind.END, "]": Kind.END}
_JSON_WORDS: Final = {"true": True, "false": False, "null": None}


def json_tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of ``text``, which :mod:`json` can read, or could up to the first key given twice."""
    line, seen = 1, 0
    for match in _JSON_TOKEN.finditer(text):
        line += text.count("\n", seen, match.start())
        seen = match.start()
        word = match[0]
        kind = _JSON_KINDS.get(word, Kind.SCALAR)
        yield Token(kind, _json_scalar(word) if kind is Kind.SCALAR else None, line)


def _json_scalar(word: str) -> Any:
    if word.startswith('"'):
        return json.loads(word)
    return _JSON_WORDS[word] if word in _JSON_WORDS else Plain(word)
