"""
The tokens of YAML text, from libyaml's events.

The only module that needs PyYAML to read, so that it is imported when there is YAML to read and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from nim_core.manifest.faults import FaultError, shown
from nim_core.manifest.tokens import MERGE, Kind, Plain, Token

__all__ = ["yaml_tokens"]

# without libyaml the same events come from pure Python, at a tenth of the speed
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CORE: Final = "tag:yaml.org,2002:"
_STR: Final = f"{_CORE}str"
_SCALAR_TAGS: Final = frozenset({_STR, "!", "!name"})
_MAP_TAGS: Final = frozenset({None, f"{_CORE}map", "!", "!workspace"})
_LIST_TAGS: Final = frozenset({None, f"{_CORE}seq", "!"})
_TRUE: Final = frozenset({"yes", "true", "on"})

Resolve = Callable[[type[yaml.Node], str, tuple[bool, bool]], str]


def yaml_tokens(text: str) -> Iterator[Token]:
    """
    Yield the tokens of the one YAML document in ``text``; none when it is empty.

    Raises:
        FaultError: The text is not YAML, has a second document, or uses a tag that manifests do not have.
    """
    try:
        loader = _LOADER(text)
        yield from _tokens(iter(loader.get_event, None), loader.resolve)
    except (yaml.YAMLError, ValueError, OverflowError) as exc:  # the latter two from escapes, by the pure parser
        raise _fault(exc, text) from exc


def _tokens(events: Iterator[Any], resolve: Resolve) -> Iterator[Token]:
    documents = 0
    for event in events:
        line = event.start_mark.line + 1
        kind = type(event)
        if kind is ScalarEvent:
            yield Token(Kind.SCALAR, _scalar(event, resolve), line, event.anchor)
        elif kind is StreamEndEvent:
            return
        elif kind is DocumentStartEvent:
            documents += 1
            if documents > 1:
                raise FaultError("more than one YAML document in a manifest", line=line)
        elif kind in _STRUCTURE:
            yield _STRUCTURE[kind](event, line)


def _alias(event: Any, line: int) -> Token:
    return Token(Kind.ALIAS, event.anchor, line)


def _map(event: Any, line: int) -> Token:
    _check_tag(event, _MAP_TAGS)
    return Token(Kind.MAP, None, line, event.anchor)


def _list(event: Any, line: int) -> Token:
    _check_tag(event, _LIST_TAGS)
    return Token(Kind.LIST, None, line, event.anchor)


def _end(_event: Any, line: int) -> Token:
    return Token(Kind.END, None, line)


_STRUCTURE: Final[dict[type[Event], Callable[[Any, int], Token]]] = {
    AliasEvent: _alias,
    MappingStartEvent: _map,
    SequenceStartEvent: _list,
    MappingEndEvent: _end,
    SequenceEndEvent: _end,
}


def _check_tag(event: Any, known: frozenset[str | None]) -> None:
    if event.tag not in known:
        raise FaultError(f"unknown YAML tag: {shown(event.tag)}", line=event.start_mark.line + 1)


def _scalar(event: Any, resolve: Resolve) -> Any:
    value: str = event.value
    if event.tag is not None:
        _check_tag(event, _SCALAR_TAGS)
        return value
    if not event.implicit[0]:
        return value
    tag = resolve(yaml.ScalarNode, value, (True, False))
    return value if tag == _STR else _resolved(tag.removeprefix(_CORE), value)


def _resolved(tag: str, value: str) -> Any:
    if tag == "bool":
        return value.lower() in _TRUE
    if tag == "null":
        return None
    if tag == "merge":
        return MERGE
    return value if tag == "value" else Plain(value)


def _fault(exc: Exception, text: str) -> FaultError:
    mark = getattr(exc, "problem_mark", None)
    if mark is not None:
        problem = getattr(exc, "problem", None) or "syntax error"
        return FaultError(f"not valid YAML: {problem}", line=mark.line + 1)
    reason = getattr(exc, "reason", None) or "syntax error"
    position = getattr(exc, "position", 0)
    return FaultError(f"not valid YAML: {reason}", line=text.count("\n", 0, position) + 1)
