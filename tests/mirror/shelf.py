"""A sink that is a folder, with everything that may go wrong on order."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
from attrs import define, evolve, field

from nim_core.cache.layout import Layout
from nim_core.errors import RemoteChangedError, TransientError
from nim_core.mirror.keys import Planned
from nim_core.mirror.tokens import Tokens
from nim_core.mirror.upload import ObjectResult, Uploader
from nim_core.registry.guard import guard_sink
from nim_core.registry.info import PluginInfo
from nim_core.transfer.retry import RetryPolicy
from nim_core.types import (
    Body,
    Digest,
    ModelUri,
    NewObject,
    Part,
    Secret,
    StoredObject,
    StoredPart,
    Upload,
)

PART = 2 << 20


@define(eq=False)
class Shelf:
    """
    A store in memory.

    Attributes:
        objects: What is readable: bytes and record by key.
        uploads: Parts of unfinished uploads by token.
        ordered: Whether parts have to come in order.
        calls: Names of the methods that were called, in order.
        faults: What a method raises, once per item, before it does anything.
    """

    ordered: bool = False
    objects: dict[str, tuple[bytes, StoredObject]] = field(factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(factory=dict)
    calls: list[str] = field(factory=list)
    faults: dict[str, list[Exception]] = field(factory=dict)
    lock: threading.Lock = field(factory=threading.Lock)
    version: int = 0

    def head(self, key: str) -> StoredObject | None:
        self.begun("head")
        return self.objects[key][1] if key in self.objects else None

    def list_objects(self, prefix: str) -> Iterable[StoredObject]:
        self.begun("list_objects")
        return [evolve(item, digests=()) for key, (_, item) in self.objects.items() if key.startswith(prefix)]

    def put(self, new: NewObject, body: Body) -> None:
        self.begun("put")
        with body.open() as source:
            self.store(new, source.read())

    def part_bytes(self, size: int) -> int | None:
        return PART if size > PART else None

    def begin(self, new: NewObject, token: Secret | None) -> Upload:
        self.begun("begin")
        name = token.reveal() if token and token.reveal() in self.uploads else f"upload-{len(self.uploads)}-{new.key}"
        parts = self.uploads.setdefault(name, {})
        stored = tuple(
            StoredPart(number=number, size=len(data), tag=str(number), digests=() if self.ordered else (crc(data),))
            for number, data in sorted(parts.items())
        )
        return Upload(token=name, part_bytes=PART, ordered=self.ordered, stored=stored)

    def put_part(self, new: NewObject, upload: Upload, part: Part) -> StoredPart:
        self.begun("put_part")
        with part.body.open() as source:
            data = source.read()
        assert crc(data) == part.crc32c
        with self.lock:
            parts = self.uploads[upload.token.reveal()]
            assert not self.ordered or part.number == len(parts) + 1
            parts[part.number] = data
        return StoredPart(number=part.number, size=len(data), tag=str(part.number))

    def finish(self, new: NewObject, upload: Upload, parts: Sequence[StoredPart]) -> None:
        self.begun("finish")
        assert [part.tag for part in parts] == [str(number + 1) for number in range(len(parts))]
        held = self.uploads.get(upload.token.reveal(), {})
        if len(held) < len(parts):
            raise TransientError("upload is gone")
        self.store(new, b"".join(held[part.number] for part in parts))
        del self.uploads[upload.token.reveal()]

    def abort(self, new: NewObject, upload: Upload) -> None:
        self.begun("abort")
        self.uploads.pop(upload.token.reveal(), None)

    def close(self) -> None:
        pass

    def begun(self, name: str) -> None:
        with self.lock:
            self.calls.append(name)
            fault = self.faults[name].pop(0) if self.faults.get(name) else None
        if fault is not None:
            raise fault

    def store(self, new: NewObject, data: bytes) -> None:
        with self.lock:
            there = self.objects[new.key][1] if new.key in self.objects else None
            if there != new.replaces:
                raise RemoteChangedError(f"not what it was: {new.key}")
            self.version += 1
            stored = StoredObject(key=new.key, size=len(data), digests=new.digests, version=str(self.version))
            self.objects[new.key] = data, stored


def crc(data: bytes) -> Digest:
    return Digest("crc32c", f"{google_crc32c.value(data):08x}")


@define
class Heard:
    """What a listener hears."""

    bytes: int = 0
    results: list[ObjectResult] = field(factory=list)
    retries: list[str] = field(factory=list)
    lock: threading.Lock = field(factory=threading.Lock)

    def sent(self, count: int) -> None:
        with self.lock:
            self.bytes += count

    def stored(self, result: ObjectResult) -> None:
        self.results.append(result)

    def retried(self, key: str, reason: str, seconds: float) -> None:
        self.retries.append(reason)


@define
class Mirror:
    """Uploads files of a folder to a shelf."""

    folder: Path
    shelf: Shelf = field(factory=Shelf)
    heard: Heard = field(factory=Heard)

    def file(self, name: str, data: bytes, *digests: Digest) -> tuple[Planned, Path, int, tuple[Digest, ...]]:
        path = self.folder / name
        path.write_bytes(data)
        uri = ModelUri(scheme="x", location="org/model", revision="1", file=name)
        return Planned(key=f"key%2F{name}", uri=uri, path=name, digests=digests), path, len(data), ()

    def run(self, *files: Any, stored: dict[str, StoredObject] | None = None) -> dict[str, str]:
        """Upload; return the state of each object."""
        uploader = Uploader(
            sink=guard_sink(lambda: self.shelf, PluginInfo(name="shelf", distribution="shelf", version="1")),
            stored=stored or {},
            tokens=Tokens(Layout(self.folder / "cache"), "shelf"),
            policy=RetryPolicy(retries=3, base_seconds=0.001),
            connections=4,
            listener=self.heard,
        )
        try:
            for file in files:
                uploader.add(*file)
            return {key: result.state for key, result in uploader.finish().items()}
        finally:
            uploader.stop()
