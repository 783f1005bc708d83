"""
Partial files: what survives a crash.

A partial is a folder, named by what is fetched and by who fetches it::

    tmp/<file id>.<random>/
        owner       who fetches it, see :mod:`~nim_core.transfer.ownership`
        data        the bytes, at their places
        journal     one JSON line for the file, then one per part, finished or as far as it is
        old/        a partial that is being taken over, until its parts are copied

A journal line for a part carries the CRC-32C of its bytes as they came from the network, so no line has to be trusted:
on resume each part named is read once, which the digest of the whole needs anyway, and one that does not match is
fetched again. A torn last line ends the journal.

A partial whose owner is gone is taken over by renaming its folder, which one process only can succeed in. Where it is
proved that the owner is gone, the folder is gone on with as it is. Where it is not, the old folder moves into a new one
and its parts are copied: folder and data file that an owner may come back to are only read, and what it publishes is
its own. A partial that is removed is renamed first, so that nobody takes it over meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from attrs import define, evolve, field, frozen

from nim_core.transfer.copying import clone, copy_range
from nim_core.transfer.ownership import Gone, Owner, gone, hidden, may_live, owned, remove_gone, succeeded
from nim_core.transfer.storage import storage_error

__all__ = ["FileRecord", "PartRecord", "Partial", "Scratch", "open_partial", "unfinished"]

_FORMAT: Final = 1
_MAX_CRC: Final = 0xFFFFFFFF
_OLD: Final = "old"


@frozen(kw_only=True)
class FileRecord:
    """
    What a partial is a partial of.

    Attributes:
        size: Bytes of the whole file.
        part_size: Bytes of each part but the last.
        validator: ETag or the like the parts were fetched under. None when there was none.
        digests: Digests the whole must have, as text; equal ones make parts from two mirrors fit together.
    """

    size: int
    part_size: int
    validator: str | None
    digests: tuple[str, ...]

    def fits(self, other: FileRecord) -> bool:
        """Whether parts fetched under ``other`` can be used for this file."""
        if (self.size, self.part_size) != (other.size, other.part_size):
            return False
        same_content = bool(set(self.digests) & set(other.digests))
        return same_content or (self.validator is not None and self.validator == other.validator)


@frozen(kw_only=True)
class PartRecord:
    """
    What there is of a part.

    Attributes:
        number: Counted from 0.
        crc: CRC-32C of the bytes.
        done: How many bytes, from the part's beginning. None for all.
    """

    number: int
    crc: int
    done: int | None = None

    def line(self) -> bytes:
        """Return the part's line of the journal."""
        value = {"part": self.number, "crc": self.crc}
        return _line(value if self.done is None else {**value, "done": self.done})


