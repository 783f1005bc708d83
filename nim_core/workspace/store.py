"""
Model stores: a model as a folder of plain files that needs no cache, to be served from, copied or shipped.

::

    <store>/
      config.json, model-00001-of-00002.safetensors, ...   the files, folders kept
      checksums.blake3                                     "<hex>  <path>" for each; without it a store is not complete

A store is made in a folder ``.model-store.<random>`` beside it, which is owned while it is worked in. Every file is
read there and compared with the digest it had when it was fetched, and everything is brought to the disk. Then it gets
its name in one step. A folder that is there already, such as the mount point of a volume, is kept with its owner and
mode: the files are made in a hidden folder within it and moved one by one, ``config.json`` among the last,
``checksums.blake3`` after all others. So whatever ends a run, what looks complete is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from nim_core.cache.layout import make_folder, sync_folder
from nim_core.cache.names import Namer, Way
from nim_core.cache.space import device_need
from nim_core.cache.store import make_durable
from nim_core.errors import CacheError, DigestMismatchError, DiskFullError
from nim_core.plan import Present
from nim_core.transfer.digests import CONTENT_ALGORITHM
from nim_core.transfer.locking import clock
from nim_core.transfer.ownership import give_up, owned, remove_gone
from nim_core.transfer.streams import digest_file
from nim_core.transfer.workers import available_cores, map_threads
from nim_core.types import Digest, check_relative_path
from nim_core.workspace.places import Made, bytes_of, place_error, total_bytes, ways_to_share

__all__ = ["CHECKSUMS", "listed_checksums", "make_store"]

CHECKSUMS: Final = "checksums.blake3"

_STAGING: Final = ".model-store"
_UNFINISHED_SECONDS: Final = 60.0
_SHOWN: Final = 20
_LAST: Final = ("config.json", "model_index.json", "params.json")
"""What engines tell a model by: moved after the other files."""


@frozen(kw_only=True)
class _Wish:
    """
    What is to be made.

    Attributes:
        files: Where each file is, by path inside the store.
        folder: The store.
        cache: Folder of the cache. Neither has a link in its path.
        share: Whether hard links may be made.
        trust: Whether sizes are enough to recognise a store that is complete.
    """

    files: Mapping[str, Present]
    folder: Path
    cache: Path
    share: bool
    trust: bool


def make_store(
    files: Mapping[str, Present], folder: Path, cache_path: Path, *, share: bool = True, trust: bool = False
) -> Made:
    """
    Make a model store, or recognise that it is there.

    Args:
        files: Where each file is, by path inside the store. A list of checksums among them is replaced by the store's.
        folder: The store: not there yet, empty, or begun by an earlier run for the same files.
        cache_path: Folder of the cache.
        share: Whether large files of the cache may be hard-linked where they cannot be reflinked.
        trust: Whether a store that is there is recognised by its list and its sizes, instead of reading it.

    Raises:
        DigestMismatchError: A file is not what was fetched; the message lists them.
        DiskFullError: What has to be copied does not fit.
        CachePermissionError: This user may not read the cache, or write there.
        CacheError: The folder holds something else, or storage refuses otherwise.
    """
    for path in files:
        check_relative_path(path)
    wish = _Wish(
        files={path: file for path, file in files.items() if path != CHECKSUMS},
        folder=Path(os.path.realpath(folder)),
        cache=Path(os.path.realpath(cache_path)),
        share=share,
        trust=trust,
    )
    try:
        return _complete(wish) if wish.folder.exists() else _new(wish)
    except OSError as exc:
        raise place_error(exc, wish.folder) from exc


def _new(wish: _Wish) -> Made:
    """Make a store where there is nothing; it appears in one step."""
    parent = make_folder(wish.folder.parent, "", place_error)
    _tidy(parent)
    with _staging(parent) as staging:
        ways, sums = _build(staging / "files", wish.files, share=wish.share)
        _write_sums(staging / "files", sums)
        try:
            (staging / "files").rename(wish.folder)
        except OSError as exc:
            if exc.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise
        else:
            _sync(parent)
            return _made(wish, ways)
    return _complete(wish)


def _complete(wish: _Wish) -> Made:
    """Add what a folder lacks; nothing where it is complete."""
    _tidy(wish.folder.parent)
    _tidy(wish.folder)
    found = _already(wish)
    if found.complete:
        return _made(wish, Counter())
    missing = {path: file for path, file in wish.files.items() if path not in found.sums}
    with _staging(wish.folder) as staging:
        ways, sums = _build(staging / "files", missing, share=wish.share)
        _write_sums(staging / "files", {**found.sums, **sums})
        _move(staging / "files", wish.folder, missing)
    return _made(wish, ways)


def _made(wish: _Wish, ways: Counter[Way]) -> Made:
    files = wish.files
    kept = len(files) - ways.total()
    return Made(folder=wish.folder, files=len(files), bytes=total_bytes(files), ways=ways, kept=kept)


# ---------------------------------------------------------------------------------------------------- where it is made
@contextlib.contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """Make a hidden folder that no other run touches, gone afterwards."""
    staging = root / f"{_STAGING}.{secrets.token_hex(8)}"
    owner = owned(staging)
    try:
        yield staging
    finally:
        give_up(staging, owner)


def _tidy(root: Path) -> None:
    """Remove what killed runs left."""
    for path in root.glob(f"{_STAGING}.*"):
        with contextlib.suppress(OSError):  # its owner lives, or another run was faster
            remove_gone(path)
    for path in root.glob(f".{_STAGING}.*"):
        with contextlib.suppress(OSError):
            if clock(root) - path.lstat().st_mtime > _UNFINISHED_SECONDS:
                shutil.rmtree(path)


def _move(made: Path, folder: Path, paths: Iterable[str]) -> None:
    """Give files their places in a folder that is there; what says that all are there comes last."""
    ordered = sorted(paths, key=lambda path: (path.rpartition("/")[2] in _LAST, path))
    for path in ordered:
        make_folder(folder, path.rpartition("/")[0], place_error)
        (made / path).rename(folder / path)
    for parent in {(folder / path).parent for path in ordered}:
        _sync(parent)
    (made / CHECKSUMS).rename(folder / CHECKSUMS)
    _sync(folder)


def _sync(folder: Path) -> None:
    with contextlib.suppress(PermissionError):  # one may be allowed to write a folder, and not to read it
        sync_folder(folder)


# ------------------------------------------------------------------------------------------------------- what it holds
def _build(into: Path, files: Mapping[str, Present], *, share: bool) -> tuple[Counter[Way], dict[str, str]]:
    """Make files, verified and durable; return how they were made, and their checksums."""
    into.mkdir()
    namer = Namer(durable=False)
    for relative in dict.fromkeys(path.rpartition("/")[0] for path in files):
        make_folder(into, relative, place_error)
    ways = {path: _shared(into / path, file, namer, share=share) for path, file in files.items()}
    rest = [path for path, way in ways.items() if way is None]
    _check_space(into, [files[path] for path in rest])
    for path in rest:
        ways[path] = namer.make(into / path, "", bytes_of(files[path]), ("copy",))
    sums = _verified(into, files)
    make_durable([into / path for path in files])
    for folder in {parent for path in files for parent in (into / path).parents if parent.is_relative_to(into)}:
        sync_folder(folder)
    return Counter(way for way in ways.values() if way is not None), sums


def _shared(name: Path, file: Present, namer: Namer, *, share: bool) -> Way | None:
    return namer.make(name, "", bytes_of(file), ways_to_share(file, share=share))


def _check_space(folder: Path, files: Sequence[Present]) -> None:
    error = device_need(folder, [file.size for file in files], ours=False).error
    if error is not None:
        raise DiskFullError(error.message, hint="free some space there, or name a folder on another volume")


def _verified(into: Path, files: Mapping[str, Present]) -> dict[str, str]:
    """Read files and return their checksums. Raises DigestMismatchError."""
    found = _read_all(into, files)
    damaged = [path for path, file in files.items() if not _is_what_was_fetched(found[path], file)]
    if damaged:
        listed = "".join(f"\n  {path}: got {found[path][0]}" for path in damaged[:_SHOWN])
        raise DigestMismatchError(
            f"{len(damaged)} damaged file{'' if len(damaged) == 1 else 's'} in the cache{listed}",
            hint="download-to-cache --verify fetches them again",
        )
    return {path: next(it.value for it in found[path] if it.algorithm == CONTENT_ALGORITHM) for path in files}


def _read_all(folder: Path, files: Mapping[str, Present]) -> dict[str, tuple[Digest, ...]]:
    """Read files beneath ``folder`` and return their digests."""
    paths = sorted(files, key=lambda path: -files[path].size)
    read = partial(_digests, folder, files)
    return dict(zip(paths, map_threads("nim-verify", read, paths, available_cores()), strict=True))


def _digests(folder: Path, files: Mapping[str, Present], path: str) -> tuple[Digest, ...]:
    return digest_file(folder / path, _expected(files[path]), lambda: False)[1]


def _expected(file: Present) -> tuple[Digest, ...]:
    """Return what a file is recognised by: the digest that names blobs where it is known, else all that are."""
    return tuple(digest for digest in file.digests if digest.algorithm == CONTENT_ALGORITHM) or file.digests


def _is_what_was_fetched(found: tuple[Digest, ...], file: Present) -> bool:
    computed = {digest.algorithm: digest for digest in found}
    return all(computed.get(digest.algorithm, digest) == digest for digest in _expected(file))


def _write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    (folder / CHECKSUMS).write_text(_as_text(sums), encoding="utf-8")
    make_durable([folder / CHECKSUMS])
    sync_folder(folder)


def _as_text(sums: Mapping[str, str]) -> str:
    """Return checksums as ``b3sum --check`` reads them."""
    return "".join(f"{sums[path]}  {path}\n" for path in sorted(sums))


# ---------------------------------------------------------------------------------------------- what is there already
@frozen(kw_only=True)
class _Found:
    """Files of the store that are there and right, with their checksums; ``complete`` when it lacks nothing."""

    sums: Mapping[str, str]
    complete: bool = False


def _already(wish: _Wish) -> _Found:
    """Look at a folder that is there. Raises CacheError when it holds something else."""
    listed = listed_checksums(wish.folder)
    there = [path for path in wish.files if os.path.lexists(wish.folder / path)]
    right = _right(wish, listed, there)
    complete = right.keys() == wish.files.keys() and right == listed
    problems = {path: "has another content" for path in there if path not in right}
    if not complete and not wish.cache.is_relative_to(wish.folder):
        known = {*wish.files, CHECKSUMS}
        problems |= {path: "is not of this model" for path in sorted(_everything(wish.folder)) if path not in known}
    if problems:
        shown = "".join(f"\n  {path}: {why}" for path, why in list(problems.items())[:_SHOWN])
        raise CacheError(
            f"folder holds something else than a store of this model: {wish.folder}{shown}",
            hint="name a new or empty folder, or remove what is there",
        )
    return _Found(sums=right, complete=complete)


def listed_checksums(folder: Path) -> dict[str, str]:
    """Return what a store says of itself; empty when it does not."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    pairs = (line.partition("  ") for line in lines)
    return {path: value for value, _, path in pairs}


