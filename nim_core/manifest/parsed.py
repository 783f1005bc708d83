r"""
The parsed form of a manifest: what was read and checked once, in a form that loads in a fraction of the time.

It lies beside the manifest as ``.<name>.<key>.parsed``, or in ``<cache>/manifests/`` where that folder cannot be
written::

    {"format": 1, "key": <key>, "body": <blake3 of all that follows>}\n
    {"schema_version": …, "selection": …, "profiles": [[id, tags, model, release, container_url, start, end], …]}\n
    [[destination, URI, checksum], …]      one JSON list per profile; start and end count from here, in bytes

The key is a digest of the manifest's bytes, of this format and of the version of nim-core, so it can be stale only by
not being found. The digest of the body tells damage, a half-written file after a power cut among it. Neither tells
malice: whoever can write a parsed form decides what is downloaded. So only one that belongs to this user or to root
is read, and that nobody else can write.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from blake3 import blake3

from nim_core.manifest.checks import ManifestRows, ProfileRows, Row
from nim_core.manifest.records import Manifest, ManifestFile, Profile
from nim_core.manifest.write import write_whole
from nim_core.types import Digest

__all__ = ["ParsedForm", "as_manifest", "is_trusted"]

_FORMAT: Final = 1
_LARGEST: Final = 256 * 1024 * 1024


def as_manifest(rows: ManifestRows, origin: str) -> Manifest:
    """Return the manifest that was read from ``origin``."""
    return Manifest(
        schema_version=rows.schema_version,
        selection=rows.selection,
        profiles=tuple(_as_profile(profile, partial(_as_files, profile.rows)) for profile in rows.profiles),
        origin=origin,
    )


def is_trusted(status: os.stat_result, user: int) -> bool:
    """Return whether only ``user`` or root can have written the file with this status."""
    mine = status.st_uid in {user, 0}
    return stat.S_ISREG(status.st_mode) and mine and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@frozen
class ParsedForm:
    """
    The parsed form of one content of one manifest, wherever it may lie.

    Attributes:
        manifest: The manifest's path.
        key: Digest of its content and of everything the parsed form depends on.
        places: Where the parsed form may lie, best first.
        mode: Permissions it gets: never more than the manifest has.
    """

    manifest: Path
    key: str
    places: tuple[Path, ...]
    mode: int

    @classmethod
    def of(cls, manifest: Path, data: bytes, mode: int, cache_dir: Path | None) -> ParsedForm:
        """Return the parsed form of a manifest whose content is ``data`` and whose permissions are ``mode``."""
        key = blake3(data)
        key.update(f"\0{_FORMAT}\0{_version()}".encode())
        value = key.hexdigest()
        name = f".{manifest.name[:200]}.{value[:16]}.parsed"
        folders = [manifest.parent] + ([] if cache_dir is None else [cache_dir / "manifests"])
        return cls(manifest, value, tuple(folder / name for folder in folders), 0o600 | mode & 0o044)

    def read(self) -> Manifest | None:
        """Return the manifest. None when there is no parsed form, or only damaged or untrustworthy ones."""
        for place in self.places:
            data = _read_trusted(place)
            manifest = None if data is None else self._decode(data)
            if manifest is not None:
                return manifest
        return None

    def write(self, rows: ManifestRows) -> None:
        """Store what was read, in the first place that can be written. It is no failure when there is none."""
        data = self._encode(rows)
        for place in self.places:
            try:
                if place.parent != self.manifest.parent:
                    place.parent.mkdir(parents=True, exist_ok=True)
                write_whole(place, data, self.mode, durable=False)
            except OSError:
                continue
            return

    def _encode(self, rows: ManifestRows) -> bytes:
        chunks = [_dumps(profile.rows) for profile in rows.profiles]
        profiles, start = [], 0
        for profile, chunk in zip(rows.profiles, chunks, strict=True):
            facts = [profile.id, profile.tags, profile.model, profile.release, profile.container_url]
            profiles.append([*facts, start, start + len(chunk)])
            start += len(chunk)
        index = {"schema_version": rows.schema_version, "selection": rows.selection, "profiles": profiles}
        body = _dumps(index) + b"".join(chunks)
        return _dumps({"format": _FORMAT, "key": self.key, "body": blake3(body).hexdigest()}) + body

    def _decode(self, data: bytes) -> Manifest | None:
        header, _, body = data.partition(b"\n")
        try:
            expected = json.loads(header)
        except (ValueError, RecursionError):
            return None
        if expected != {"format": _FORMAT, "key": self.key, "body": blake3(body).hexdigest()}:
            return None
        try:
            return self._decode_body(body)
        except (KeyError, TypeError, ValueError):
            return None

    def _decode_body(self, body: bytes) -> Manifest:
        index, _, files = body.partition(b"\n")
        facts = json.loads(index)
        return Manifest(
            schema_version=facts["schema_version"],
            selection=facts["selection"],
            profiles=tuple(_decode_profile(row, files) for row in facts["profiles"]),
            origin=str(self.manifest),
        )


def _version() -> str:
    try:
        return importlib.metadata.version("nim-core")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _read_trusted(path: Path) -> bytes | None:
    try:
        with open(path, "rb", opener=_open_itself) as file:
            # of the open file, so that what was judged is what is read
            status = os.fstat(file.fileno())
            if not is_trusted(status, os.geteuid()) or status.st_size > _LARGEST:
                return None
            return file.read()
    except OSError:
        return None


def _open_itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _decode_profile(row: list[Any], files: bytes) -> Profile:
    profile_id, tags, model, release, container_url, start, end = row
    facts = ProfileRows(id=profile_id, tags=tags, model=model, release=release, container_url=container_url, rows=[])
    return _as_profile(facts, lambda: _as_files(json.loads(files[start:end])))


def _as_profile(profile: ProfileRows, files: Callable[[], tuple[ManifestFile, ...]]) -> Profile:
    return Profile(
        id=profile.id,
        tags=profile.tags,
        files=files,
        model=profile.model,
        release=profile.release,
        container_url=profile.container_url,
    )


def _as_files(rows: list[Row]) -> tuple[ManifestFile, ...]:
    return tuple(
        ManifestFile(path=path, uri=uri, digest=None if checksum is None else Digest.parse(checksum))
        for path, uri, checksum in rows
    )
