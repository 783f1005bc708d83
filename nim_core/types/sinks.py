"""Sinks: the Protocols of those that write objects to a bucket, and the values they work with."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

from attrs import field, frozen

from nim_core.types.credentials import Credential
from nim_core.types.environment import EnvVar, Variables
from nim_core.types.files import Digest, secret_headers
from nim_core.types.secret import Secret, as_secret
from nim_core.types.uris import ModelUri

if TYPE_CHECKING:
    import httpx


@frozen(kw_only=True)
class StoredObject:
    """
    An object as a bucket has it.

    Attributes:
        key: Literal: nothing is decoded.
        size: Bytes.
        digests: Digests of the whole content, those among its metadata that a mirror stored included; none where a
            listing does not tell them.
        version: What pins this content of the key, such as an ETag or a generation. None when the store gives none.
    """

    key: str
    size: int
    digests: tuple[Digest, ...] = ()
    version: str | None = None


@frozen(kw_only=True)
class NewObject:
    """
    An object that is to be written.

    Attributes:
        key: Literal.
        size: Bytes.
        digests: Digests its content has, to be stored with it so that ``head`` can tell them: one of ``blake3`` or
            ``sha256``, and ``crc32c``.
        replaces: What the key holds now, and alone may be overwritten. None: nothing, and nothing may be.
    """

    key: str
    size: int
    digests: tuple[Digest, ...]
    replaces: StoredObject | None = None


@frozen(kw_only=True)
class Body:
    """
    Bytes to be sent: a file, or a part of one.

    Attributes:
        path: File they are in.
        offset: Where they begin.
        size: How many there are.
        data: The bytes themselves, where they have been read already. None: read them from the file.
        progress: Hears how many more bytes were taken; whoever reads by :meth:`open` need not care. None: nobody does.
    """

    path: Path
    offset: int = 0
    size: int
    data: bytes | None = None
    progress: Callable[[int], None] | None = field(default=None, eq=False, repr=False)

    def taken(self, count: int) -> None:
        """Say that so many more bytes were taken."""
        if self.progress is not None:
            self.progress(count)

    def open(self) -> BinaryIO:
        """Return a stream of exactly these bytes, that can seek; for clients that want one. OSError as from a file."""
        raw: io.RawIOBase = _Slice(self)
        return io.BufferedReader(raw, 1024 * 1024)


class _Slice(io.RawIOBase):
    """The bytes of a body as a stream."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._file = None if body.data is not None else body.path.open("rb", buffering=0)
        self._place = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place among these bytes."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._body.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read the next bytes."""
        count = max(0, min(len(buffer), self._body.size - self._place))
        if self._file is None:
            found = (self._body.data or b"")[self._place : self._place + count]
        else:
            found = os.pread(self._file.fileno(), count, self._body.offset + self._place)
        buffer[: len(found)] = found
        self._place += len(found)
        self._body.taken(len(found))
        return len(found)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        super().close()


@frozen(kw_only=True)
class Part:
    """
    A part of a new object.

    Attributes:
        number: Counted from 1.
        body: Its bytes; all parts but the last are of one size.
        crc32c: What their CRC-32C is.
    """

    number: int
    body: Body
    crc32c: Digest


@frozen(kw_only=True)
class StoredPart:
    """
    A part that the store has.

    Attributes:
        number: Counted from 1.
        size: Bytes.
        tag: What the store calls it; handed back to ``finish``.
        digests: Digests of its content; where core hands it to ``finish``, its CRC-32C unless the upload is ordered.
            None at all: it is not known what it holds.
    """

    number: int
    size: int
    tag: str = ""
    digests: tuple[Digest, ...] = ()


@frozen(kw_only=True)
class Upload:
    """
    An object under way; what was sent of it is not readable under its key.

    Attributes:
        token: By which the same sink finds it again, in another process too; may be what opens it to anybody.
        part_bytes: Size of all parts but the last.
        ordered: Parts have to be sent one after the other.
        stored: Parts that the store has from an earlier try. Core sends those again whose digests are not right; of an
            ordered upload they count without digests, from the first one on.
    """

    token: Secret = field(converter=as_secret)
    part_bytes: int
    ordered: bool = False
    stored: tuple[StoredPart, ...] = ()