def _right(wish: _Wish, listed: Mapping[str, str], there: Iterable[str]) -> dict[str, str]:
    """Return the checksums of files that are there and right."""
    plain = {path: wish.files[path] for path in there if _is_plain(wish.folder / path, wish.files[path])}
    trusted = {path: listed[path] for path, file in plain.items() if wish.trust and _vouched(path, file, listed)}
    rest = {path: file for path, file in plain.items() if path not in trusted}
    found, sources = _read_all(wish.folder, rest), _unknown(rest)
    return trusted | {
        path: next(it.value for it in found[path] if it.algorithm == CONTENT_ALGORITHM)
        for path in rest
        if _is_what_was_fetched(found[path], sources[path])
    }


def _unknown(files: Mapping[str, Present]) -> dict[str, Present]:
    """Return files with digests; those of files used from where they are may not be known yet."""
    return {
        path: file if file.digests else evolve(file, digests=digest_file(bytes_of(file), (), lambda: False)[1])
        for path, file in files.items()
    }


def _is_plain(path: Path, file: Present) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == file.size


def _vouched(path: str, file: Present, listed: Mapping[str, str]) -> bool:
    return f"{CONTENT_ALGORITHM}:{listed.get(path)}" in map(str, file.digests)


def _everything(folder: Path) -> Iterator[str]:
    """Yield the paths of all files and links, but for what runs leave behind and file systems have of their own."""
    for root, folders, names in os.walk(folder):
        if Path(root) == folder:
            folders[:] = [it for it in folders if it != "lost+found" and not it.startswith((_STAGING, f".{_STAGING}"))]
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in (*names, *links):
            yield (Path(root) / name).relative_to(folder).as_posix()
