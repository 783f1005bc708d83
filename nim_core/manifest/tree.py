"""
Text to plain values: dicts with text keys, lists, text, :class:`~nim_core.manifest.tokens.Plain`, booleans and None.

A manifest may come from a stranger, so depth and size are bounded here, aliases counted by what they stand for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from attrs import define, field, frozen

from nim_core.manifest.faults import FaultError, Place, Step, is_profile_id, shown
from nim_core.manifest.tokens import MERGE, Kind, Plain, Token, json_tokens

__all__ = ["MAX_DEPTH", "MAX_VALUES", "Tree", "read_tree"]

MAX_DEPTH: Final = 32
"""Containers within containers; a manifest has six."""

MAX_VALUES: Final = 2_000_000
"""Keys and values, aliases counted by what they stand for; the largest manifest seen has about 100,000."""

_QUOTE_HINT: Final = "put it in quotes"


@frozen
class Tree:
    """
    The value a text stands for.

    Attributes:
        value: The value.
        tokens: Goes through the text again, to find a line in it.
    """

    value: Any
    tokens: Callable[[], Iterator[Token]]

    def line_of(self, path: tuple[Step, ...]) -> int:
        """Return the line of the value at ``path``, or of the innermost value around it that is written out."""
        line = 1
        for where, at in _walk(self.tokens()):
            if where == path[: len(where)]:
                line = at
            if where == path:
                break
        return line


def read_tree(text: str, *, strict_json: bool) -> Tree:
    """
    Read YAML, or JSON when the text looks like it, which is much faster.

    Args:
        text: The whole text.
        strict_json: Whether what looks like JSON may not be YAML in flow style instead.

    Raises:
        FaultError: The text is neither, has a key twice or one that is not text, is empty, too deep or too large.
    """
    if re.match(r"\s*\{", text):
        try:
            return Tree(_read_json(text), lambda: json_tokens(text))
        except json.JSONDecodeError as exc:
            if strict_json:
                raise FaultError(f"not valid JSON: {exc.msg}", line=exc.lineno) from exc
    # imported here because PyYAML takes longer than loading a parsed form does
    from nim_core.manifest.yaml_tokens import yaml_tokens

    return Tree(_build(yaml_tokens(text)), lambda: yaml_tokens(text))


class _DuplicateError(Exception):
    """An object has a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _DuplicateError
    return value


def _read_json(text: str) -> Any:
    # no more values than punctuation before them: keeps json from filling memory with what is refused anyway
    if sum(map(text.count, "{[,:")) > MAX_VALUES:
        raise FaultError(f"more than {MAX_VALUES} values in a manifest")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_int=Plain, parse_float=Plain, parse_constant=Plain)
    except (_DuplicateError, RecursionError):
        return _build(json_tokens(text))
    return _build(json_tokens(text)) if _is_deep(value) else value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for item in level for child in _children(item) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(item: Any) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


@define
class _Open:
    """A container that is being filled."""

    value: dict[str, Any] | list[Any]
    before: int
    anchor: str | None = None
    has_key: bool = False
    key: Any = None
    merged: list[dict[str, Any]] = field(factory=list)


