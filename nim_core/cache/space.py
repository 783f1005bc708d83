"""Before the first byte: is there room, and may we write?"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.cache.layout import Layout, folder_error, make_folder
from nim_core.errors import CacheError, DiskFullError

__all__ = [
    "DeviceNeed",
    "Incoming",
    "check_answers",
    "check_space",
    "device_need",
    "device_needs",
    "partial_bytes",
    "probe",
    "write_error",
]

_INODES_PER_FILE: Final = 4
"""A partial's folder and files while fetching; a blob and its link afterwards, with a folder now and then."""

_BLOCK: Final = 512


def probe(layout: Layout, seconds: float) -> None:
    """
    Check that the cache can be written.

    Args:
        layout: The cache.
        seconds: How long its file system may take to answer; a dead network mount never does.

    Raises:
        CachePermissionError: This user may not write there.
        DiskFullError: Not even an empty file fits.
        CacheError: No answer in time, or something else is in the way.
    """
    _in_time(lambda: _touch(layout), layout, seconds)


def check_answers(layout: Layout, seconds: float) -> None:
    """
    Check that the file system of the cache answers at all, without writing.

    Args:
        layout: The cache.
        seconds: As for :func:`probe`.

    Raises:
        CacheError: No answer in time.
    """
    _in_time(lambda: os.access(layout.path, os.R_OK), layout, seconds)


def _in_time(work: Callable[[], object], layout: Layout, seconds: float) -> None:
    failure: list[BaseException] = []

    def attempt() -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - raised again below
            failure.append(exc)

    thread = threading.Thread(target=attempt, name="nim-probe", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise CacheError(
            f"file system does not answer within {seconds:g} s: {layout.path}",
            hint="check the mount, or set NIM_CACHE_PROBE_TIMEOUT to more seconds",
        )
    if failure:
        raise failure[0]


def _touch(layout: Layout) -> None:
    folder = make_folder(layout.path, "tmp")
    path = folder / f".probe.{secrets.token_hex(8)}"
    try:
        path.touch(exist_ok=False)
        path.unlink()
    except OSError as exc:
        raise folder_error(exc, folder) from exc


def partial_bytes(layout: Layout) -> Mapping[str, int]:
    """
    Return how many bytes on disk the partial of each file takes already, by the file's id.

    Of several partials of a file the largest counts: one is gone on with, no more.
    """
    largest: dict[str, int] = {}
    for path in layout.partials.glob("*.*/data"):
        file_id = path.parent.name.partition(".")[0]
        with contextlib.suppress(OSError):  # another process has just finished or taken it
            largest[file_id] = max(largest.get(file_id, 0), path.stat().st_blocks * _BLOCK)
    return largest


@frozen(kw_only=True)
class Incoming:
    """
    A file that is going to be fetched.

    Attributes:
        id: Names its partials.
        size: Bytes. None counts as nothing.
        root: Folder that its blob goes to, or one above that.
    """

    id: str
    size: int | None
    root: Path


@frozen(kw_only=True)
class DeviceNeed:
    """
    What a download takes on one file system.

    Attributes:
        folder: The first of the cache's folders there; it need not exist yet.
        mount: Where the file system is mounted.
        needed: Bytes, at most, beyond what partials take already.
        free: Bytes that this user may use.
        files: How many files come there.
        inodes_free: None where they are not counted.
        ours: Whether the folder is in the cache and not where a vendor's variable has moved it.
    """

    folder: Path
    mount: Path
    needed: int
    free: int
    files: int
    inodes_free: int | None
    ours: bool = True

    @property
    def inodes(self) -> int:
        """How many inodes the files take, at most."""
        return self.files * _INODES_PER_FILE

    @property
    def error(self) -> DiskFullError | None:
        """What is wrong, with both figures. None when all fits."""
        elsewhere = "set NIM_CACHE_PATH (or --model-cache-path) to {}" if self.ours else "move that folder to {}"
        if self.needed > self.free:
            return DiskFullError(
                f"not enough space in {self.folder}: {self.needed:,} bytes needed, {self.free:,} free",
                hint=f"free some space, or {elsewhere.format('a larger volume')}",
            )
        if self.inodes_free is not None and self.inodes > self.inodes_free:
            return DiskFullError(
                f"not enough inodes in {self.folder}: {self.inodes} needed for {self.files} files, "
                f"{self.inodes_free} free",
                hint=f"remove files there, or {elsewhere.format('another volume')}",
            )
        return None


def device_needs(layout: Layout, files: Sequence[Incoming]) -> tuple[DeviceNeed, ...]:
    """
    Return what fetching ``files`` takes on each file system.

    All partials are counted as if all were there at once. A blob takes room of its own where it is on another file
    system than its partial, from which it is then copied.
    """
    here = partial_bytes(layout)
    devices: dict[int, list[tuple[Path, int]]] = {}
    partials = _device(layout.partials)
    devices[partials] = [(layout.partials, max(0, (file.size or 0) - here.get(file.id, 0))) for file in files]
    known: dict[Path, int] = {}
    for file in files:
        if file.root not in known:
            known[file.root] = _device(file.root)
        if known[file.root] != partials:
            devices.setdefault(known[file.root], []).append((file.root, file.size or 0))
    return tuple(
        device_need(items[0][0], [size for _, size in items], ours=items[0][0].is_relative_to(layout.path))
        for items in devices.values()
        if items
    )


def device_need(folder: Path, sizes: Sequence[int], *, ours: bool) -> DeviceNeed:
    """Return what files of ``sizes`` bytes take on the file system of ``folder``, which need not exist yet."""
    there = _nearest(folder)
    stat = os.statvfs(there)
    return DeviceNeed(
        folder=folder,
        mount=_mount_of(there),
        needed=sum(sizes),
        free=stat.f_bavail * stat.f_frsize,
        files=len(sizes),
        inodes_free=stat.f_favail if stat.f_files else None,
        ours=ours,
    )


def check_space(layout: Layout, files: Sequence[Incoming]) -> None:
    """Raise DiskFullError when ``files`` do not fit; the message gives both figures."""
    for need in device_needs(layout, files):
        if need.error is not None:
            raise need.error


def write_error(folders: Iterable[Path]) -> CacheError | None:
    """Return why one of ``folders`` cannot be made or written, as far as can be told without trying. None: it can."""
    for folder in dict.fromkeys(folders):
        there = _nearest(folder)
        code = 0 if there.is_dir() else errno.ENOTDIR
        if not code and not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
            code = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        if code:
            return folder_error(OSError(code, os.strerror(code)), folder)
    return None


def _nearest(folder: Path) -> Path:
    """Return ``folder``, or what is nearest above it, that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110 - raises nothing


def _device(folder: Path) -> int:
    return _nearest(folder).stat().st_dev


def _mount_of(folder: Path) -> Path:
    real = Path(os.path.realpath(folder))
    return next(path for path in (real, *real.parents) if path.is_mount() or path == path.parent)
