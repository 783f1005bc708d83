"""
Names in the cache, version 1::

    <cache path>/
      <root>/                            such as s3/hub; one per kind of source
        <repo>/                          such as models--org--name
          blobs/<name>                   verified bytes, named by content or as the source wants
          snapshots/<snapshot>/<path>    relative link to a blob
          refs/<ref>                     name of the snapshot that a branch or the like resolved to
      receipts/<id>.json                 what a profile or URI consists of, and how it was verified
      manifests/                         parsed forms of manifests
      tmp/                               partials and their journals

Nothing under ``blobs``, ``snapshots`` or ``receipts`` is ever incomplete. Links are relative: the tree may be moved.
Below a ``<root>`` no link is followed while folders are made; the root itself may be one, as an administrator may have
put it on another volume.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from attrs import frozen

from nim_core.errors import CacheError, CachePermissionError, DiskFullError
from nim_core.types import CacheKey, ModelUri, UriStyle, check_relative_path

__all__ = ["Layout", "default_key", "folder_error", "make_folder", "sync_folder"]

_MAX_NAME: Final = 200
_ELSEWHERE: Final = "set NIM_CACHE_PATH (or --model-cache-path) to"


@frozen
class Layout:
    """Paths of one cache; ``path`` is its folder."""

    path: Path

    @property
    def receipts(self) -> Path:
        """Folder of receipts."""
        return self.path / "receipts"

    @property
    def manifests(self) -> Path:
        """Folder of parsed manifests."""
        return self.path / "manifests"

    @property
    def partials(self) -> Path:
        """Folder of partials."""
        return self.path / "tmp"

    def root(self, key: CacheKey) -> Path:
        """Folder of all repositories of a kind of source."""
        return Path(self.path, key.root)

    def repo(self, key: CacheKey) -> Path:
        """Folder of one repository."""
        return Path(self.path, key.root, key.repo)

    def blob(self, key: CacheKey, name: str) -> Path:
        """File of one blob."""
        return Path(self.path, key.root, key.repo, "blobs", name)

    def snapshot(self, key: CacheKey) -> Path:
        """Folder of one snapshot."""
        return Path(self.path, key.root, key.repo, "snapshots", key.snapshot)

    def link(self, key: CacheKey, path: str) -> Path:
        """Place of a file in its snapshot."""
        return Path(self.path, key.root, key.repo, "snapshots", key.snapshot, path)

    def relative(self, path: Path) -> str:
        """Return ``path`` as receipts have it: relative to the cache where it is inside, else absolute."""
        return "." if path == self.path else str(path).removeprefix(f"{str(self.path).rstrip('/')}/")

    def has(self, path: Path, key: CacheKey) -> bool:
        """Whether ``path`` is in the cache, or in the folder that a vendor's own variable has moved elsewhere."""
        return path.is_relative_to(self.path) or path.is_relative_to(self.root(key))

    def unresolved(self, path: Path, key: CacheKey) -> Path:
        """Return ``path``, in which no link is left, by its name in the cache; as it is when it is not in there."""
        if self.has(path, key):
            return path
        for folder in (self.root(key), self.path):
            real = os.path.realpath(folder)
            if path.is_relative_to(real):
                return folder / path.relative_to(real)
        return path


def default_key(uri: ModelUri, pinned: str | None) -> CacheKey:
    """
    Return where files of ``uri`` live when its source does not say otherwise.

    Two places never share a repository: what separates the parts of a name does not occur in them. An object's
    repository is the folder it is in, so that equal names in two folders do not meet.
    """
    refs = (uri.revision,) if pinned and uri.revision and uri.revision != pinned else ()
    return CacheKey(
        root=f"{uri.scheme}/hub",
        repo=_repo_name(_folder_of(uri)),
        snapshot=quote(pinned or uri.revision or "current", safe="+@=~"),
        refs=refs,
    )


