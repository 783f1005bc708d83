"""
Names of models in requests and answers, for engines that only know one of their own; pure.

Requests are read and written anew. In answers the value of each key ``model`` is replaced as text: an unescaped quote
before and after the word cannot stand inside a JSON string, so it is the key, and an answer need not be parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from attrs import frozen

__all__ = ["Asked", "EventLines", "asked_for", "listed", "rename", "with_model"]

_MODEL: Final = re.compile(rb'(?<!\\)"model"\s*:\s*"(?:[^"\\]|\\.)*"')


@frozen(kw_only=True)
class Asked:
    """A request's content, and the model it names. None when it names none."""

    content: dict[str, Any]
    model: str | None


def asked_for(body: bytes) -> Asked | None:
    """Return what a request asks for. None when its body is no JSON object, which the engine has to judge."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    model = content.get("model")
    return Asked(content=content, model=model if isinstance(model, str) else None)


def with_model(asked: Asked, name: str) -> bytes:
    """Return the request's body with another model."""
    return json.dumps(asked.content | {"model": name}, separators=(",", ":")).encode()


def rename(text: bytes, name: str) -> bytes:
    """Return JSON text whose keys ``model`` have ``name`` as value."""
    if b'"model"' not in text:
        return text
    named = b'"model":' + json.dumps(name).encode()
    return _MODEL.sub(lambda _match: named, text)


class EventLines:
    """Renames models in a stream of events; what is no whole line yet waits for its end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        """Take a piece and return what can be sent on."""
        whole, ending, self._rest = (self._rest + piece).rpartition(b"\n")
        return rename(whole, self._name) + ending

    def finish(self) -> bytes:
        """Return what had no end."""
        rest, self._rest = self._rest, b""
        return rename(rest, self._name)


def listed(names: Iterable[str], created: int) -> list[dict[str, Any]]:
    """Return models as ``/v1/models`` lists them. ``created``: Unix seconds. Source: OpenAI's API reference."""
    return [{"id": name, "object": "model", "created": created, "owned_by": "nim"} for name in names]
