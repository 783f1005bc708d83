"""
What the readers of both schemas check values with, and what they make of them.

Rows are what a manifest becomes first: nothing but text in tuples, so that they can be stored as JSON and made into
records when somebody asks.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Final, NoReturn

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.manifest.faults import FaultError, Place, is_profile_id, shown
from nim_core.manifest.tokens import Plain
from nim_core.types import Digest, check_relative_path
from nim_core.uris import scheme_of

__all__ = [
    "ManifestRows",
    "ProfileRows",
    "Row",
    "as_list",
    "as_map",
    "as_scalar",
    "as_text",
    "check_checksum",
    "check_destination",
    "check_id",
    "check_uri",
    "read_profile",
    "refuse_clashes",
]

Row = tuple[str, str, str | None]
"""Destination, URI and checksum of a file."""

_LONGEST: Final = 4096
# an escape sequence in a tag would reach the terminal of whoever lists profiles
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@frozen(kw_only=True)
class ProfileRows:
    """A profile as it was read; attributes are those of :class:`~nim_core.manifest.records.Profile`."""

    id: str
    tags: dict[str, str]
    model: str | None = None
    release: str | None = None
    container_url: str | None = None
    rows: list[Row]


@frozen(kw_only=True)
class ManifestRows:
    """A manifest as it was read; attributes are those of :class:`~nim_core.manifest.records.Manifest`."""

    schema_version: str
    selection: str = "default"
    profiles: list[ProfileRows]


def as_map(value: Any, place: Place, what: str) -> dict[str, Any]:
    """Return ``value``, which must be a map; nothing at all counts as an empty one."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise _wrong_type(what, "a map", value, place)


def as_list(value: Any, place: Place, what: str) -> list[Any]:
    """Return ``value``, which must be a list; nothing at all counts as an empty one."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise _wrong_type(what, "a list", value, place)


def as_text(value: Any, place: Place, what: str) -> str:
    """Return ``value``, which must be text that is not too long to be what it is meant to be."""
    if not isinstance(value, str):
        hint = "put it in quotes" if isinstance(value, Plain | bool) else None
        raise _wrong_type(what, "text", value, place, hint)
    if len(value) > _LONGEST:
        raise place.fault(f"{what} is longer than {_LONGEST} characters: {shown(value)}")
    return value


def as_scalar(value: Any, place: Place, what: str) -> str:
    """Return ``value`` as text: booleans as ``true`` or ``false``, numbers as they are written, nothing as ''."""
    if isinstance(value, dict | list):
        raise _wrong_type(what, "text", value, place)
    text = value if isinstance(value, str) else _written(value)
    if _UNPRINTABLE.search(text):
        raise place.fault(f"{what} has a control character: {shown(text)}")
    return text


def _written(value: Plain | bool | None) -> str:
    if isinstance(value, Plain):
        return value.text
    return {True: "true", False: "false", None: ""}[value]


_KINDS: Final = {dict: "a map", list: "a list", str: "text", bool: "a boolean", Plain: "a number or date"}


def _wrong_type(what: str, wanted: str, value: Any, place: Place, hint: str | None = None) -> FaultError:
    found = _KINDS.get(type(value), "nothing")
    return place.fault(f"{what} must be {wanted}, not {found}", hint)


def check_id(value: Any, place: Place, hint: str | None = None) -> str:
    """Return ``value``, which must be the id of a profile."""
    text = as_text(value, place, "profile id")
    if not is_profile_id(text):
        raise place.fault(f"not a profile id of 64 lower-case hex digits: {shown(text)}", hint)
    return text


def read_profile(value: dict[str, Any], profile_id: str, place: Place, rows: list[Row]) -> ProfileRows:
    """Return the profile that ``value`` describes; its files have been read already, as each schema has them."""
    return ProfileRows(
        id=profile_id,
        tags=_read_tags(value.get("tags"), place.child("tags")),
        model=_read_fact(value, "model", place),
        release=_read_fact(value, "release", place),
        container_url=_read_fact(value, "container_url", place),
        rows=rows,
    )


def _read_fact(value: dict[str, Any], name: str, place: Place) -> str | None:
    fact = value.get(name)
    return None if fact is None else as_scalar(fact, place.child(name), name)


def _read_tags(value: Any, place: Place) -> dict[str, str]:
    tags = {}
    for name, tag in as_map(value, place, "tags").items():
        at = place.child(name)
        tags[as_scalar(name, at, "tag name")] = as_scalar(tag, at, f"tag {shown(name)}")
    return tags


def check_uri(value: Any, place: Place) -> str:
    """Return ``value``, which must be text with a scheme; more can only be said by the scheme's plugin."""
    if value is None or value == "":
        raise place.fault("missing uri")
    uri = as_text(value, place, "uri")
    try:
        scheme_of(uri)
    except ConfigError as exc:
        raise place.fault(exc.message, exc.hint) from exc
    return uri


def check_checksum(value: Any, place: Place) -> str | None:
    """Return ``value``, which must be a digest as ``algorithm:hex``, or None when there is none."""
    if value is None:
        return None
    checksum = as_text(value, place, "checksum")
    try:
        Digest.parse(checksum)
    except ConfigError as exc:
        raise place.fault(exc.message, exc.hint) from exc
    return checksum


def check_destination(value: Any, place: Place) -> str:
    """Return ``value``, which must be a path that is safe to create beneath a folder."""
    path = as_text(value, place, "destination")
    try:
        return check_relative_path(path)
    except ConfigError as exc:
        raise place.fault(exc.message, exc.hint) from exc


def refuse_clashes(destinations: list[tuple[str, Place]]) -> None:
    """Refuse destinations of one profile that cannot stand beside each other, on file systems that ignore case too."""
    # as "/" is replaced by what sorts before everything else, what is inside a file comes right behind it
    folded = [path.casefold().replace("/", "\0") for path, _ in destinations]
    order = sorted(range(len(destinations)), key=folded.__getitem__)
    for one, other in pairwise(order):
        if folded[one] == folded[other]:
            _refuse_same(destinations[one][0], *destinations[other])
        if folded[other].startswith(folded[one] + "\0"):
            path, place = destinations[other]
            raise place.fault(f"destination is inside the file {shown(destinations[one][0])}: {shown(path)}")


def _refuse_same(first: str, path: str, place: Place) -> NoReturn:
    how = "is given twice" if first == path else f"differs only by case from {shown(first)}"
    raise place.fault(f"destination {how}: {shown(path)}")
