"""What the sink suite works with: sinks as core opens them, things to write, and a wire on which requests go wrong."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import blake3
import httpx
import pytest
from attrs import evolve, field, frozen

from nim_core.errors import NimError, PluginError, SourceError, TransientError
from nim_core.fetching import named_endpoints
from nim_core.mirror.hashing import Hashed, hash_file
from nim_core.registry import PluginInfo, Registry
from nim_core.registry.guard import GuardedSink
from nim_core.resolve import Resolver
from nim_core.settings import Settings
from nim_core.testing.conformance.machine import registry_for
from nim_core.transfer.control import control_client
from nim_core.transfer.network import network_config
from nim_core.transfer.reading import Reader
from nim_core.transfer.retry import RetryBudget, retry_policy
from nim_core.transfer.sending import Sender
from nim_core.types import (
    Body,
    Digest,
    HttpAnswer,
    HttpObject,
    HttpUpload,
    LocalObject,
    ModelUri,
    NewObject,
    Part,
    RemoteFile,
    SinkSpec,
    StoredObject,
    StoredPart,
    Upload,
    UriStyle,
)

__all__ = ["Bench", "File", "Opened", "Send", "Stored", "Wire", "answers", "declared", "loses_the_answer", "never"]

T = TypeVar("T")
Send = Callable[[HttpUpload], HttpAnswer]

_USER_AGENT: Final = "nim-core-conformance"
_MIB: Final = 1 << 20
_MOST_BYTES: Final = 1 << 30
_PATIENCE: Final = {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1", "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "10"}


def declared(value: T | None, what: str) -> T:
    """Return what the author gave; skips the test where that is nothing."""
    if value is None:
        pytest.skip(f"not declared: {what}")
    return value


def never() -> bool:
    """Say no."""
    return False


@frozen(kw_only=True)
class Stored:
    """
    Where a sink may write.

    Attributes:
        bucket: A bucket that the suite may fill; beneath ``nim-kit/``, nothing else is touched.
        environment: Variables by which the sink finds the service and signs in.
        missing: Name of a bucket that does not exist.
        stranger: Variables of somebody who is not signed in, or not known. None: everybody may write.
        reader: Variables of somebody who is known and may not write. None: there is nobody like that.
    """

    bucket: str
    environment: Mapping[str, str] = field(factory=dict)
    missing: str = "nim-kit-no-such-bucket"
    stranger: Mapping[str, str] | None = None
    reader: Mapping[str, str] | None = None


class Wire:
    """
    By what a sink sends requests that have a body, with what is wrong with it at the moment.

    Attributes:
        bodies: How many requests with a body were sent.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._fault: Callable[[Send, HttpUpload], HttpAnswer] | None = None
        self.bodies = 0

    def __call__(self, upload: HttpUpload) -> HttpAnswer:
        """Send, as core does, or let it go wrong."""
        if upload.body is None:
            return self._send(upload)
        self.bodies += 1
        return self._send(upload) if self._fault is None else self._fault(self._send, upload)

    @contextmanager
    def failing(self, fault: Callable[[Send, HttpUpload], HttpAnswer]) -> Iterator[None]:
        """Let every request with a body go wrong; skip the test where the sink sends none by core."""
        before, self._fault = self.bodies, fault
        try:
            yield
        finally:
            self._fault = None
            if self.bodies == before:
                pytest.skip("not declared: SinkContext.send, by which core carries requests")


def answers(status: int) -> Callable[[Send, HttpUpload], HttpAnswer]:
    """Answer a status without sending anything, as a proxy does that knows nothing of the service."""
    return lambda _send, _upload: HttpAnswer(status=status, headers={})


def loses_the_answer(send: Send, upload: HttpUpload) -> HttpAnswer:
    """Send, and lose the answer: the service did it, and nobody here knows."""
    send(upload)
    raise TransientError("the answer was lost")


@frozen(eq=False)
class Opened:
    """A sink, guarded as for core, and its wire."""

    sink: GuardedSink
    wire: Wire


@frozen(kw_only=True)
class File:
    """A file that was read before it is sent in parts, as core does."""

    path: Path
    hashed: Hashed
    part_bytes: int

    @property
    def count(self) -> int:
        """How many parts it has."""
        return len(self.hashed.parts)

    def new(self, key: str, replaces: StoredObject | None = None) -> NewObject:
        """Return the object that it becomes."""
        return NewObject(key=key, size=self.hashed.size, digests=self.hashed.digests, replaces=replaces)

    def part(self, number: int) -> Part:
        """Return one of its parts, counted from 1."""
        offset = (number - 1) * self.part_bytes
        body = Body(path=self.path, offset=offset, size=min(self.part_bytes, self.hashed.size - offset))
        return Part(number=number, body=body, crc32c=self.hashed.parts[number - 1])

    def send(self, sink: GuardedSink, new: NewObject, upload: Upload, *numbers: int) -> tuple[StoredPart, ...]:
        """Send parts, and return them as core hands them to ``finish``."""
        found = [sink.put_part(new, upload, self.part(number)) for number in numbers]
        return tuple(self.known(upload, part) for part in found)

    def known(self, upload: Upload, part: StoredPart) -> StoredPart:
        """Return a part that is right with the checksum that core knows of it."""
        return part if upload.ordered else evolve(part, digests=(self.hashed.parts[part.number - 1],))


