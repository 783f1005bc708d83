"""Objects into a bucket: hashed, skipped where they are there, sent at once or in parts, and finished."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final, Literal, Protocol, TypeVar

from attrs import define, evolve, field, frozen

from nim_core.errors import NimError, NotFoundError, RateLimitedError, RemoteChangedError, TransientError
from nim_core.mirror.hashing import Hashed, hash_file, hash_part
from nim_core.mirror.keys import Planned, agrees
from nim_core.mirror.tasks import Tasks
from nim_core.mirror.tokens import Tokens
from nim_core.registry.guard import GuardedSink
from nim_core.transfer.retry import RetryBudget, RetryPolicy
from nim_core.types import Body, Digest, NewObject, Part, Secret, StoredObject, StoredPart, Upload

__all__ = ["Listener", "ObjectResult", "Uploader"]

T = TypeVar("T")
_LARGE_AT_ONCE: Final = 2
"""Files that are read at once before they are sent; more would only wait for each other's bytes."""

_STOP_SECONDS: Final = 2.0


@frozen(kw_only=True)
class ObjectResult:
    """
    What became of an object.

    Attributes:
        key: Literal.
        path: Inside the workspace.
        uri: Display form of the file's URI.
        size: Bytes.
        state: ``uploaded``; ``copied`` by the store itself; ``present``, as it was right already.
    """

    key: str
    path: str
    uri: str
    size: int
    state: Literal["uploaded", "copied", "present"]


class Listener(Protocol):
    """Hears how uploads go on, from any thread; must return at once."""

    def sent(self, count: int) -> None:
        """Hear of bytes that were sent; negative where they have to be sent again."""

    def stored(self, result: ObjectResult) -> None:
        """Hear of an object that is there."""

    def retried(self, key: str, reason: str, seconds: float) -> None:
        """Hear that something is tried again after some seconds."""


@frozen(kw_only=True, eq=False)
class _File:
    """A file that was read, and the object it becomes."""

    planned: Planned
    path: Path
    hashed: Hashed

    def replacing(self, there: StoredObject | None) -> NewObject:
        """Return what is written where ``there`` is now."""
        return NewObject(key=self.planned.key, size=self.hashed.size, digests=self.hashed.digests, replaces=there)


@define(eq=False)
class _Large:
    """
    A file under way in parts.

    Attributes:
        file: What is sent.
        new: What is written.
        upload: The store's own notion of it.
        tries: How often it was begun.
        parts: Those that are there.
        missing: Numbers of those that are not, in order.
        lost: Whether the store no longer knows it, and another upload has been begun.
    """

    file: _File
    new: NewObject
    upload: Upload
    tries: int
    parts: dict[int, StoredPart]
    missing: list[int]
    lost: bool = False
    lock: Lock = field(factory=Lock)

    def place(self, number: int) -> tuple[int, int]:
        """Return offset and size of a part."""
        offset = (number - 1) * self.upload.part_bytes
        return offset, min(self.upload.part_bytes, self.new.size - offset)