def _folder_of(uri: ModelUri) -> str:
    """Return the location that names of files are relative to, without secrets."""
    if uri.style is not UriStyle.OBJECT:
        return uri.location.strip("/")
    bucket, slash, key = uri.display.partition("://")[2].partition("/")
    return bucket + (slash + key).rpartition("/")[0]


def _repo_name(location: str) -> str:
    parts = (re.sub("^-|(?<=-)-|-$", "%2D", quote(part, safe="+@=~")) for part in location.split("/"))
    name = "models--" + "--".join(parts)
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[:_MAX_NAME]}--{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def make_folder(base: Path, relative: str, error: Callable[[OSError, Path], CacheError] | None = None) -> Path:
    """
    Make the folder ``relative`` below ``base``, following no link below ``base``, and return it.

    Where ``base`` is a group's to write and set-group-id, as Kubernetes leaves a volume, what is made is so too.

    Args:
        base: Made too where it is missing.
        relative: Names, with slashes between them; may be empty.
        error: Words the error. None: :func:`folder_error`.

    Raises:
        CachePermissionError: This user may not; the message names user and folder.
        CacheError: Something else is in the way, such as a link or a file.
    """
    if relative:
        check_relative_path(relative)
    handles: list[int] = []
    reached = base
    try:
        _make_base(base)
        handles.append(os.open(base, os.O_DIRECTORY | os.O_CLOEXEC))
        for name in relative.split("/") if relative else ():
            reached /= name
            handles.append(_enter(handles[-1], name))
    except OSError as exc:
        raise (error or folder_error)(exc, reached) from exc
    finally:
        for handle in handles:
            os.close(handle)
    return base / relative


def _enter(parent: int, name: str) -> int:
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.mkdir(name, dir_fd=parent)
            os.fsync(parent)
        made = os.open(name, flags, dir_fd=parent)
        _let_group_write(os.fstat(parent).st_mode, made)
        return made


def _let_group_write(above: int, made: int) -> None:
    """Let the group write a new folder, whatever the umask, where ``above``, its parent's mode, is meant for that."""
    mode = stat.S_IMODE(os.fstat(made).st_mode)
    if above & _FOR_A_GROUP == _FOR_A_GROUP and mode & stat.S_IRWXG == _READ_BY_GROUP:
        with contextlib.suppress(OSError):  # made by another user, or a file system without modes
            os.fchmod(made, mode | stat.S_IWGRP)


def _make_base(base: Path) -> None:
    """Make a folder and those above it that are missing, each of them durable."""
    if not base.parent.is_dir():
        _make_base(base.parent)
    try:
        base.mkdir()
    except OSError:
        if not base.is_dir():
            raise
    else:
        with contextlib.suppress(PermissionError):  # one may be allowed to write a folder, and not to read it
            sync_folder(base.parent)
            with _opened(base) as made:
                _let_group_write(base.parent.stat().st_mode, made)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


_FOR_A_GROUP: Final = stat.S_ISGID | stat.S_IWGRP
_READ_BY_GROUP: Final = stat.S_IRGRP | stat.S_IXGRP

_MEND: Final = {
    True: "mount it read-write (a complete cache needs no writing, with --use-cache)",
    False: "make the folder writable for this user",
}


def folder_error(exc: OSError, path: Path) -> CacheError:
    """Return the error for a folder that cannot be made or written."""
    if exc.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        why = "read-only file system" if exc.errno == errno.EROFS else "permission denied"
        return CachePermissionError(
            f"cannot write the cache as uid {os.getuid()}, gid {os.getgid()}: {path}: {why}",
            hint=f"{_MEND[exc.errno == errno.EROFS]}, or {_ELSEWHERE} one that is writable",
        )
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(
            f"no space left on device: {path}", hint=f"free some space, or {_ELSEWHERE} another volume"
        )
    if exc.errno in {errno.ELOOP, errno.ENOTDIR, errno.EEXIST}:
        return CacheError(f"not a folder of the cache's own: {path}", hint="remove what is there, or use another cache")
    return CacheError(f"cannot use the cache: {path}: {exc.strerror.lower() if exc.strerror else exc}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
