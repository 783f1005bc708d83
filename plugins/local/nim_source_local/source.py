"""Folders and files on this machine."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nim_core.errors import NotFoundError, SourceError, UnsupportedError
from nim_core.types import Listing, LocalObject, ModelUri, RemoteFile, SourceContext
from nim_source_local.errors import broken_links, explained, missing, unreadable
from nim_source_local.refs import path_of

SKIPPED_NAMES: Final = frozenset({".git"})
_LEADS_NOWHERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class LocalSource:
    """
    The source behind ``local://``.

    A folder is listed with all regular files below it, hidden ones too, sorted by path. Links are followed, as
    snapshot folders of model caches consist of them. Version control folders (``.git``), sockets, pipes and devices
    are passed over. Files carry no digests: whoever can write the folder could write those as well.
    """

    def __init__(self, context: SourceContext) -> None:
        """Take nothing from the context: there is no network and no setting here."""

    def list_files(self, uri: ModelUri) -> Listing:
        """
        List the folder, or the one file, that ``uri`` names.

        Raises:
            NotFoundError: The path is missing, has no file below it, or has links that lead nowhere.
            PermissionDeniedError: A folder or file cannot be read by this user.
            InvalidUriError: The path is relative, or a file has a name that is not safe to create elsewhere.
            SourceError: Links form a loop, or the path is neither a file nor a folder.
        """
        root = path_of(uri)
        with explained(uri, root):
            found = [(root.name, root)] if root.is_file() else sorted(_below(uri, root))
            sizes = {name: path.stat().st_size for name, path in found}
            for _, path in found:
                if not os.access(path, os.R_OK, effective_ids=True):
                    raise unreadable(uri, path)
        if not found:
            raise NotFoundError(f"no files in folder: {root}", uri=str(uri))
        return Listing(uri=uri, files=tuple(RemoteFile(path=name, size=size) for name, size in sizes.items()))

    def locate(self, uri: ModelUri, file: RemoteFile) -> LocalObject:
        """Return the path of ``file``, links in it left as they are. Raises NotFoundError when it has gone."""
        root = path_of(uri)
        with explained(uri, root):
            path = root if root.is_file() else root / file.path
            if not path.exists():
                raise missing(uri, path)
        return LocalObject(path=path)

    def close(self) -> None:
        """Nothing is held open."""


def _below(uri: ModelUri, root: Path) -> list[tuple[str, Path]]:
    if not stat.S_ISDIR(root.stat().st_mode):
        raise UnsupportedError(f"neither a file nor a folder: {root}", uri=str(uri))
    broken: list[Path] = []
    found = [(path.relative_to(root).as_posix(), path) for path in _walk(uri, root, frozenset(), broken)]
    if broken:
        raise broken_links(uri, sorted(broken))
    return found


def _walk(uri: ModelUri, folder: Path, above: frozenset[tuple[int, int]], broken: list[Path]) -> Iterator[Path]:
    """Yield the regular files below ``folder``; ``above`` identifies the folders on the way to it."""
    info = folder.stat()
    identity = (info.st_dev, info.st_ino)
    if identity in above:
        raise SourceError(f"link leads back to a folder it is in: {folder}", uri=str(uri))
    for path in folder.iterdir():
        if path.name in SKIPPED_NAMES:
            continue
        mode = _mode(path)
        if mode is None:
            broken.append(path)
        elif stat.S_ISDIR(mode):
            yield from _walk(uri, path, above | {identity}, broken)
        elif stat.S_ISREG(mode):
            yield path


def _mode(path: Path) -> int | None:
    """Return the mode of what ``path`` leads to. None for a link that leads nowhere."""
    try:
        return path.stat().st_mode
    except OSError as exc:
        if exc.errno in _LEADS_NOWHERE and path.is_symlink():
            return None
        raise