@define
class Partial:
    """An open partial that this process owns."""

    folder: Path
    data: int
    _owner: Owner
    finished: dict[int, PartRecord] = field(factory=dict)
    _journal: int = field(default=-1, kw_only=True)

    @property
    def path(self) -> Path:
        """The data file."""
        return self.folder / "data"

    def begin(self, record: FileRecord) -> None:
        """Start the journal for ``record``, keeping finished parts of an earlier one that fits."""
        earlier, finished = _read_journal(self.folder / "journal")
        if earlier is not None and record.fits(earlier):
            self.finished = finished
        self._rewrite(record)
        os.ftruncate(self.data, record.size)

    def forget(self) -> None:
        """Forget every byte, also for whoever takes the partial over."""
        self.finished = {}
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1
        (self.folder / "journal").unlink(missing_ok=True)
        os.ftruncate(self.data, 0)

    def finish_part(self, part: PartRecord) -> None:
        """Record what there is of a part, unless the partial never began, its size being unknown."""
        self.finished[part.number] = part
        if self._journal >= 0:
            os.write(self._journal, part.line())

    def check_owned(self) -> None:
        """Raise CacheBusyError when another process has taken the partial over, this one having been silent."""
        if not self._owner.owns(self.folder):
            raise succeeded(self.folder)

    def close(self) -> None:
        """Let go of the partial; it stays for whoever comes next."""
        for name in ("_journal", "data"):
            handle = getattr(self, name)
            if handle >= 0:
                os.close(handle)
                setattr(self, name, -1)
        self._owner.release()

    def discard(self) -> None:
        """Close and remove the partial."""
        removed = hidden(self.folder)
        with contextlib.suppress(OSError):
            self.folder.rename(removed)
        self.close()
        shutil.rmtree(removed, ignore_errors=True)

    def salvage(self) -> None:
        """Copy the parts of a partial that is being taken over, and remove it."""
        outer = self.folder / _OLD
        if not _is_folder(outer):
            return
        inner = _innermost(outer)
        record, claims = _read_journal(inner / "journal")
        if record is not None:
            self.finished = _copy_parts(inner / "data", self.data, record, claims)
            self._rewrite(record)
            self.finished = {}  # until it begins, and that fits
        removed = hidden(self.folder)
        outer.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    def _rewrite(self, record: FileRecord) -> None:
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1
        temporary = self.folder / "journal.new"
        head = {
            "format": _FORMAT,
            "size": record.size,
            "part_size": record.part_size,
            "validator": record.validator,
            "digests": list(record.digests),
        }
        lines = [_line(head), *(part.line() for part in self.finished.values())]
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as journal:
            journal.writelines(lines)
        temporary.rename(self.folder / "journal")
        self._journal = os.open(self.folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


class Scratch:
    """
    A folder for one run's small files; left behind by a run that was killed, removed by a later one.

    Args:
        parent: Where it is made.

    Raises:
        CacheError: The file system refuses.
    """

    def __init__(self, parent: Path) -> None:
        for folder in _candidates(parent, "run"):
            with contextlib.suppress(OSError):  # its run lives
                remove_gone(folder)
        self.folder = _new_name(parent, "run")
        try:
            self._owner = owned(self.folder)
        except OSError as exc:
            raise storage_error(exc, parent) from exc

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._owner.release()


def open_partial(parent: Path, file_id: str) -> Partial:
    """
    Open the partial of ``file_id`` below ``parent``: one whose owner is gone, else a new one.

    Raises:
        OSError: The file system refuses.
    """
    for folder in _candidates(parent, file_id):
        with contextlib.suppress(OSError):  # its owner lives, another process was faster, or it is not a partial
            return _taken_over(folder, _new_name(parent, file_id))
    return _new(_new_name(parent, file_id))


def unfinished(parent: Path, file_id: str) -> tuple[FileRecord, dict[int, PartRecord]] | None:
    """
    Return what :func:`open_partial` would go on with, and its parts; nothing is written.

    None when there is nothing to go on with.
    """
    for folder in _candidates(parent, file_id):
        if not may_live(folder):
            record, parts = _read_journal(_innermost(folder) / "journal")
            return None if record is None else (record, parts)
    return None


def _innermost(folder: Path) -> Path:
    """Return the folder that has the parts of a partial: whoever took it over may have been taken over itself."""
    while _is_folder(folder / _OLD):
        folder /= _OLD
    return folder


def _candidates(parent: Path, file_id: str) -> Iterator[Path]:
    for folder in sorted(parent.glob(f"{file_id}.*")):
        if not folder.is_symlink():
            yield folder


def _new_name(parent: Path, file_id: str) -> Path:
    return parent / f"{file_id}.{secrets.token_hex(8)}"


def _new(folder: Path) -> Partial:
    return _opened(folder, owned(folder))


def _taken_over(folder: Path, mine: Path) -> Partial:
    """Take a partial over. Raises OSError when its owner lives or anything else is in the way."""
    found = gone(folder)
    partial = (_continued if found.proved else _superseded)(found, folder, mine)
    try:
        partial.salvage()
    except OSError:
        partial.close()
        raise
    return partial


def _continued(found: Gone, folder: Path, mine: Path) -> Partial:
    """Go on in the folder of an owner that cannot come back."""
    try:
        folder.rename(mine)
        owner = found.take()
    except OSError:
        found.close()
        raise
    return _opened(mine, owner)


def _superseded(found: Gone, folder: Path, mine: Path) -> Partial:
    """Begin a folder of our own with that of an owner that may come back in it, to be copied from."""
    try:
        partial = _new(mine)
        try:
            folder.rename(mine / _OLD)
            if not found.was_in(mine / _OLD):  # another process took it meanwhile
                (mine / _OLD).rename(folder)
                raise FileNotFoundError(folder)
        except OSError:
            partial.discard()
            raise
    finally:
        found.close()
    return partial


def _opened(folder: Path, owner: Owner) -> Partial:
    try:
        data = os.open(folder / "data", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError:
        owner.release()
        raise
    return Partial(folder, data, owner)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _copy_parts(source: Path, target: int, record: FileRecord, claims: dict[int, PartRecord]) -> dict[int, PartRecord]:
    """Copy the parts that an earlier owner claims to have, and return those that could be."""
    copied: dict[int, PartRecord] = {}
    with contextlib.suppress(OSError):  # such as a full disk; what is missing is fetched
        handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if clone(handle, target):
                return claims
            for number, part in sorted(claims.items()):
                offset = number * record.part_size
                whole = min(record.part_size, record.size - offset)
                if copy_range(handle, target, offset, whole if part.done is None else min(part.done, whole)):
                    copied[number] = part
        finally:
            os.close(handle)
    return copied


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _read_journal(path: Path) -> tuple[FileRecord | None, dict[int, PartRecord]]:
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        head = _file_record(json.loads(lines[0]))
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return None, {}
    finished: dict[int, PartRecord] = {}
    for line in lines[1:]:
        try:
            value = json.loads(line)
            part = _part_record(value)
        except (ValueError, LookupError, TypeError, OverflowError):
            break
        finished[part.number] = part
    return head, finished


def _part_record(value: dict[str, Any]) -> PartRecord:
    part = PartRecord(number=int(value["part"]), crc=int(value["crc"]))
    if not 0 <= part.crc <= _MAX_CRC:
        raise ValueError(f"not a CRC-32C: {value['crc']!r}")
    if "done" not in value:
        return part
    if int(value["done"]) < 0:
        raise ValueError(f"not a number of bytes: {value['done']!r}")
    return evolve(part, done=int(value["done"]))


def _file_record(value: dict[str, Any]) -> FileRecord:
    if value["format"] != _FORMAT:
        raise ValueError(f"unknown journal format: {value['format']!r}")
    return FileRecord(
        size=int(value["size"]),
        part_size=int(value["part_size"]),
        validator=None if value["validator"] is None else str(value["validator"]),
        digests=tuple(str(digest) for digest in value["digests"]),
    )
