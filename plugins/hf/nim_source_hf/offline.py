"""What a Hub cache has, where no hub may be asked: the listing its client left, else what is in the snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from nim_source_hf.client import Entry
from nim_source_hf.refs import HfRef, commit_of, is_commit

_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)


def cached(root: Path, ref: HfRef) -> tuple[str, list[Entry]] | None:
    """
    Return the commit that a revision was when it was last asked about, and its files, as the Hub would list them.

    Args:
        root: Folder of the cache.
        ref: Model and revision.

    Returns:
        None when the cache does not have the revision. A snapshot without a listing may lack files; nothing tells.
    """
    repo = root / ref.folder
    try:
        commit = ref.revision if is_commit(ref.revision) else commit_of((repo / "refs" / ref.revision).read_text())
    except _UNREADABLE:
        return None
    entries = _listed(repo / "trees" / f"{commit}.json") or list(_present(repo / "snapshots" / commit))
    return (commit, entries) if entries else None


def _listed(tree: Path) -> list[Entry]:
    """Return what the client's copy of a listing has; nothing when there is none of a version known here."""
    try:
        body = json.loads(tree.read_bytes())
        files = body["files"].items() if body["format_version"] == 1 else ()
        return [_entry(path, file.get("lfs_sha256") or file["blob_id"], file["size"]) for path, file in files]
    except _UNREADABLE:
        return []


def _present(snapshot: Path) -> Iterator[Entry]:
    """Yield the files of a snapshot that are links: what they lead to is named by its digest."""
    for path in sorted(snapshot.rglob("*")):
        if path.is_symlink() and path.is_file():
            yield _entry(path.relative_to(snapshot).as_posix(), path.readlink().name, path.stat().st_size)


def _entry(path: str, digest: str, size: int) -> Entry:
    entry = {"type": "file", "path": path, "size": size, "oid": digest}
    return {**entry, "lfs": {"oid": digest, "size": size}} if len(digest) == 64 else entry
