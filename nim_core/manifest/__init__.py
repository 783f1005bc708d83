"""
Manifests: which profiles an image offers, and which files each of them is made of.

:func:`find_manifest` says which file to read, :func:`load_manifest` reads it, :func:`dump_manifest` writes one. What
comes out has been checked: every destination is safe to create beneath a folder, every digest is one, every URI has a
scheme. Everything that is wrong with a manifest is a :class:`~nim_core.errors.ManifestError`.
"""

from nim_core.manifest.dump import dump_manifest
from nim_core.manifest.find import DEFAULT_PATHS, find_manifest
from nim_core.manifest.load import load_manifest
from nim_core.manifest.records import Manifest, ManifestFile, Profile

__all__ = [
    "DEFAULT_PATHS",
    "Manifest",
    "ManifestFile",
    "Profile",
    "dump_manifest",
    "find_manifest",
    "load_manifest",
]
