"""
Making verified files visible.

Order, for a batch of files: data durable, renamed to their blobs, the folder durable, links in the snapshots. Whoever
sees a name therefore sees verified bytes, after a crash too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from attrs import frozen

from nim_core.cache.layout import Layout, folder_error, make_folder, sync_folder
from nim_core.cache.names import Namer
from nim_core.errors import CacheError
from nim_core.plan import Fetch
from nim_core.transfer.digests import CONTENT_ALGORITHM
from nim_core.transfer.jobs import Verified
from nim_core.transfer.storage import storage_error
from nim_core.types import CacheKey

__all__ = ["Store", "Stored", "make_durable", "replace"]

T = TypeVar("T")

_WORTH_A_FLUSH: Final = 8
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@frozen(kw_only=True)
class Stored:
    """Where a file is now: its bytes, and its place in a snapshot."""

    fetch: Fetch
    verified: Verified
    blob: Path
    link: Path | None


class _Folders:
    """
    The folders of one batch: each is made once, and the way from one to another found once.

    Args:
        layout: The cache.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._made: dict[tuple[str, str], Path] = {}
        self._ways: dict[tuple[str, str], str] = {}
        self._devices: dict[Path, int] = {}

    def make(self, key: CacheKey, relative: str) -> Path:
        """Make a folder below the root of ``key`` as :func:`~nim_core.cache.layout.make_folder` does."""
        name = key.root, relative
        if name not in self._made:
            self._made[name] = make_folder(self._layout.root(key), relative)
        return self._made[name]

    def device(self, folder: Path) -> int:
        """Return the number of a folder's file system."""
        if folder not in self._devices:
            self._devices[folder] = folder.stat().st_dev
        return self._devices[folder]

    def way(self, start: str, end: str) -> str:
        """Return the relative path of ``end`` as seen from ``start``."""
        if (start, end) not in self._ways:
            self._ways[start, end] = os.path.relpath(end, start)
        return self._ways[start, end]


class Store:
    """Puts verified files into a cache."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._namer = Namer()

    def publish(self, batch: Iterable[tuple[Fetch, Verified]]) -> list[Stored]:
        """
        Make a batch of files visible.

        Raises:
            CacheError: In its most fitting subclass; files of the batch not visible yet stay invisible.
        """
        try:
            files, folders = list(batch), _Folders(self._layout)
            make_durable([verified.path for _, verified in files if not verified.outside])
            moved = [self._store(fetch, verified, folders) for fetch, verified in files]
            inside = [stored for stored in moved if stored.link is not None]
            for folder in {stored.blob.parent for stored in inside}:
                sync_folder(folder)
            links = [self._link(stored.fetch, stored.blob, folders) for stored in inside]
            for folder in {link.parent for link in links if link is not None}:
                sync_folder(folder)
        except OSError as exc:
            raise storage_error(exc, self._layout.path) from exc
        return moved

    def link(self, fetch: Fetch, blob: Path) -> Path | None:
        """Make the snapshot's name of a file lead to ``blob``, and its refs to the snapshot. None outside the cache."""
        return self._link(fetch, blob, _Folders(self._layout))

    def place(self, fetch: Fetch, blob: Path) -> Path | None:
        """Return the snapshot's name of a file, which :meth:`link` would make lead to ``blob``."""
        return self._link_path(fetch) if self._layout.has(blob, fetch.key) else None

    def _link(self, fetch: Fetch, blob: Path, folders: _Folders) -> Path | None:
        if not self._layout.has(blob, fetch.key):
            return None
        place, _, name = f"{fetch.key.repo}/snapshots/{fetch.key.snapshot}/{fetch.file.path}".rpartition("/")
        folder = folders.make(fetch.key, place)
        link = folder / name
        blobs, _, blob_name = str(blob).rpartition("/")
        target = f"{folders.way(str(folder), blobs)}/{blob_name}"
        linked = self._namer.has_symlinks(folders.device(folder)) and _linked(link, target)
        if not linked and not _leads_to(link, target, blob):
            replace(folder, name, partial(self._namer.make, target=target, blob=blob))
        for ref in fetch.key.refs:
            self._point(fetch, ref)
        return link

    def _link_path(self, fetch: Fetch) -> Path:
        return self._layout.link(fetch.key, fetch.file.path)

    def _store(self, fetch: Fetch, verified: Verified, folders: _Folders) -> Stored:
        if verified.outside:
            return Stored(fetch=fetch, verified=verified, blob=verified.path, link=None)
        folder = folders.make(fetch.key, f"{fetch.key.repo}/blobs")
        blob = folder / (fetch.file.blob_name or _content_name(verified))
        if blob.name in {digest.value for digest in verified.digests}:
            _keep_time(verified, blob)
        _move(verified.path, blob)
        return Stored(fetch=fetch, verified=verified, blob=blob, link=self._link_path(fetch))

    def _point(self, fetch: Fetch, ref: str) -> None:
        """Write a ref as hub clients read it: the snapshot's name without a line end."""
        repo = self._layout.repo(fetch.key)
        path, content = repo / "refs" / ref, fetch.key.snapshot.encode()
        with contextlib.suppress(OSError):
            if path.read_bytes() == content:
                return
        folder = make_folder(self._layout.root(fetch.key), f"{fetch.key.repo}/{path.parent.relative_to(repo)}")
        replace(folder, path.name, partial(_durable_write, content))


