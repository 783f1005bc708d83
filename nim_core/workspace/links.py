"""
Workspaces: a folder in which an engine finds a model's files by their names, as links into the cache.

A link costs nothing, so there is never a second copy, except where a file system has neither links nor shared blocks. A
link within the cache is relative, as the cache may be moved; any other is absolute. A hidden file lists the names that
were made here: those alone are removed again when the model does not have them any more.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from nim_core.cache.layout import make_folder
from nim_core.cache.names import Namer, Way
from nim_core.cache.store import replace
from nim_core.errors import CacheError, InvalidUriError
from nim_core.plan import Present
from nim_core.types import check_relative_path
from nim_core.workspace.places import Made, bytes_of, place_error, real_folder, total_bytes

__all__ = ["RECORD", "make_workspace"]

RECORD: Final = ".nim-workspace"
_SHOWN: Final = 20


def make_workspace(files: Mapping[str, Present], folder: Path, cache_path: Path) -> Made:
    """
    Have ``folder`` show ``files``; what is there and right stays, and so do files of the user's own.

    Args:
        files: Where each file is, by path inside the workspace.
        folder: The workspace, made where it is missing.
        cache_path: Folder of the cache.

    Raises:
        CacheError: A name is taken by something that was not made here; the message lists them.
        CachePermissionError: This user may not write there.
    """
    for path in (*files, RECORD):
        check_relative_path(path)
    base, cache = real_folder(folder), Path(os.path.realpath(cache_path))
    ours = _recorded(base)
    wanted = {path: file for path, file in files.items() if not _is_right(base / path, file)}
    _refuse_taken(base, [path for path in wanted if not _is_free(base / path, path in ours, cache)])
    _record(base, ours | set(files))
    namer = Namer()
    ways = Counter(_name(base, path, file, cache, namer) for path, file in wanted.items())
    for path in ours - set(files):
        _remove(base, path)
    _record(base, set(files))
    return Made(folder=base, files=len(files), bytes=total_bytes(files), ways=ways, kept=len(files) - len(wanted))


def _name(base: Path, path: str, file: Present, cache: Path, namer: Namer) -> Way:
    folder = make_folder(base, path.rpartition("/")[0], place_error)
    blob = bytes_of(file)
    within = folder.is_relative_to(cache) and blob.is_relative_to(cache)
    target = os.path.relpath(blob, folder) if within else str(file.blob.absolute())
    way = replace(folder, Path(path).name, partial(namer.make, target=target, blob=blob), place_error)
    assert way is not None
    return way


def _is_right(name: Path, file: Present) -> bool:
    """Whether a name leads to a file's bytes; of a copy, which exists where links do not, size and time say so."""
    try:
        if name.samefile(file.blob):
            return True
        info = name.lstat()
    except OSError:
        return False
    return stat.S_ISREG(info.st_mode) and (info.st_size, info.st_mtime_ns) == (file.size, file.mtime_ns)


def _is_free(name: Path, ours: bool, cache: Path) -> bool:
    """Whether a name may be made: there is nothing, or what was made here, or a link into the cache or nowhere."""
    if not os.path.lexists(name) or (ours and not name.is_dir()):
        return True
    if not name.is_symlink():
        return False
    return not name.exists() or Path(os.path.realpath(name)).is_relative_to(cache)


def _refuse_taken(base: Path, taken: list[str]) -> None:
    if taken:
        listed = "".join(f"\n  {path}" for path in taken[:_SHOWN])
        raise CacheError(
            f"{len(taken)} of the model's names are taken by something else in {base}{listed}",
            hint="remove what is there, or name another folder",
        )


def _recorded(base: Path) -> set[str]:
    """Return the names that were made here; of those that could lead out of the folder none."""
    with contextlib.suppress(OSError, ValueError, InvalidUriError):
        return {check_relative_path(line) for line in (base / RECORD).read_text(encoding="utf-8").splitlines()}
    return set()


def _record(base: Path, names: Iterable[str]) -> None:
    text = "".join(f"{name}\n" for name in sorted(names))
    with contextlib.suppress(OSError, ValueError):
        if (base / RECORD).read_text(encoding="utf-8") == text:
            return
    replace(base, RECORD, partial(Path.write_text, data=text, encoding="utf-8"), place_error)


def _remove(base: Path, path: str) -> None:
    """Remove a name that was made here, and the folders that it leaves empty."""
    name = base / path
    if any(folder.is_symlink() for folder in name.parents if folder.is_relative_to(base)):
        return
    with contextlib.suppress(OSError):
        name.unlink(missing_ok=True)
        for folder in name.parents:
            if folder == base:
                break
            folder.rmdir()