@frozen(kw_only=True)
class HttpUpload:
    """
    A request that core sends for a sink.

    Attributes:
        url: Sent byte for byte as given. Counts as secret: it may be signed.
        method: Such as ``PUT``.
        headers: Sent to the URL's own origin only; redirects are not followed.
        body: None sends none.
        authorities: As in :class:`~nim_core.types.HttpObject`.
    """

    url: Secret = field(converter=as_secret)
    method: str = "PUT"
    headers: tuple[tuple[str, Secret], ...] = field(default=(), converter=secret_headers)
    body: Body | None = None
    authorities: Path | None = None


@frozen(kw_only=True)
class HttpAnswer:
    """What a request was answered with; header names in lower case, of a body the first 64 KiB."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


@frozen(kw_only=True)
class SinkContext:
    """
    What core hands to a sink when it makes one.

    Attributes:
        bucket: Name of the bucket, as the user gave it.
        http: Client for control calls, as in :class:`~nim_core.types.SourceContext`.
        variables: The variables its spec declares.
        credential: As in :class:`~nim_core.types.SourceContext`; plugins are asked by the name of the sink.
        send: Sends a request, once, with the run's proxies, trust and limits, and its body without holding the
            interpreter up. Blocks until the answer is there, whatever its status. Raises TransientError or StalledError
            when there is none; core then calls the sink's method again.
    """

    bucket: str
    http: httpx.Client
    variables: Variables
    credential: Callable[[str, ModelUri | None], Credential]
    send: Callable[[HttpUpload], HttpAnswer]


class Sink(Protocol):
    """
    Writes objects to a bucket. Made by ``SinkSpec.factory``; must not do I/O when made.

    What raises a retryable error is called again by core, not by the sink.
    """

    def head(self, key: str) -> StoredObject | None:
        """Return the object at the literal ``key``, with the digests stored with it. None when there is none."""

    def list_objects(self, prefix: str) -> Iterable[StoredObject]:
        """Return all objects whose keys begin with ``prefix``. Raises NotFoundError when there is no such bucket."""

    def put(self, new: NewObject, body: Body) -> None:
        """
        Write an object at once: at every moment its key holds what it held or all of the new one.

        Raises:
            RemoteChangedError: The key no longer holds what ``new`` replaces.
            SourceError: In its most fitting subclass.
        """

    def close(self) -> None:
        """Free what was opened. Called once, when nothing else is running."""


@runtime_checkable
class PartedSink(Protocol):
    """Optional ability of a sink: large objects are written in parts, and go on where an earlier try stopped."""

    def part_bytes(self, size: int) -> int | None:
        """Return the size of the parts of an object of ``size`` bytes. None: it is written at once. Pure."""

    def begin(self, new: NewObject, token: Secret | None) -> Upload:
        """
        Start an upload, or find one that has been started.

        Args:
            new: What is written.
            token: Of an earlier try; forget it when the store no longer knows it. None: there was none here.
        """

    def put_part(self, new: NewObject, upload: Upload, part: Part) -> StoredPart:
        """
        Send a part; where the store checks parts, so that it refuses one whose CRC-32C is another on arrival.

        Raises:
            NotFoundError: The store no longer knows the upload; core begins another.
            SourceError: In its most fitting subclass.
        """

    def finish(self, new: NewObject, upload: Upload, parts: Sequence[StoredPart]) -> None:
        """
        Make the object of its parts, in their order; where the store has not checked them, see that it is right.

        Raises:
            NotFoundError: The store no longer knows the upload; core begins another unless the object is there.
            DigestMismatchError: What arrived is something else; nothing is readable any more.
            RemoteChangedError: As ``put``, like all else.
        """

    def abort(self, new: NewObject, upload: Upload) -> None:
        """Drop what was sent."""


@runtime_checkable
class CopyingSink(Protocol):
    """Optional ability of a sink: copies an object of the same service without the bytes coming here."""

    def copy(self, new: NewObject, uri: ModelUri) -> bool:
        """
        Write an object whose bytes are at ``uri``; True when that was done, False when they have to come here.

        The source vouches for ``new.digests``; what is copied must be the content it vouched for. Raises as ``put``.
        """


@frozen(kw_only=True)
class SinkSpec:
    """
    A sink a plugin brings.

    Attributes:
        name: Unique; a choice of ``mirror``.
        summary: One line for ``plugins list``.
        scheme: URI scheme by which its objects are read: ``scheme://bucket/key``.
        factory: Makes the worker; imports its vendor's library then, not before.
        environment: Variables it reads, in priority order.
    """

    name: str
    summary: str
    scheme: str
    factory: Callable[[SinkContext], Sink]
    environment: tuple[EnvVar, ...] = ()
