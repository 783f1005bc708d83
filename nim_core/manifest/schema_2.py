"""
Schema 2: the images of today::

    schema_version: 2.0.0
    profile_selection_criteria: default
    profiles:
    - id: <64 lower-case hex digits>
      tags: {name: text}
      workspace:
        files:
          <destination>: {uri: <URI>, checksum: blake3:<hex>}

``model``, ``release`` and ``container_url`` are read as in schema 1 where a profile has them; other fields are ignored.
"""

from __future__ import annotations

import re
from typing import Any

from nim_core.manifest.checks import (
    ManifestRows,
    ProfileRows,
    Row,
    as_list,
    as_map,
    as_scalar,
    check_checksum,
    check_destination,
    check_id,
    check_uri,
    read_profile,
    refuse_clashes,
)
from nim_core.manifest.faults import Place, shown

__all__ = ["read_schema_2"]

_VERSION = re.compile(r"2(\.\d+){0,2}")


def read_schema_2(top: dict[str, Any]) -> ManifestRows:
    """
    Read a manifest that has a ``schema_version``.

    Raises:
        FaultError: It is of another schema, or a value is missing, of a wrong type or unsafe.
    """
    version = _read_version(top)
    selection = as_scalar(top.get("profile_selection_criteria"), Place(("profile_selection_criteria",)), "criteria")
    if top.get("profiles") is None:
        raise Place(("profiles",)).fault("missing profiles")
    profiles: dict[str, ProfileRows] = {}
    for number, value in enumerate(as_list(top["profiles"], Place(("profiles",)), "profiles")):
        place = Place(("profiles", number))
        profile = _read_profile(as_map(value, place, "profile"), place)
        if profile.id in profiles:
            raise Place(("profiles", number, "id"), profile.id).fault("profile id is given twice")
        profiles[profile.id] = profile
    return ManifestRows(schema_version=version, selection=selection or "default", profiles=list(profiles.values()))


def _read_version(top: dict[str, Any]) -> str:
    place = Place(("schema_version",))
    version = as_scalar(top["schema_version"], place, "schema_version")
    if not _VERSION.fullmatch(version):
        raise place.fault(
            f"unsupported schema version: {shown(version)}", "schemas 1 (without a version) and 2 are read"
        )
    return version


def _read_profile(value: dict[str, Any], place: Place) -> ProfileRows:
    if "id" not in value:
        raise place.fault("profile without id")
    profile_id = check_id(value["id"], place.child("id"))
    known = Place(place.path, profile_id)
    workspace = known.child("workspace")
    files = as_map(value.get("workspace"), workspace, "workspace").get("files")
    return read_profile(value, profile_id, known, _read_files(files, workspace.child("files")))


def _read_files(value: Any, place: Place) -> list[Row]:
    rows, destinations = [], []
    for path, entry in as_map(value, place, "files").items():
        at = place.child(path)
        destinations.append((check_destination(path, at), at))
        file = as_map(entry, at, "file")
        uri = check_uri(file.get("uri"), at.child("uri"))
        rows.append((path, uri, check_checksum(file.get("checksum"), at.child("checksum"))))
    refuse_clashes(destinations)
    return rows
