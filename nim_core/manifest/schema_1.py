"""
Schema 1: the images of 2024. No version; the top is a map from profile id to profile::

    <64 lower-case hex digits>:
      model: meta/llama3-70b-instruct
      release: '1.0.0'
      tags: {name: text}
      container_url: <image>
      workspace: !workspace
        components:
        - dst: trtllm_engine
          src:
            repo_id: nim/meta/llama3-70b-instruct:<version>
            files:
            - !name 'config.json'

A file goes to ``dst/name`` and comes from ``repo_id``, which stands for a URI of the scheme that
:data:`~nim_core.known_schemes.SCHEMA_1_SCHEME` names, unless it is a URI already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nim_core.known_schemes import SCHEMA_1_SCHEME
from nim_core.manifest.checks import (
    ManifestRows,
    ProfileRows,
    Row,
    as_list,
    as_map,
    as_text,
    check_destination,
    check_id,
    check_uri,
    read_profile,
    refuse_clashes,
)
from nim_core.manifest.faults import Place, shown

__all__ = ["read_schema_1"]

_SHAPE_HINT = "schema 2 has schema_version and profiles; schema 1 is a map from profile ids to profiles"


def read_schema_1(top: dict[str, Any]) -> ManifestRows:
    """
    Read a manifest without a ``schema_version``.

    Raises:
        FaultError: A key is no profile id, or a value is missing, of a wrong type or unsafe.
    """
    return ManifestRows(schema_version="1", profiles=[_read_profile(key, value) for key, value in top.items()])


def _read_profile(key: str, value: Any) -> ProfileRows:
    profile_id = check_id(key, Place((key,)), _SHAPE_HINT)
    place = Place((key,), profile_id)
    profile = as_map(value, place, "profile")
    rows = _read_workspace(profile.get("workspace"), place.child("workspace"))
    return read_profile(profile, profile_id, place, rows)


def _read_workspace(value: Any, place: Place) -> list[Row]:
    components = as_map(value, place, "workspace").get("components")
    found: list[tuple[Row, Place]] = []
    for number, component in enumerate(as_list(components, place.child("components"), "components")):
        found += _read_component(component, place.child("components", number))
    refuse_clashes([(row[0], at) for row, at in found])
    return [row for row, _ in found]


def _read_component(value: Any, place: Place) -> Iterator[tuple[Row, Place]]:
    component = as_map(value, place, "component")
    at = place.child("src")
    source = as_map(component.get("src"), at, "src")
    folder = "" if component.get("dst") is None else as_text(component["dst"], place.child("dst"), "dst")
    repository = _read_repository(source.get("repo_id"), at.child("repo_id"))
    files = as_list(source.get("files"), at.child("files"), "files")
    if not files:
        raise at.fault("component without files", "which files of the repository are meant must be listed")
    for number, item in enumerate(files):
        here = at.child("files", number)
        name = as_text(item, here, "file name")
        path = check_destination(_joined(folder, name), here)
        yield (path, check_uri(f"{repository}?file={name}", here), None), here


def _read_repository(value: Any, place: Place) -> str:
    if value is None or value == "":
        raise place.fault("missing repo_id")
    repository = as_text(value, place, "repo_id")
    # a path is no repository: as a bare path it is refused with the sentence about local://
    if "://" in repository or repository.startswith(("/", ".", "~", "file:")):
        return check_uri(repository, place)
    if "?" in repository:
        raise place.fault(f"repo_id with a query: {shown(repository)}")
    return f"{SCHEMA_1_SCHEME}://{repository}"


def _joined(folder: str, name: str) -> str:
    return name if not folder else f"{folder.removesuffix('/') or '/'}/{name}"
