"""
Partial files: what survives a crash.

A partial is a folder, named by what is fetched and by who fetches it::

    tmp/<file id>.<owner id>/
        owner       held locked by the living owner; {"pid", "host"}
        data        the bytes, at their places
        journal     one JSON line for the file, then one per part, finished or as far as it is

A journal line for a part carries the CRC-32C of its bytes as they came from the network, so no line has to be trusted:
on resume each part named is read once, which the digest of the whole needs anyway, and one that does not match is
fetched again. A torn last line ends the journal. A folder whose owner is dead is taken over by renaming it, which one
process only can succeed in; one that is removed is renamed first, so that nobody takes it over meanwhile. Where the
file system has no locks nothing is taken over, as nobody can tell who is dead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from attrs import define, evolve, field, frozen

__all__ = ["FileRecord", "PartRecord", "Partial", "open_partial"]

_FORMAT: Final = 1
_MAX_CRC: Final = 0xFFFFFFFF
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


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
    finished: dict[int, PartRecord] = field(factory=dict)
    _owner: int = field(default=-1, kw_only=True)
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

    def close(self) -> None:
        """Let go of the partial; it stays for whoever comes next."""
        for name in ("_journal", "data", "_owner"):
            handle = getattr(self, name)
            if handle >= 0:
                os.close(handle)
                setattr(self, name, -1)

    def discard(self) -> None:
        """Close and remove the partial."""
        removed = self.folder.with_name(f".{self.folder.name}")
        with contextlib.suppress(OSError):
            self.folder.rename(removed)
        self.close()
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
    A folder for one run's small files; left behind by a run that was killed, removed by the next one.

    Args:
        parent: Where it is made.
    """

    def __init__(self, parent: Path) -> None:
        for folder in _candidates(parent, "run"):
            with contextlib.suppress(OSError):  # its run lives
                owner = _lock_owner(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(owner)
        self.folder = _new_name(parent, "run")
        self._owner = _make_owned(self.folder)

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._owner >= 0:
            os.close(self._owner)
            self._owner = -1


def open_partial(parent: Path, file_id: str) -> Partial:
    """
    Open the partial of ``file_id`` below ``parent``: a dead owner's, else a new one.

    Raises:
        OSError: The file system refuses.
    """
    for folder in _candidates(parent, file_id):
        with contextlib.suppress(OSError):  # its owner lives, another process was faster, or it is not a partial
            return _taken_over(folder, _new_name(parent, file_id))
    folder = _new_name(parent, file_id)
    return _opened(folder, _make_owned(folder))


def _candidates(parent: Path, file_id: str) -> Iterator[Path]:
    for folder in sorted(parent.glob(f"{file_id}.*")):
        if not folder.is_symlink():
            yield folder


def _new_name(parent: Path, file_id: str) -> Path:
    return parent / f"{file_id}.{secrets.token_hex(8)}"


def _taken_over(folder: Path, mine: Path) -> Partial:
    """Take a partial over. Raises OSError when its owner lives or anything else is in the way."""
    owner = _lock_owner(folder)
    _rename_owned(folder, mine, owner)
    return _opened(mine, owner)


def _make_owned(folder: Path) -> int:
    """Make a folder and return a handle to its owner file; until that is locked it has a name that nobody looks for."""
    unlocked = folder.with_name(f".{folder.name}")
    unlocked.mkdir(mode=0o700)
    owner = _lock_owner(unlocked, new=True)
    _rename_owned(unlocked, folder, owner)
    return owner


def _rename_owned(folder: Path, target: Path, owner: int) -> None:
    try:
        folder.rename(target)
    except OSError:
        os.close(owner)
        raise


def _lock_owner(folder: Path, *, new: bool = False) -> int:
    """
    Return a handle to the locked owner file; that of a ``new`` folder stays unlocked where there are no locks.

    Raises:
        BlockingIOError: Its owner lives.
        FileNotFoundError: The folder is gone.
        OSError: The file system refuses otherwise.
    """
    handle = os.open(folder / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if not new or exc.errno not in _NO_LOCKS:
            os.close(handle)
            raise
    return handle


def _opened(folder: Path, owner: int) -> Partial:
    try:
        _write_owner(owner)
        data = os.open(folder / "data", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError:
        os.close(owner)
        raise
    return Partial(folder, data, owner=owner)


def _write_owner(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, _line({"pid": os.getpid(), "host": socket.gethostname()}), 0)


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