def make_durable(paths: Sequence[Path]) -> None:
    """
    Bring files to the disk; many of them by one flush of their file system, which costs little more than for one.

    Raises:
        OSError: The disk does not take them.
    """
    if len(paths) < _WORTH_A_FLUSH:
        for path in paths:
            _sync_file(path)
        return
    for folder in {path.parent for path in paths}:
        _flush(folder)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _LIBC.syncfs(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(handle)


def _content_name(verified: Verified) -> str:
    for digest in verified.digests:
        if digest.algorithm == CONTENT_ALGORITHM:
            return digest.value
    raise CacheError(f"no content digest for: {verified.job.identity.display}")


def _keep_time(verified: Verified, blob: Path) -> None:
    """Give a file the time of the same content that it replaces: other files' receipts know that content by it."""
    with contextlib.suppress(OSError):
        stat = blob.stat()
        if stat.st_size == verified.size:
            os.utime(verified.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _move(path: Path, blob: Path) -> None:
    """Rename a file; where blobs are on another volume than partials, by way of a copy beside its place."""
    try:
        path.rename(blob)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        replace(blob.parent, blob.name, partial(_durable_copy, path))
        path.unlink()


def _durable_write(content: bytes, temporary: Path) -> None:
    temporary.write_bytes(content)
    _sync_file(temporary)


def _durable_copy(path: Path, temporary: Path) -> None:
    shutil.copy2(path, temporary)
    _sync_file(temporary)


def _linked(link: Path, target: str) -> bool:
    """Make a link where there is nothing yet, and say whether that could be done; it appears in one step."""
    try:
        link.symlink_to(target)
    except OSError:
        return False
    return True


def _leads_to(link: Path, target: str, blob: Path) -> bool:
    """
    Whether a link is right: the one that would be made, or a relative one that gets there by way of others.

    Vendors' clients may keep blobs elsewhere in their cache, with links in their place. What is no link, as where there
    are none, has to be the blob itself.
    """
    try:
        if not link.is_symlink():
            return link.samefile(blob)
        text = str(link.readlink())
        by_others = not text.startswith("/") and os.path.realpath(link) == os.path.realpath(blob)
        return link.exists() and (text == target or by_others)
    except OSError:
        return False


def replace(
    folder: Path,
    name: str,
    make: Callable[[Path], T],
    error: Callable[[OSError, Path], CacheError] = folder_error,
) -> T:
    """
    Put what ``make`` makes at ``name``, replacing what was there in one step, and return what ``make`` returned.

    Raises:
        CacheError: That is not possible; ``error`` words it.
    """
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        made = make(temporary)
        temporary.rename(folder / name)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise error(exc, folder / name) from exc
    return made


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
