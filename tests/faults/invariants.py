"""What holds for a cache at every moment, whatever happened: what is visible is verified."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from nim_core.testing.corpus import Content
from tests.faults.shelf import REVISION, snapshot_of

__all__ = ["Digests", "violations"]

_PIECE = 1 << 20


class Digests:
    """Digests of files, each file read once for as long as nothing about it changes."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], str] = {}

    def of(self, path: Path) -> str:
        """Return the BLAKE3 of a file."""
        stat = path.stat()
        key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if key not in self._known:
            self._known[key] = _blake3(path)
        return self._known[key]


def violations(
    cache: Path, files: Mapping[str, Content], *, complete: bool = False, digests: Digests | None = None
) -> list[str]:
    """
    Return what is wrong with a cache into which the model of the shelf was being downloaded; one line each.

    Every blob has the content its name says; every receipt's files are there, with the size and digests it gives; every
    name in the snapshot leads to its own file's content, or nowhere while no receipt names it; every ref names a
    snapshot.

    Args:
        cache: Its folder.
        files: What the model consists of.
        complete: Whether every file and a receipt have to be there too.
        digests: Remembers what has been read.
    """
    known = digests or Digests()
    found = [*_blobs(cache, known), *_receipts(cache, known), *_snapshot(cache, files, known), *_refs(cache)]
    return found + (_missing(cache, files) if complete else [])


def _blobs(cache: Path, known: Digests) -> Iterator[str]:
    for blob in cache.glob("*/hub/*/blobs/*"):
        if not blob.name.startswith(".") and known.of(blob) != blob.name:
            yield f"blob has another content than its name says: {blob.name}, {blob.stat().st_size} bytes"


def _receipts(cache: Path, known: Digests) -> Iterator[str]:
    for path in cache.glob("receipts/*.json"):
        try:
            entries = json.loads(path.read_bytes())["files"]
        except (ValueError, LookupError):
            yield f"receipt cannot be read: {path.name}, {path.stat().st_size} bytes"
            continue
        for entry in entries:
            yield from _receipt_file(cache, entry, known)


def _receipt_file(cache: Path, entry: Mapping[str, Any], known: Digests) -> Iterator[str]:
    for name in ("blob", "link"):
        path = cache / entry[name]
        if not path.exists():
            yield f"receipt names a {name} that is not there: {entry['path']}"
        elif path.stat().st_size != entry["size"] or known.of(path) != entry["digests"]["blake3"]:
            yield f"receipt names a {name} with another content: {entry['path']}"


def _snapshot(cache: Path, files: Mapping[str, Content], known: Digests) -> Iterator[str]:
    folder = snapshot_of(cache)
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or path.name.startswith("."):
            continue
        if name not in files:
            yield f"snapshot has a name of its own: {name}"
        elif path.exists() and known.of(path) != files[name].digest("blake3").value:
            yield f"snapshot leads to another content: {name}"


def _refs(cache: Path) -> Iterator[str]:
    for ref in cache.glob("*/hub/*/refs/*"):
        if not ref.name.startswith(".") and ref.read_bytes() != REVISION.encode():
            yield f"ref names no snapshot: {ref.name} holds {ref.read_bytes()!r}"


def _missing(cache: Path, files: Mapping[str, Content]) -> list[str]:
    folder = snapshot_of(cache)
    absent = [f"not there: {path}" for path in files if not (folder / path).exists()]
    return absent + ([] if any(cache.glob("receipts/*.json")) else ["no receipt"])


def _blake3(path: Path) -> str:
    digest = blake3()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
