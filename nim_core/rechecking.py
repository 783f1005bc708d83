"""Whether cached files are still what was verified when they were fetched: every byte is read, without a network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from attrs import field, frozen
from blake3 import blake3

from nim_core.cache.index import ReceiptIndex
from nim_core.cache.layout import Layout
from nim_core.cache.receipts import ReceiptFile
from nim_core.errors import DigestMismatchError
from nim_core.plan import Present, Target, Wanted
from nim_core.transfer.digests import CONTENT_ALGORITHM
from nim_core.transfer.storage import storage_error
from nim_core.transfer.workers import map_threads
from nim_core.types import Digest, ModelUri

__all__ = ["Damage", "Rechecked", "damage_error", "recheck", "remove_from_view"]

_READ_BYTES: Final = 4 << 20


@frozen(kw_only=True)
class Damage:
    """
    A cached file that is not what was verified any more.

    Attributes:
        path: Path inside the workspace.
        reason: What is wrong with it.
        names: Its names in the cache that lead to what was read, with what tells those bytes from others.
    """

    path: str
    reason: str
    names: tuple[tuple[Path, tuple[int, int]], ...] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@frozen(kw_only=True)
class Rechecked:
    """Files that are right, and those that are not; files that are not there are in neither."""

    right: dict[ModelUri, Present]
    damaged: tuple[Damage, ...]


@frozen(kw_only=True)
class _Cached:
    """A file of a receipt, and its names that are there: its place in the snapshot, its blob."""

    wanted: Wanted
    file: ReceiptFile
    digest: Digest
    names: tuple[Path, ...]
    bytes_of: tuple[tuple[int, int], ...]


def recheck(targets: Iterable[Target], index: ReceiptIndex, layout: Layout) -> Rechecked:
    """
    Read all files of ``targets`` that are in the cache, on as many threads as there are cores.

    Raises:
        CacheError: This user may not read them.
    """
    wanted = dict.fromkeys((target.id, item) for target in targets for item in target.files)
    found = [(item, _cached(item, target_id, index, layout)) for target_id, item in wanted]
    cached = [item for _, item in found if item is not None]
    results = _read_all(cached)
    right: dict[ModelUri, Present] = {}
    doubtful: set[ModelUri] = set()
    for item, here in found:
        present = None if here is None or _reason(here, results) else index.present(item, here.file)
        if present is None:
            doubtful.add(item.uri)
        else:
            right[item.uri] = present
    return Rechecked(
        right={uri: present for uri, present in right.items() if uri not in doubtful},
        damaged=tuple(dict.fromkeys(_damage(item, reason) for item in cached if (reason := _reason(item, results)))),
    )


def _damage(item: _Cached, reason: str) -> Damage:
    return Damage(path=item.wanted.path, reason=reason, names=tuple(zip(item.names, item.bytes_of, strict=True)))


def _cached(wanted: Wanted, target_id: str, index: ReceiptIndex, layout: Layout) -> _Cached | None:
    """Return what the cache has of a file. None for one that it does not have, or that it only leads to."""
    file = index.find(wanted, target_id)
    if file is None or file.link is None:
        return None
    digest = next((digest for digest in file.digests if digest.algorithm == CONTENT_ALGORITHM), None)
    names = [layout.path / name for name in (file.link, file.blob)]
    there = [(name, stat) for name in names if (stat := _stat(name)) is not None]
    if digest is None or len(there) < len(names):
        return None
    return _Cached(
        wanted=wanted,
        file=file,
        digest=digest,
        names=tuple(name for name, _ in there),
        bytes_of=tuple((stat.st_dev, stat.st_ino) for _, stat in there),
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise storage_error(exc, path) from exc


def _read_all(cached: Sequence[_Cached]) -> dict[tuple[int, int], Digest | OSError]:
    """Read each file once, however many names and targets it has, the largest first."""
    paths = {key: name for item in cached for name, key in zip(item.names, item.bytes_of, strict=True)}
    sizes = {key: item.file.size for item in cached for key in item.bytes_of}
    order = sorted(paths, key=lambda key: -sizes[key])
    cores = os.cpu_count() or 1
    threads = max(1, cores // max(1, len(order)))
    results = map_threads("nim-verify", partial(_digest, threads=threads), [paths[key] for key in order], cores)
    return dict(zip(order, results, strict=True))


def _digest(path: Path, threads: int) -> Digest | OSError:
    digest = blake3(max_threads=threads)
    buffer = memoryview(bytearray(_READ_BYTES))
    try:
        with path.open("rb", buffering=0) as source:
            while count := source.readinto(buffer):
                digest.update(buffer[:count])
    except PermissionError as exc:
        raise storage_error(exc, path) from exc
    except OSError as exc:
        return exc
    return Digest(CONTENT_ALGORITHM, digest.hexdigest())


def _reason(item: _Cached, results: dict[tuple[int, int], Digest | OSError]) -> str:
    """Return what is wrong with a file. Empty when nothing is."""
    for key in item.bytes_of:
        result = results[key]
        if isinstance(result, OSError):
            return f"cannot be read: {(result.strerror or type(result).__name__).lower()}"
        if result != item.digest:
            return f"got {result}, expected {item.digest}"
    return ""


def remove_from_view(damaged: Iterable[Damage]) -> None:
    """
    Remove the names of damaged files, unless another process has put other bytes there meanwhile.

    Raises:
        DigestMismatchError: They cannot be removed; the message lists all of them.
    """
    damaged = tuple(damaged)
    for name, key in dict.fromkeys(pair for damage in damaged for pair in damage.names):
        try:
            with contextlib.suppress(FileNotFoundError):
                stat = name.stat()
                if (stat.st_dev, stat.st_ino) == key:
                    name.unlink()
        except OSError as exc:
            hint = "make the cache writable and run the same command again: it fetches these files anew"
            raise damage_error(damaged, f"cannot be removed: {(exc.strerror or str(exc)).lower()}", hint) from exc


def damage_error(damaged: Sequence[Damage], why: str, hint: str | None) -> DigestMismatchError:
    """Return the error that lists damaged files, and says why they are not replaced."""
    count = f"{len(damaged)} damaged file{'' if len(damaged) == 1 else 's'} in the cache"
    return DigestMismatchError("\n".join([f"{count}, {why}", *(f"  {damage}" for damage in damaged)]), hint=hint)