class _Builder:
    """Puts tokens together, without recursion; ``value`` is the result once there are no more."""

    def __init__(self) -> None:
        self.value: Any = None
        self.is_empty = True
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def feed(self, token: Token) -> None:
        kind = token.kind
        if kind is Kind.SCALAR:
            self._counted(1, token)
            if token.anchor:
                self._anchors[token.anchor] = (token.value, 1)
            self._put(token.value, token)
        elif kind is Kind.END:
            self._close(token)
        elif kind is Kind.ALIAS:
            self._repeat(token)
        else:
            self._begin({} if kind is Kind.MAP else [], token)

    def profile_id(self) -> str | None:
        """Return the id of the profile that is being read, for messages. None when it has not been seen."""
        for container in self._open[:3]:
            entries = container.value if isinstance(container.value, dict) else {}
            for text in (container.key, entries.get("id")):
                if is_profile_id(text):
                    return str(text)
        return None

    def _counted(self, values: int, token: Token) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            raise FaultError(f"more than {MAX_VALUES} values in a manifest", line=token.line)

    def _begin(self, value: dict[str, Any] | list[Any], token: Token) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise FaultError(f"nested deeper than {MAX_DEPTH} levels", line=token.line)
        if self._awaits_key():
            raise _key_fault(value, token)
        if token.anchor:
            # within itself an anchor must not mean an earlier one of the same name
            self._anchors.pop(token.anchor, None)
        self._open.append(_Open(value, self._count, token.anchor))
        self._counted(1, token)

    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and not self._open[-1].has_key

    def _repeat(self, token: Token) -> None:
        if token.value not in self._anchors:
            raise FaultError(f"alias to nothing before it: *{shown(token.value)[1:-1]}", line=token.line)
        value, size = self._anchors[token.value]
        self._counted(size, token)
        self._put(value, token)

    def _close(self, token: Token) -> None:
        done = self._open.pop()
        if isinstance(done.value, dict):
            for merged in done.merged:
                for key, value in merged.items():
                    done.value.setdefault(key, value)
        if done.anchor:
            self._anchors[done.anchor] = (done.value, self._count - done.before)
        self._put(done.value, token)

    def _put(self, value: Any, token: Token) -> None:
        if not self._open:
            self.value, self.is_empty = value, False
            return
        container = self._open[-1]
        if isinstance(container.value, list):
            container.value.append(_unmerged(value))
        elif container.has_key:
            self._put_entry(container, container.value, value, token)
        else:
            _take_key(container, container.value, value, token)

    def _put_entry(self, container: _Open, entries: dict[str, Any], value: Any, token: Token) -> None:
        if container.key is MERGE:
            container.merged.extend(_merge_sources(value, token))
        else:
            entries[container.key] = _unmerged(value)
        container.has_key = False


def _take_key(container: _Open, entries: dict[str, Any], key: Any, token: Token) -> None:
    if key is not MERGE and not isinstance(key, str):
        raise _key_fault(key, token)
    if key in entries:
        raise FaultError(f"key given twice: {shown(key)}", line=token.line)
    container.key, container.has_key = key, True


def _key_fault(key: Any, token: Token) -> FaultError:
    if isinstance(key, dict | list):
        return FaultError("a map or list is used as a key", line=token.line)
    text = key.text if isinstance(key, Plain) else {True: "true", False: "false", None: "null"}[key]
    return FaultError(f"key is not text: {shown(text)[1:-1]}", line=token.line, hint=_QUOTE_HINT)


def _merge_sources(value: Any, token: Token) -> list[dict[str, Any]]:
    sources = value if isinstance(value, list) else [value]
    if all(isinstance(source, dict) for source in sources):
        return sources
    raise FaultError("<< needs a map or a list of maps", line=token.line)


def _unmerged(value: Any) -> Any:
    return "<<" if value is MERGE else value


def _build(tokens: Iterator[Token]) -> Any:
    builder = _Builder()
    try:
        for token in tokens:
            builder.feed(token)
    except FaultError as exc:
        exc.place = Place((), builder.profile_id())
        raise
    if builder.is_empty:
        raise FaultError("manifest is empty")
    return _unmerged(builder.value)


@define
class _Level:
    """A container that is being walked through; ``line`` is that of the current key, or item of a list."""

    is_map: bool
    step: Step = -1
    line: int = 1
    has_key: bool = False

    def enter(self, token: Token) -> None:
        if not self.is_map:
            self.step, self.line = int(self.step) + 1, token.line
        self.has_key = False


def _walk(tokens: Iterable[Token]) -> Iterator[tuple[tuple[Step, ...], int]]:
    """Yield the path and line of every value, outer ones first."""
    levels: list[_Level] = []
    for token in tokens:
        if token.kind is Kind.END:
            levels.pop()
            continue
        if levels and levels[-1].is_map and not levels[-1].has_key:
            levels[-1].step, levels[-1].line, levels[-1].has_key = token.value, token.line, True
            continue
        if levels:
            levels[-1].enter(token)
        yield tuple(level.step for level in levels), levels[-1].line if levels else token.line
        if token.kind in {Kind.MAP, Kind.LIST}:
            levels.append(_Level(token.kind is Kind.MAP))