@frozen(kw_only=True, eq=False)
class _Core:
    """What a command of core has."""

    settings: Settings
    registry: Registry
    http: httpx.Client
    sender: Sender
    reader: Reader


class Bench:
    """
    Opens sinks and makes what they write; what was opened is closed when it is left.

    Args:
        spec: The sink.
        info: Its plugin.
        stored: Where it may write.
        folder: For files; empty.
    """

    def __init__(self, spec: SinkSpec, info: PluginInfo, stored: Stored, folder: Path) -> None:
        self.spec = spec
        self.stored = stored
        self._folder = folder
        self._stack = ExitStack()
        self._cores: dict[tuple[tuple[str, str], ...], _Core] = {}
        self._prefix = f"nim-kit/{uuid.uuid4().hex[:12]}"
        secret = {variable.name for variable in info.variables if variable.secret}
        values = (stored.environment, stored.stranger or {}, stored.reader or {})
        self._secrets = {each[name] for each in values for name in secret if each.get(name)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def key(self, name: str) -> str:
        """Return a key that nobody else has written to."""
        return f"{self._prefix}/{name}"

    # ---------------------------------------------------------------------------------------------------------- opening
    def open(self, *, bucket: str | None = None, environment: Mapping[str, str] | None = None) -> Opened:
        """Return the sink, made by core for a bucket; None stands for that of :class:`Stored`."""
        core = self._core(self.stored.environment if environment is None else environment)
        wire = Wire(core.sender.send)
        name = self.stored.bucket if bucket is None else bucket
        sink = core.registry.open_sink(self.spec.name, name, core.http, wire)
        self._stack.callback(sink.close)
        return Opened(sink, wire)

    def _core(self, environment: Mapping[str, str]) -> _Core:
        """Return what a command has that runs with these variables; made once."""
        key = tuple(sorted(environment.items()))
        if key not in self._cores:
            settings = Settings({**_PATIENCE, **environment})
            registry = registry_for(settings)
            network = network_config(settings, named_endpoints(registry, settings))
            http = self._stack.enter_context(control_client(network, retry_policy(settings)))
            self._cores[key] = _Core(
                settings=settings,
                registry=registry,
                http=http,
                sender=self._stack.enter_context(closing(Sender(network, _USER_AGENT))),
                reader=self._stack.enter_context(closing(Reader(network, _USER_AGENT))),
            )
        return self._cores[key]

    # -------------------------------------------------------------------------------------------------- what is written
    def body(self, data: bytes) -> Body:
        """Return bytes as a body: somewhere in a file, among others."""
        path = self._folder / f"body-{uuid.uuid4().hex}"
        path.write_bytes(b"before" + data + b"after")
        return Body(path=path, offset=6, size=len(data))

    def new(self, key: str, data: bytes, replaces: StoredObject | None = None) -> NewObject:
        """Return the object that ``data`` becomes, with the digests that core computes."""
        path = self._folder / f"data-{uuid.uuid4().hex}"
        path.write_bytes(data)
        digests = hash_file(path, (), lambda _: None, never).digests
        return NewObject(key=key, size=len(data), digests=digests, replaces=replaces)

    def put(self, sink: GuardedSink, key: str, data: bytes, replaces: StoredObject | None = None) -> NewObject:
        """Write an object at once."""
        new = self.new(key, data, replaces)
        sink.put(new, self.body(data))
        return new

    def large(self, sink: GuardedSink) -> File:
        """Return a file of several parts; skips the test where the sink has none."""
        sizes = [size for size in (_MIB << step for step in range(1, 11)) if sink.part_bytes(size) is not None]
        if not sizes:
            pytest.skip("not declared: PartedSink, objects written in parts")
        size, part = next(((it, each) for it in sizes if (each := sink.part_bytes(it) or it) < it), (0, 0))
        if not size:
            pytest.fail(f"objects of {_MOST_BYTES} bytes have one part: let part_bytes() give smaller ones")
        least = max(2, 1 + _MIB // part) * part + 4099  # what core sends from memory has no parts
        size = least if sink.part_bytes(least) == part else size + 4099
        path, chance = self._folder / f"large-{uuid.uuid4().hex}", random.Random(size)  # noqa: S311 - repeatable
        with path.open("wb") as out:
            for start in range(0, size, _MIB):
                out.write(chance.randbytes(min(_MIB, size - start)))
        hashed = hash_file(path, (), sink.part_bytes, never)
        return File(path=path, hashed=hashed, part_bytes=sink.part_bytes(size) or size)

    # ---------------------------------------------------------------------------------------------------- what is there
    def uri(self, key: str) -> ModelUri:
        """Return the URI by which an object is read."""
        return ModelUri(scheme=self.spec.scheme, location=f"{self.stored.bucket}/{key}", style=UriStyle.OBJECT)

    def check_holds(self, sink: GuardedSink, new: NewObject) -> StoredObject:
        """Check that an object is there and right: as the sink says, and as the source reads it."""
        found = sink.head(new.key)
        assert found is not None, f"head({new.key!r}) finds nothing, though it was written"
        assert (found.key, found.size) == (new.key, new.size), (
            f"head({new.key!r}) tells of {found.key!r} with {found.size} bytes, not of {new.key!r} with {new.size}; "
            "keys are literal: encode them for URLs, and decode what the service answers"
        )
        self.check_reads(new)
        return found

    def check_digests(self, sink: GuardedSink, new: NewObject) -> None:
        """Check that an object's digests are told."""
        found = sink.head(new.key)
        assert found is not None
        lost = set(new.digests) - set(found.digests)
        assert not lost, (
            f"head({new.key!r}) does not tell {', '.join(map(str, lost))}; store NewObject.digests as metadata with "
            "the object, and read them in head(), so that `mirror` knows that it is there already"
        )

    def check_reads(self, new: NewObject) -> None:
        """Check that the source of the sink's scheme reads these bytes."""
        try:
            read = self.read(new.key)
        except SourceError as exc:
            pytest.fail(
                f"what was written to {new.key!r} cannot be read: {exc}; keys are literal: encode them for URLs"
            )
        assert read in new.digests, (
            f"what {self.spec.scheme}:// reads at {new.key!r} is not what was written: it has {read}, not "
            f"{', '.join(map(str, new.digests))}"
        )

    def check_absent(self, sink: GuardedSink, key: str, why: str) -> None:
        """Check that nothing can be seen at a key."""
        assert sink.head(key) is None, f"there is an object at {key!r}, {why}"

    def read(self, key: str) -> Digest:
        """Return the BLAKE3 of an object as the source of the sink's scheme reads it."""
        core = self._core(self.stored.environment)
        if self.spec.scheme not in core.registry.styles:
            pytest.fail(f"nobody can read what is written: no installed plugin has the scheme {self.spec.scheme}://")
        uri, budget = self.uri(key), RetryBudget(retry_policy(core.settings), random.Random())  # noqa: S311 - jitter
        with closing(Resolver(core.registry, core.http)) as resolver:
            files = resolver.listing(uri).files
            assert len(files) == 1, f"the source lists {len(files)} files at {uri.display}, where one was written"
            file, source = files[0], resolver.source(uri.scheme)
            if not isinstance(source.locate(uri, file), HttpObject):
                return _digest_here(source.locate(uri, file))
            locate = partial(source.locate, uri, file)
            return core.reader.digests(locate, ("blake3",), _size(file), budget, lambda _: None)[0]

    # --------------------------------------------------------------------------------------------------------- refusals
    @contextmanager
    def refused(self, *kinds: type[NimError], rule: str) -> Iterator[None]:
        """Expect one of the contract's errors, without a secret in it; ``rule`` says why, for who has to mend it."""
        names = " or ".join(kind.__name__ for kind in kinds)
        try:
            yield
        except PluginError as exc:
            pytest.fail(f"{exc} from {exc.__cause__!r}; expected {names}: {rule}")
        except NimError as exc:
            if not isinstance(exc, kinds):
                pytest.fail(f"raises {type(exc).__name__} ({exc}), expected {names}: {rule}")
            if any(secret in f"{exc} {exc!r} {exc.hint}" for secret in self._secrets):
                pytest.fail(f"{type(exc).__name__} shows the value of a secret variable; name the variable instead")
        else:
            pytest.fail(f"nothing is raised, expected {names}: {rule}")


def _size(file: RemoteFile) -> int:
    assert file.size is not None, "the source does not tell the size of an object"
    return file.size


def _digest_here(location: object) -> Digest:
    """Return the BLAKE3 of what core reads from a file or a stream."""
    if isinstance(location, LocalObject):
        return Digest("blake3", blake3.blake3(location.path.read_bytes()).hexdigest())
    opened = getattr(location, "open", None)
    assert callable(opened), f"locate() answers {location!r}"
    with opened() as stream:
        return Digest("blake3", blake3.blake3(stream.read()).hexdigest())
