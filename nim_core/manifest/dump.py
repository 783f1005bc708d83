"""From a manifest to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from nim_core.errors import ManifestError
from nim_core.manifest.load import read_rows
from nim_core.manifest.records import Manifest, ManifestFile, Profile
from nim_core.manifest.write import write_whole

__all__ = ["dump_manifest"]

_NEVER_FOLD: Final = 2**31 - 1


def dump_manifest(manifest: Manifest, path: Path) -> None:
    """
    Write ``manifest`` as schema 2, as JSON when ``path`` ends in ``.json``, else as YAML.

    What is written reads back as an equal manifest, but for the version of one that was schema 1. The file appears
    whole or not at all.

    Raises:
        ManifestError: It holds something that :func:`~nim_core.manifest.load_manifest` would refuse, or the file
            cannot be written.
    """
    value = _as_value(manifest)
    render = _as_json if path.suffix == ".json" else _as_yaml
    try:
        data = render(value).encode()
    except UnicodeEncodeError as exc:
        raise ManifestError(f"cannot write manifest: {path} (it has text that is not Unicode)") from exc
    read_rows(path, data)
    try:
        write_whole(path, data, 0o644, durable=True)
    except OSError as exc:
        raise ManifestError(f"cannot write manifest: {path} ({exc.strerror})") from exc


def _as_value(manifest: Manifest) -> dict[str, Any]:
    return {
        "schema_version": "2.0.0" if manifest.schema_version == "1" else manifest.schema_version,
        "profile_selection_criteria": manifest.selection,
        "profiles": [_profile_value(profile) for profile in manifest.profiles],
    }


def _profile_value(profile: Profile) -> dict[str, Any]:
    files = {file.path: _file_value(file) for file in profile.files}
    if len(files) != len(profile.files):
        raise ManifestError(f"profile {profile.id}: a destination is given twice")
    facts = {"model": profile.model, "release": profile.release, "container_url": profile.container_url}
    return {
        "id": profile.id,
        "tags": dict(profile.tags),
        **{name: fact for name, fact in facts.items() if fact is not None},
        "workspace": {"files": files},
    }


def _file_value(file: ManifestFile) -> dict[str, str]:
    if file.digest is None:
        return {"uri": file.uri}
    return {"uri": file.uri, "checksum": str(file.digest)}


def _as_json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _as_yaml(value: dict[str, Any]) -> str:
    # imported here because it takes longer than loading a parsed form does
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=_NEVER_FOLD)
    return text
