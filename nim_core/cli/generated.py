"""
The manifest of a model that has none: written after its first download, read instead of listing from then on.

It holds one profile, and in tags the URI it was made for and which of its files were chosen: a manifest left over from
something else is refused rather than followed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nim_core.errors import CachePermissionError, ManifestError
from nim_core.manifest import Manifest, ManifestFile, Profile
from nim_core.plan import Patterns, Present, Wanted
from nim_core.profiles.generate import MODEL_URI_TAG
from nim_core.types import DIGEST_HEX_LENGTHS, ModelUri

__all__ = ["EXCLUDE_TAG", "INCLUDE_TAG", "MODEL_URI_TAG", "check_writable", "is_there", "make_manifest", "profile_for"]

INCLUDE_TAG: Final = "model_include"
EXCLUDE_TAG: Final = "model_exclude"

_ANOTHER: Final = "remove the file to have it written again, or let --manifest-file name another"


def make_manifest(
    uri: ModelUri, patterns: Patterns, files: tuple[Wanted, ...], present: Mapping[str, Present]
) -> Manifest:
    """
    Return the manifest of what was downloaded.

    Args:
        uri: What it was downloaded from.
        patterns: Which of its files were chosen.
        files: What that consists of.
        present: What became of each file, by path; digests that were seen are promised from now on.

    The profile's id is the SHA-256 of its files as canonical JSON, so that the same files have the same id everywhere.
    """
    described = tuple(_describe(file, present.get(file.path)) for file in files)
    entries = {file.path: _entry(file) for file in described}
    canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    profile = Profile(
        id=hashlib.sha256(canonical.encode()).hexdigest(),
        tags=_tags(uri, patterns),
        files=described,
    )
    return Manifest(schema_version="2.0.0", profiles=(profile,))


def _describe(file: Wanted, present: Present | None) -> ManifestFile:
    seen = {digest.algorithm: digest for digest in (present.digests if present else ())}
    strongest = next((seen[algorithm] for algorithm in DIGEST_HEX_LENGTHS if algorithm in seen), None)
    return ManifestFile(path=file.path, uri=file.uri.display, digest=file.digest or strongest)


def _entry(file: ManifestFile) -> dict[str, str]:
    return {"uri": file.uri} | ({} if file.digest is None else {"checksum": str(file.digest)})


def profile_for(uri: ModelUri, patterns: Patterns, manifest: Manifest) -> Profile:
    """
    Return the profile of a manifest that stands for the files of ``uri`` that ``patterns`` choose.

    Raises:
        ManifestError: The manifest was made for another URI or other patterns, or is one of several profiles.
    """
    if len(manifest.profiles) != 1:
        raise ManifestError(
            f"manifest with {len(manifest.profiles)} profiles given together with a model URI: {manifest.origin}",
            hint="leave out --model-uri and choose with --profiles, or let --manifest-file name a new file",
        )
    profile = manifest.profiles[0]
    made_for = profile.tags.get(MODEL_URI_TAG)
    if made_for != uri.display:
        raise ManifestError(
            f"manifest is not of {uri.display} but of {made_for or 'an unknown model'}: {manifest.origin}",
            hint=_ANOTHER,
        )
    if any(profile.tags.get(tag) != _tags(uri, patterns).get(tag) for tag in (INCLUDE_TAG, EXCLUDE_TAG)):
        raise ManifestError(
            f"manifest was made with another --include or --exclude: {manifest.origin}",
            hint=f"give the same ones again; {_ANOTHER}",
        )
    return profile


def _tags(uri: ModelUri, patterns: Patterns) -> dict[str, str]:
    chosen = {INCLUDE_TAG: patterns.include, EXCLUDE_TAG: patterns.exclude}
    return {MODEL_URI_TAG: uri.display, **{tag: json.dumps(texts) for tag, texts in chosen.items() if texts}}


def is_there(path: Path) -> bool:
    """Say whether something is at ``path``; where that cannot be told, using it will say why."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def check_writable(path: Path) -> None:
    """
    See that a file can be written at ``path``, before hours go into what it will say.

    Raises:
        ManifestError: Its folder does not exist.
        CachePermissionError: Its folder cannot be written.
    """
    if not is_there(path.parent):
        raise ManifestError(f"no folder for the manifest to write: {path.parent}", hint=f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise CachePermissionError(
            f"cannot write the manifest: user {os.geteuid()} may not write to {path.parent}",
            hint="let --manifest-file name a file in a folder that can be written",
        )
