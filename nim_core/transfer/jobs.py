"""What the engine is given, what it hands over, and the state of one file in between."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from nim_core.errors import DigestMismatchError, NimError, SizeMismatchError
from nim_core.transfer.journal import FileRecord, Partial, PartRecord
from nim_core.transfer.routes import NOWHERE, Route
from nim_core.types import Digest, HttpObject, Location, ModelUri, RemoteFile

__all__ = [
    "MAX_PART_BYTES",
    "SMALL_BYTES",
    "FileTask",
    "Job",
    "Part",
    "Stage",
    "Verified",
    "claim",
    "cut",
    "file_record",
    "part_size",
]

SMALL_BYTES: Final = 1 << 20
"""Up to this size a file is kept in memory until its digest is right."""

_MIN_PART_BYTES: Final = 32 << 20
MAX_PART_BYTES: Final = 128 << 20
_PARTS_WANTED: Final = 256


@frozen(kw_only=True)
class Job:
    """
    One file to fetch and verify.

    Attributes:
        id: Names its partial; the same for the same content wanted, whatever mirror it comes from.
        identity: What the file is known by, for messages.
        file: Name, size and digests it must have.
        locate: Asks the source where the bytes are now; called on worker threads.
    """

    id: str
    identity: ModelUri
    file: RemoteFile
    locate: Callable[[], Location]


@frozen(kw_only=True)
class Verified:
    """
    One file whose bytes are right.

    Attributes:
        job: What was asked for.
        path: The bytes.
        size: Bytes.
        digests: What was computed, the content digest first.
        host: Where the bytes came from. None when not from a network.
        outside: Whether ``path`` is a file of someone else's, used from where it is; else it may be renamed away.
    """

    job: Job
    path: Path
    size: int
    digests: tuple[Digest, ...]
    host: str | None
    outside: bool = False


@define(eq=False)
class Part:
    """
    A stretch of a file that one request fetches.

    Attributes:
        number: Counted from 0.
        offset: Where it begins in the file.
        length: Bytes. None for the only part of a file of unknown size.
        done: Bytes that are in the data file.
        crc: CRC-32C of those bytes as they came from the network.
        claimed: Bytes that an earlier process left, until the part has been read and its CRC is right. None: none.
        failures: Requests that ended badly since the last progress.
        in_flight: Whether a request for it is under way.
        not_before: Monotonic time in seconds before which it is not asked for again.
        fresh: Whether a new connection has to be used.
    """

    number: int
    offset: int
    length: int | None
    done: int = 0
    crc: int = 0
    claimed: int | None = None
    failures: int = 0
    in_flight: bool = False
    not_before: float = 0.0
    fresh: bool = False

    @property
    def complete(self) -> bool:
        """Whether all its bytes are in the data file."""
        return self.length is not None and self.done == self.length

    @property
    def last(self) -> int | None:
        """Number of its last byte in the file. None when its length is unknown."""
        return None if self.length is None else self.offset + self.length - 1

    def reset(self) -> None:
        """Forget its bytes; ``done`` last, as from then on another thread may have it fetched."""
        self.claimed = None
        self.crc = 0
        self.done = 0


class Stage(enum.Enum):
    """How far a file is."""

    WAITING = enum.auto()
    LOCATING = enum.auto()
    FETCHING = enum.auto()
    CHECKING = enum.auto()
    PUBLISHING = enum.auto()
    DONE = enum.auto()


def part_size(size: int) -> int:
    """Return the size of the parts that a file of ``size`` bytes is cut into; depends on nothing else, see journal."""
    wanted = -(-size // _PARTS_WANTED)
    rounded = -(-wanted // (1 << 20)) << 20
    return min(MAX_PART_BYTES, max(_MIN_PART_BYTES, rounded))


def cut(size: int | None, *, single: bool) -> list[Part]:
    """Return the parts of a file: one when its size is unknown or a single stream is wanted."""
    if size is None or single:
        return [Part(0, 0, size)]
    step = part_size(size)
    return [Part(i, offset, min(step, size - offset)) for i, offset in enumerate(range(0, size, step))]


def claim(parts: Iterable[Part], finished: Mapping[int, PartRecord]) -> None:
    """Take over what a partial claims to have of ``parts``."""
    for part in parts:
        record = finished.get(part.number)
        if record is not None and part.length is not None:
            part.done = part.claimed = part.length if record.done is None else min(record.done, part.length)
            part.crc = record.crc


def file_record(size: int, validator: str | None, digests: Iterable[Digest]) -> FileRecord:
    """Return what the partial of a file of ``size`` bytes is a partial of."""
    texts = tuple(str(digest) for digest in digests)
    return FileRecord(size=size, part_size=part_size(size), validator=validator, digests=texts)


@define(eq=False, repr=False)
class FileTask:
    """
    The state of one file.

    Attributes:
        job: What was asked for.
        size: Bytes, once known.
        name: What to call it, without secrets.
        stage: How far it is.
        source: What the source said last about where the bytes are.
        route: Where requests go now.
        validator: ETag all parts must have.
        any_version: Whether they need not, as servers disagree about it and a digest tells in the end.
        single: Whether the file has to come as one stream.
        unranged: Whether the server sends whole files only.
        fresh: Whether new connections have to be used.
        relocations: How often the source was asked again since the last progress.
        repairs: How often wrong content was fetched again.
        failures: Requests that ended badly, in all.
        generation: Rises when requests under way must end because the file starts again.
        stale: Whether it starts again once the last of them has.
        not_before: Monotonic time in seconds before which it does not start again.
        reported: Bytes that progress has been reported for.
        cursor: Number of the first part that may be incomplete.
    """

    job: Job
    size: int | None
    name: str = field(init=False)
    stage: Stage = Stage.WAITING
    source: HttpObject | None = None
    route: Route = NOWHERE
    validator: str | None = None
    any_version: bool = False
    single: bool = False
    unranged: bool = False
    fresh: bool = False
    relocations: int = 0
    restarts: int = 0
    repairs: int = 0
    failures: int = 0
    generation: int = 0
    stale: bool = False
    not_before: float = 0.0
    parts: list[Part] = field(factory=list)
    partial: Partial | None = None
    reported: int = 0
    cursor: int = 0

    def __attrs_post_init__(self) -> None:
        self.name = self.job.identity.display

    def __repr__(self) -> str:
        return f"FileTask({self.name!r})"

    @property
    def host(self) -> str:
        """Host that requests go to. Empty when there is none."""
        return self.route.host

    @property
    def small(self) -> bool:
        """Whether it is kept in memory, as one of unknown size is until the first answer tells that size."""
        if self.partial is not None:
            return False
        if self.size is None:
            return self.source is not None and not self.single
        return self.size <= SMALL_BYTES

    @property
    def received(self) -> int:
        """Bytes that need not be fetched again as far as is known."""
        return sum(part.done for part in self.parts)

    @property
    def in_flight(self) -> int:
        """How many requests are under way for it."""
        return sum(part.in_flight for part in self.parts)

    @property
    def complete(self) -> bool:
        """Whether all bytes are here."""
        return all(part.complete for part in self.parts)

    def record(self) -> FileRecord:
        """Return what its partial is a partial of; only for a file of known size."""
        return file_record(self.size or 0, self.validator, self.job.file.digests)

    def forget(self) -> None:
        """Forget every byte, and all that the source and the server said; no request may be under way for it."""
        self.parts, self.cursor, self.stale = [], 0, False
        self.size, self.validator = self.job.file.size, None
        if self.partial is not None:
            self.partial.forget()

    def adopt(self) -> None:
        """Cut the file, taking over the parts that its partial claims to have."""
        self.parts = cut(self.size, single=self.single)
        if self.partial is None or self.single:
            return
        claim(self.parts, self.partial.finished)

    def wants(self, now: float) -> bool:
        """Whether a part could be asked for at ``now`` (monotonic, seconds)."""
        return self.next_part(now, self.size or 0) is not None

    def next_part(self, now: float, limit: int) -> Part | None:
        """
        Return the first part that can be asked for now.

        Args:
            now: Monotonic time in seconds.
            limit: Parts that begin beyond this offset have to wait for the digest.
        """
        while self.cursor < len(self.parts) and self.parts[self.cursor].complete:
            self.cursor += 1
        for part in self.parts[self.cursor :]:
            if part.offset > limit:
                return None
            if not part.complete and not part.in_flight and part.not_before <= now:
                return part
        return None

    def finish_part(self, part: Part) -> None:
        """Write a finished part down."""
        if self.partial is not None and self.size is not None and not self.single:
            self.partial.finish_part(PartRecord(number=part.number, crc=part.crc))

    def checkpoint(self, part: Part) -> None:
        """Write down how far an unfinished part is, so that no more than what follows has to be fetched again."""
        if self.partial is not None and self.size is not None and not self.single and part.done and not part.complete:
            self.partial.finish_part(PartRecord(number=part.number, crc=part.crc, done=part.done))

    def mismatch(self, digests: Iterable[Digest], *, verify: bool) -> NimError | None:
        """
        Return what is wrong with the content. None when nothing is.

        Args:
            digests: What was computed.
            verify: Whether expected digests count; the size always does.
        """
        listed = self.job.file.size
        if listed is not None and self.size != listed:
            return SizeMismatchError(f"wrong size of {self.name}: {self.size}, listed as {listed}")
        computed = {digest.algorithm: digest for digest in digests}
        for expected in self.job.file.digests if verify else ():
            found = computed.get(expected.algorithm, expected)
            if found != expected:
                where = f" from {self.host}" if self.host else ""
                return DigestMismatchError(f"wrong content of {self.name}{where}: got {found}, expected {expected}")
        return None
