"""
Making verified files visible.

Order, for a batch of files: data durable, renamed to their blobs, the folder durable, links in the snapshots. Whoever
sees a name therefore sees verified bytes, after a crash too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.cache.layout import Layout, folder_error, make_folder
from nim_core.errors import CacheError
from nim_core.plan import Fetch
from nim_core.transfer.digests import CONTENT_ALGORITHM
from nim_core.transfer.jobs import Verified
from nim_core.transfer.storage import storage_error

__all__ = ["Store", "Stored"]

_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


@frozen(kw_only=True)
class Stored:
    """Where a file is now: its bytes, and its place in a snapshot."""

    fetch: Fetch
    verified: Verified
    blob: Path
    link: Path | None


class Store:
    """Puts verified files into a cache."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def publish(self, batch: Iterable[tuple[Fetch, Verified]]) -> list[Stored]:
        """
        Make a batch of files visible.

        Raises:
            CacheError: In its most fitting subclass; files of the batch not visible yet stay invisible.
        """
        try:
            moved = [self._store(fetch, verified) for fetch, verified in batch]
            for folder in {stored.blob.parent for stored in moved if stored.link is not None}:
                _sync_folder(folder)
            for stored in moved:
                self.link(stored.fetch, stored.blob)
        except OSError as exc:
            raise storage_error(exc, self._layout.path) from exc
        return moved

    def link(self, fetch: Fetch, blob: Path) -> Path | None:
        """Make the snapshot's name of a file lead to ``blob``, and its refs to the snapshot. None outside the cache."""
        if not blob.is_relative_to(self._layout.path) and blob.parent != self._layout.blob(fetch.key, "x").parent:
            return None
        name = fetch.file.path.rpartition("/")[2]
        link = self._link_path(fetch)
        folder = make_folder(self._layout.root(fetch.key), str(link.parent.relative_to(self._layout.root(fetch.key))))
        target = os.path.relpath(blob, folder)
        if not _leads_to(link, target):
            _replace(folder, name, target, blob)
        for ref in fetch.key.refs:
            self._point(fetch, ref)
        return link

    def _link_path(self, fetch: Fetch) -> Path:
        return self._layout.snapshot(fetch.key) / fetch.file.path

    def _store(self, fetch: Fetch, verified: Verified) -> Stored:
        if verified.outside:
            return Stored(fetch=fetch, verified=verified, blob=verified.path, link=None)
        folder = make_folder(self._layout.root(fetch.key), f"{fetch.key.repo}/blobs")
        blob = folder / (fetch.file.blob_name or _content_name(verified))
        _sync_file(verified.path)
        verified.path.rename(blob)
        return Stored(fetch=fetch, verified=verified, blob=blob, link=self._link_path(fetch))

    def _point(self, fetch: Fetch, ref: str) -> None:
        """Write a ref as hub clients read it: the snapshot's name without a line end."""
        repo = self._layout.repo(fetch.key)
        path = repo / "refs" / ref
        with contextlib.suppress(OSError):
            if path.read_text() == fetch.key.snapshot:
                return
        make_folder(self._layout.root(fetch.key), f"{fetch.key.repo}/{path.parent.relative_to(repo)}")
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        temporary.write_text(fetch.key.snapshot)
        temporary.rename(path)


def _content_name(verified: Verified) -> str:
    for digest in verified.digests:
        if digest.algorithm == CONTENT_ALGORITHM:
            return digest.value
    raise CacheError(f"no content digest for: {verified.job.identity.display}")


def _leads_to(link: Path, target: str) -> bool:
    try:
        return str(link.readlink()) == target and link.exists()
    except OSError:
        return False


def _replace(folder: Path, name: str, target: str, blob: Path) -> None:
    """Put a link at ``name``, replacing what was there in one step; without links, the file itself."""
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        _link_or_copy(temporary, target, blob)
        temporary.rename(folder / name)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise folder_error(exc, folder / name) from exc


def _link_or_copy(temporary: Path, target: str, blob: Path) -> None:
    try:
        temporary.symlink_to(target)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        try:
            temporary.hardlink_to(blob)
        except OSError:
            shutil.copyfile(blob, temporary)


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
