"""What ``vllm serve`` takes, by version, from the snapshots in ``flags``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from attrs import field, frozen
from packaging.version import Version

from nim_core.types import Option

_SECRETS: Final = frozenset({"api-key", "hf-token"})
_MORE_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {"optimization-level": ("-O",)}
"""Spellings that vLLM translates before it parses."""


@frozen(kw_only=True)
class Flags:
    """
    The arguments of one version.

    Attributes:
        version: Which.
        options: All of them, by name.
        on_only: Switches that cannot be turned off by ``--no-NAME``.
        forms: Of options that are text, by name: ``amount``, such as ``8k``, or ``value``, JSON of any kind.
        load_formats: What ``--load-format`` may be, without plugins of vLLM's.
        quantizations: What ``--quantization`` may be, without plugins of vLLM's.
        exact: Whether this is the version that was asked for.
    """

    version: Version
    options: Mapping[str, Option] = field(repr=False)
    on_only: frozenset[str] = field(repr=False)
    forms: Mapping[str, str] = field(repr=False)
    load_formats: Sequence[str] = field(repr=False)
    quantizations: Sequence[str] = field(repr=False)
    exact: bool = True


def flags_of(version: Version | None) -> Flags:
    """
    Return the arguments of a version, or of the newest one before it that is known, or of the oldest.

    Args:
        version: That of the engine; its patch number is taken to add nothing. None, not known: the newest.
    """
    known = sorted(_snapshots())
    if version is None:
        return _read(known[-1], exact=False)
    wanted = version.release[:2]
    exact = [it for it in known if it.release[:2] == wanted]
    if exact:
        return _read(exact[-1], exact=True)
    older = [it for it in known if it.release[:2] < wanted]
    return _read(older[-1] if older else known[0], exact=False)


@cache
def _snapshots() -> Mapping[Version, Any]:
    folder = files("nim_backend_vllm") / "flags"
    return {Version(it.name.removesuffix(".json")): it for it in folder.iterdir() if it.name.endswith(".json")}


@cache
def _read(version: Version, *, exact: bool) -> Flags:
    content = json.loads(_snapshots()[version].read_text(encoding="utf-8"))
    return Flags(
        version=version,
        options={record["name"]: _option(record) for record in content["options"]},
        on_only=frozenset(record["name"] for record in content["options"] if record.get("on_only")),
        forms={record["name"]: record["form"] for record in content["options"] if "form" in record},
        load_formats=tuple(content["load_formats"]),
        quantizations=tuple(content["quantizations"]),
        exact=exact,
    )


def _option(record: Mapping[str, Any]) -> Option:
    name = record["name"]
    return Option(
        name=name,
        aliases=(*record.get("aliases", ()), *_MORE_ALIASES.get(name, ())),
        kind=record.get("kind", "text"),
        negations=tuple(record.get("negations", ())),
        many=record.get("many", False),
        optional=record.get("optional", False),
        choices=tuple(record.get("choices", ())),
        secret=name in _SECRETS,
    )
