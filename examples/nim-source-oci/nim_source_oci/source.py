"""What an artifact consists of, and where its blobs are."""

from __future__ import annotations

import platform
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from nim_core.errors import NotFoundError, SourceError, UnsupportedError
from nim_core.types import CacheKey, Digest, HttpObject, Listing, ModelUri, RemoteFile, SourceContext
from nim_source_oci.errors import reading
from nim_source_oci.refs import OciRef
from nim_source_oci.registry import Pass, Registry

_TITLES: Final = ("org.opencontainers.image.title", "org.cncf.model.filepath", "org.cnai.model.filepath")
"""Annotations that name a layer's file: of ORAS, and of the CNCF's ModelPack under its present and its first name."""

_UNPACK: Final = "io.deis.oras.content.unpack"
_PACKED = re.compile(r"application/vnd\.(cncf|cnai)\.model\..*\.tar")
"""ORAS packs folders, and ModelPack whatever it is told to."""

_EMPTY: Final = "application/vnd.oci.empty.v1+json"
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@frozen
class _Artifact:
    digest: str
    files: Mapping[str, RemoteFile]


class OciSource:
    """
    The source behind ``oci://``: every layer of an artifact is a file.

    A layer is called what its annotations say; one without a name is called ``sha256-`` and its digest. Digests and
    sizes are the manifest's, whose own digest is the revision.
    """

    def __init__(self, context: SourceContext) -> None:
        self._registry = Registry(context)
        self._artifacts: dict[tuple[str, str, str], _Artifact] = {}
        self._given: dict[tuple[str, str, str], Pass] = {}
        self._lock = threading.Lock()

    def list_files(self, uri: ModelUri) -> Listing:
        """
        List the artifact, or its one file that ``uri`` names.

        Raises:
            SourceError: In the subclass the registry's answer asks for.
            DigestMismatchError: The registry gave another manifest than it was asked for.
            InvalidUriError: The URI names no artifact, or a layer's name is not safe as a path.
        """
        ref = OciRef.parse(uri)
        artifact = self._artifact(ref)
        files = tuple(artifact.files.values()) if ref.file is None else (_named(artifact, ref, ref.file),)
        return Listing(uri=uri, files=files, pinned=artifact.digest)

    def locate(self, uri: ModelUri, file: RemoteFile) -> HttpObject:
        """Return the blob's URL with a pass for its repository, which is a new one when the last one was refused."""
        ref = OciRef.parse(uri)
        blob = _named(self._artifact(ref), ref, file.path)
        place = (ref.host, ref.name, f"{ref.reference}/{blob.path}")
        granted = self._given[place] = self._registry.granted(ref, refused=self._given.get(place))
        return HttpObject(
            url=self._registry.url(ref, f"blobs/{blob.digests[0]}"),
            headers=granted.headers,
            expires_at=granted.expires_at,
            size=blob.size,
        )

    def cache_key(self, uri: ModelUri, pinned: str | None) -> CacheKey:
        """Return the place of the whole artifact, whichever file of it ``uri`` names."""
        return OciRef.parse(uri).cache_key(pinned)

    def close(self) -> None:
        """Forget what was learned."""
        self._artifacts.clear()

    def _artifact(self, ref: OciRef) -> _Artifact:
        """Return what the registry said first in this run: a tag that moves meanwhile does not mix two artifacts."""
        with self._lock:
            place = (ref.host, ref.name, ref.reference)
            if place not in self._artifacts:
                self._artifacts[place] = self._read(ref)
            return self._artifacts[place]

    def _read(self, ref: OciRef) -> _Artifact:
        manifest, digest = self._registry.manifest(ref, ref.reference)
        if "manifests" in manifest:
            with reading(ref):
                chosen = _choose(manifest["manifests"], ref)
            manifest, digest = self._registry.manifest(ref, chosen)
        with reading(ref):
            layers = [layer for layer in (manifest.get("layers") or manifest["blobs"]) if _is_file(layer)]
        files: dict[str, RemoteFile] = {}
        for layer in layers:
            file = _file(layer, ref)
            if file.path in files:
                raise SourceError(f"two layers have one name in {ref}: {file.path}")
            files[file.path] = file
        return _Artifact(digest, files)


def _named(artifact: _Artifact, ref: OciRef, path: str) -> RemoteFile:
    if path not in artifact.files:
        names = ", ".join(sorted(artifact.files)[:10])
        raise NotFoundError(f"no such file in {ref}: {path}", hint=f"it has {names}" if names else None)
    return artifact.files[path]


def _choose(entries: Sequence[Mapping[str, Any]], ref: OciRef) -> str:
    """
    Return the digest of the one manifest of an index that is meant: the only one, or the only one for this machine.

    Entries whose platform is ``unknown`` are statements about others, as builders add them.
    """
    machine = ("linux", _MACHINES.get(platform.machine(), platform.machine()))
    platforms = [(entry.get("platform") or {}, str(entry["digest"])) for entry in entries]
    real = [(of, digest) for of, digest in platforms if of.get("architecture") != "unknown"]
    fitting = [digest for of, digest in real if (of.get("os"), of.get("architecture")) == machine]
    for candidates in ([digest for _, digest in real], fitting):
        if len(candidates) == 1:
            return candidates[0]
    raise UnsupportedError(
        f"several artifacts are at {ref}", hint=f"name one by its digest: {', '.join(digest for _, digest in real)}"
    )


def _is_file(layer: Mapping[str, Any]) -> bool:
    return layer.get("mediaType") != _EMPTY or _title(layer) is not None


def _title(layer: Mapping[str, Any]) -> str | None:
    annotations = layer.get("annotations") or {}
    return next((str(annotations[key]) for key in _TITLES if annotations.get(key)), None)


def _file(layer: Mapping[str, Any], ref: OciRef) -> RemoteFile:
    """Return a layer as a file. Raises UnsupportedError for what would not be one, InvalidUriError for a bad name."""
    with reading(ref):
        size, digest = int(layer["size"]), str(layer["digest"])
        title = _title(layer) or digest.replace(":", "-")
        packed = (layer.get("annotations") or {}).get(_UNPACK) == "true" or _PACKED.match(layer.get("mediaType", ""))
    if packed:
        raise UnsupportedError(f"files are packed into an archive in {ref}: {title}", hint="push them one by one")
    if not digest.startswith("sha256:"):
        raise UnsupportedError(f"only SHA-256 can be checked, and {ref} has: {digest.partition(':')[0]}")
    with reading(ref):
        checked = Digest.parse(digest)
    return RemoteFile(path=title, size=size, digests=(checked,))