class Uploader:
    """
    Writes objects; all of a run share its threads.

    Args:
        sink: Where to.
        stored: What is there, by key.
        tokens: Of uploads that earlier runs began.
        policy: How often something is tried again.
        connections: Requests at once.
        listener: Hears of it.
    """

    def __init__(
        self,
        *,
        sink: GuardedSink,
        stored: Mapping[str, StoredObject],
        tokens: Tokens,
        policy: RetryPolicy,
        connections: int,
        listener: Listener,
    ) -> None:
        self._sink = sink
        self._stored = stored
        self._tokens = tokens
        self._policy = policy
        self._listener = listener
        self._tasks = Tasks("nim-upload", connections, _LARGE_AT_ONCE)
        self._results: dict[str, ObjectResult] = {}
        self._sent = 0
        self._lock = Lock()

    @property
    def bytes_sent(self) -> int:
        """Bytes that were sent and taken until now, without those of failed attempts and earlier runs."""
        return self._sent

    def add(self, planned: Planned, path: Path, size: int, digests: Sequence[Digest]) -> None:
        """
        Have a file written, soon. Raises what has failed until now, if anything has.

        Args:
            planned: The object.
            path: The file.
            size: Bytes, as far as is known.
            digests: Seen when it was fetched.
        """
        expected = tuple({digest.algorithm: digest for digest in (*digests, *planned.digests)}.values())
        heavy = self._sink.part_bytes(size) is not None
        self._tasks.begin(partial(self._begin, planned, path, expected), heavy=heavy)

    def copy(self, planned: Planned, size: int, digests: Sequence[Digest]) -> bool:
        """Have the store copy an object that it has under another name; say whether it did."""
        new = NewObject(key=planned.key, size=size, digests=tuple(digests), replaces=self._stored.get(planned.key))
        try:
            copied = self._persist(planned, lambda _: self._sink.copy(new, planned.uri))
        except RemoteChangedError:
            return False
        if copied:
            self._note(planned, size, "copied")
        return copied

    def finish(self) -> Mapping[str, ObjectResult]:
        """Wait until all that was added is there, and return it by key. Raises the first failure."""
        self._tasks.wait()
        return self._results

    def stop(self) -> None:
        """End the threads; what is under way can be gone on with by another run."""
        self._tasks.stop(_STOP_SECONDS)

    def _begin(self, planned: Planned, path: Path, expected: tuple[Digest, ...]) -> None:
        hashed = hash_file(path, expected, self._sink.part_bytes, self._tasks.stopping.is_set)
        self._write(_File(planned=planned, path=path, hashed=hashed), self._stored.get(planned.key))

    def _write(self, file: _File, there: StoredObject | None) -> None:
        if there is not None and agrees(there, file.hashed.size, file.hashed.digests):
            self._note(file.planned, file.hashed.size, "present")
            return
        new = file.replacing(there)
        if file.hashed.data is None and self._sink.part_bytes(new.size) is not None:
            self._unless_changed(file, new, partial(self._open, file, new, self._tokens.find(new)))
        else:
            self._unless_changed(file, new, partial(self._put, file, new))

    def _put(self, file: _File, new: NewObject) -> None:
        def put(count: Callable[[int], None]) -> None:
            self._sink.put(new, Body(path=file.path, size=new.size, data=file.hashed.data, progress=count))

        self._persist(file.planned, put)
        self._note(file.planned, new.size, "uploaded")

    def _unless_changed(self, file: _File, new: NewObject, write: Callable[[], None]) -> None:
        """Write; where somebody else wrote the same key meanwhile, go by what it holds now."""
        try:
            write()
        except RemoteChangedError:
            found = self._persist(file.planned, lambda _: self._sink.head(new.key))
            if found == new.replaces:
                raise
            self._write(file, found)

    # ------------------------------------------------------------------------------------------------------- in parts
    def _open(self, file: _File, new: NewObject, token: Secret | None, tries: int = 1) -> None:
        """Begin an upload, or go on with one: parts that the store has are not sent again."""
        upload = self._persist(file.planned, lambda _: self._sink.begin(new, token))
        self._tokens.keep(new, upload.token)
        if upload.part_bytes != self._sink.part_bytes(new.size):
            stopped = self._tasks.stopping.is_set
            file = evolve(file, hashed=hash_file(file.path, new.digests, lambda _: upload.part_bytes, stopped))
        large = _Large(file=file, new=new, upload=upload, tries=tries, parts={}, missing=[])
        large.parts = {part.number: _known(large, part) for part in upload.stored if _is_right(large, part)}
        large.missing = [number + 1 for number in range(len(file.hashed.parts)) if number + 1 not in large.parts]
        self._listener.sent(sum(part.size for part in large.parts.values()))
        if not large.missing:
            self._tasks.go_on(partial(self._close, large))
        for number in large.missing[:1] if upload.ordered else tuple(large.missing):
            self._tasks.go_on(partial(self._send_part, large, number))

    def _send_part(self, large: _Large, number: int) -> None:
        offset, size = large.place(number)

        def send(count: Callable[[int], None]) -> StoredPart:
            body = Body(path=large.file.path, offset=offset, size=size, progress=count)
            part = Part(number=number, body=body, crc32c=large.file.hashed.parts[number - 1])
            return self._sink.put_part(large.new, large.upload, part)

        if large.lost:
            return
        try:
            stored = self._persist(large.file.planned, send)
        except NotFoundError:
            self._begin_again(large)
            return
        with large.lock:
            large.parts[number] = stored
            large.missing.remove(number)
            rest = tuple(large.missing)
        if large.lost:
            return
        if not rest:
            self._close(large)
        elif large.upload.ordered:
            self._tasks.go_on(partial(self._send_part, large, rest[0]))

    def _begin_again(self, large: _Large) -> None:
        """Begin another upload where the store has lost one, as often as the policy allows; its parts go with it."""
        with large.lock:
            first, large.lost = not large.lost, True
        if not first or self._is_there(large):
            return
        if large.tries > self._policy.retries:
            raise TransientError(f"the store loses uploads of it again and again: {large.new.key}")
        self._listener.sent(-sum(part.size for part in large.parts.values()))
        self._tokens.forget(large.new)
        self._open(large.file, large.new, large.upload.token, large.tries + 1)

    def _is_there(self, large: _Large) -> bool:
        """Whether the object is there all the same: an answer was lost, or another mirror was faster."""
        found = self._persist(large.file.planned, lambda _: self._sink.head(large.new.key))
        if found is None or not agrees(found, large.new.size, large.new.digests):
            return False
        self._tokens.forget(large.new)
        self._note(large.file.planned, large.new.size, "uploaded")
        return True

    def _close(self, large: _Large) -> None:
        """Make the object of its parts; where that fails, begin again with what the store has."""
        try:
            self._unless_changed(large.file, large.new, partial(self._finish_parts, large))
        except NimError as exc:
            if not (exc.retryable or isinstance(exc, NotFoundError)):
                raise
            self._begin_again(large)

    def _finish_parts(self, large: _Large) -> None:
        self._sink.finish(large.new, large.upload, tuple(large.parts[number] for number in sorted(large.parts)))
        self._tokens.forget(large.new)
        self._note(large.file.planned, large.new.size, "uploaded")

    # --------------------------------------------------------------------------------------------------------- calling
    def _persist(self, planned: Planned, call: Callable[[Callable[[int], None]], T]) -> T:
        """Call until it succeeds or the policy's patience is over; bytes of failed calls are counted back."""
        budget = RetryBudget(self._policy, random.Random())  # noqa: S311 - jitter
        while True:
            counter = _Counter(self._listener.sent)
            try:
                answer = call(counter.add)
            except NimError as exc:
                counter.take_back()
                asked = exc.retry_after if isinstance(exc, RateLimitedError) else None
                wait = budget.next_wait(asked) if exc.retryable else None
                if wait is None or self._tasks.stopping.is_set():
                    raise
                self._listener.retried(planned.key, exc.message, wait)
                self._tasks.stopping.wait(wait)
            else:
                with self._lock:
                    self._sent += counter.count
                return answer

    def _note(self, planned: Planned, size: int, state: Literal["uploaded", "copied", "present"]) -> None:
        result = ObjectResult(key=planned.key, path=planned.path, uri=planned.uri.display, size=size, state=state)
        self._results[planned.key] = result
        self._listener.stored(result)


class _Counter:
    """Counts the bytes of one attempt in ``count``."""

    def __init__(self, sent: Callable[[int], None]) -> None:
        self._sent = sent
        self.count = 0

    def add(self, count: int) -> None:
        self.count += count
        self._sent(count)

    def take_back(self) -> None:
        self._sent(-self.count)


def _known(large: _Large, part: StoredPart) -> StoredPart:
    """Return a part that is right with the checksum it therefore has, which not every store lists."""
    return part if large.upload.ordered else evolve(part, digests=(large.file.hashed.parts[part.number - 1],))


def _is_right(large: _Large, part: StoredPart) -> bool:
    """Whether a part of an earlier try holds what it has to; those of an ordered upload are judged when it is whole."""
    crcs = large.file.hashed.parts
    if not 1 <= part.number <= len(crcs) or part.size != large.place(part.number)[1]:
        return False
    known = {digest.algorithm: digest for digest in part.digests}
    if large.upload.ordered or "crc32c" in known:
        return large.upload.ordered or known["crc32c"] == crcs[part.number - 1]
    offset, size = large.place(part.number)
    return bool(known) and all(hash_part(large.file.path, offset, size, name) == it for name, it in known.items())
