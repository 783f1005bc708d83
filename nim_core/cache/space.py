"""Before the first byte: is there room, and may we write?"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from nim_core.cache.layout import Layout, folder_error, make_folder
from nim_core.errors import CacheError, DiskFullError

__all__ = ["check_answers", "check_space", "partial_bytes", "probe"]

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


def check_space(folder: Path, needed: int, files: int) -> None:
    """
    Check that ``needed`` bytes in ``files`` files fit on the file system of ``folder``.

    Raises:
        DiskFullError: They do not; the message gives both figures.
    """
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    if needed > free:
        raise DiskFullError(
            f"not enough space in {folder}: {needed:,} bytes needed, {free:,} free",
            hint="free some space, or set NIM_CACHE_PATH (or --model-cache-path) to a larger volume",
        )
    inodes = files * _INODES_PER_FILE
    if stat.f_files and inodes > stat.f_favail:
        raise DiskFullError(
            f"not enough inodes in {folder}: {inodes} needed for {files} files, {stat.f_favail} free",
            hint="remove files there, or set NIM_CACHE_PATH (or --model-cache-path) to another volume",
        )
