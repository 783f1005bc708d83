"""Manifest text for models that a server of the kit serves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import yaml

from nim_core.testing.corpus import Content

__all__ = ["DEFAULT_TAGS", "ServedModel", "manifest_for", "profile_id"]

DEFAULT_TAGS: Mapping[str, str] = {
    "feat_lora": "false",
    "llm_engine": "vllm",
    "pp": "1",
    "precision": "bf16",
    "tp": "1",
}


class ServedModel(Protocol):
    """A model some server of the kit serves."""

    @property
    def files(self) -> Mapping[str, Content]:
        """Contents by path."""

    def uri(self, file: str | None = None) -> str:
        """Return the URI of the model or of one of its files."""


def manifest_for(
    *models: ServedModel,
    tags: Sequence[Mapping[str, str]] = (DEFAULT_TAGS,),
    algorithm: str | None = "blake3",
) -> str:
    """
    Return a schema 2 manifest, one profile per model and entry of ``tags``.

    Args:
        models: What the profiles consist of; a file's place in the workspace is its own path.
        tags: Tags of the profiles, all values text.
        algorithm: Digest written as each file's checksum. None writes no checksums.
    """
    profiles = [_profile(model, entry, algorithm) for model in models for entry in tags]
    manifest = {"schema_version": "2.0.0", "profile_selection_criteria": "default", "profiles": profiles}
    return yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=200)


def profile_id(model: ServedModel, tags: Mapping[str, str] = DEFAULT_TAGS) -> str:
    """Return the 64 hex digits by which :func:`manifest_for` names a profile."""
    identity = json.dumps([model.uri(), sorted(model.files), dict(tags)], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()


def _profile(model: ServedModel, tags: Mapping[str, str], algorithm: str | None) -> dict[str, object]:
    files = {path: _file(model.uri(path), content, algorithm) for path, content in model.files.items()}
    return {"id": profile_id(model, tags), "tags": dict(tags), "workspace": {"files": files}}


def _file(uri: str, content: Content, algorithm: str | None) -> dict[str, str]:
    return {"uri": uri} if algorithm is None else {"uri": uri, "checksum": str(content.digest(algorithm))}
