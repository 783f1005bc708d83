"""A model's files in a folder of the user's, among what else may be there, as a hub's own client puts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from nim_core.cache.layout import make_folder, sync_folder
from nim_core.cache.names import Namer, Way
from nim_core.cache.store import replace
from nim_core.plan import Present
from nim_core.types import check_relative_path
from nim_core.workspace.places import Made, bytes_of, place_error, real_folder, total_bytes, ways_to_share

__all__ = ["put_files"]


def put_files(files: Mapping[str, Present], folder: Path) -> Made:
    """
    Have ``folder`` hold ``files`` as plain files; one of another content is replaced, in one step.

    Args:
        files: Where each file is, by path inside the folder.
        folder: Made where it is missing.

    Raises:
        CacheError: Storage refuses.
    """
    for path in files:
        check_relative_path(path)
    base, namer = real_folder(folder), Namer()
    wanted = {path: file for path, file in files.items() if not _is_right(base / path, file)}
    ways = Counter(_put(base, path, file, namer) for path, file in wanted.items())
    for name in {base / path for path in wanted}:
        sync_folder(name.parent)
    return Made(folder=base, files=len(files), bytes=total_bytes(files), ways=ways, kept=len(files) - len(wanted))


def _put(base: Path, path: str, file: Present, namer: Namer) -> Way:
    folder = make_folder(base, path.rpartition("/")[0], place_error)
    ways: tuple[Way, ...] = (*ways_to_share(file, share=True), "copy")
    make = partial(namer.make, target="", blob=bytes_of(file), ways=ways)
    way = replace(folder, Path(path).name, make, place_error)
    assert way is not None
    return way


def _is_right(name: Path, file: Present) -> bool:
    """Whether a plain file is one that was made of ``file``: the same, or of the same size and time of last change."""
    try:
        stat, source = name.lstat(), bytes_of(file).stat()
    except OSError:
        return False
    same = (stat.st_dev, stat.st_ino) == (source.st_dev, source.st_ino)
    return same or (not name.is_symlink() and (stat.st_size, stat.st_mtime_ns) == (source.st_size, source.st_mtime_ns))
