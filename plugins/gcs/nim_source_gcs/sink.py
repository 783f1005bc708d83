"""What writes objects to a bucket: at once, in one resumable upload, or by a copy that Google makes itself."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from attrs import evolve, frozen

from nim_core.errors import (
    DigestMismatchError,
    NimError,
    NotFoundError,
    PermissionDeniedError,
    RemoteChangedError,
    SizeMismatchError,
    SourceError,
    TransientError,
)
from nim_core.types import (
    Body,
    HttpAnswer,
    ModelUri,
    NewObject,
    Part,
    Secret,
    SinkContext,
    StoredObject,
    StoredPart,
    Upload,
    UriStyle,
)
from nim_source_gcs.calls import Calls
from nim_source_gcs.client import Client
from nim_source_gcs.credentials import WRITE
from nim_source_gcs.objects import CONTENT_TYPE, Generation, attributes, crc32c, new_resource
from nim_source_gcs.refs import GcsRef

_AT_ONCE: Final = 8 * 1024 * 1024
"""Up to here an object is one request, as Google's own client has it; its body is held in memory."""

_PART: Final = 64 * 1024 * 1024
"""A multiple of 256 KiB, as Google demands."""

_COPIED_PER_CALL: Final = 256 * 1024 * 1024
"""Bytes that have to move to another place, so that an answer comes while core waits for it."""

_JSON: Final = {"Content-Type": "application/json; charset=UTF-8"}
_DONE: Final = frozenset({200, 201})
_UNKNOWN: Final = frozenset({404, 410, 499})
"""What is answered about a session that expired or was given up."""

_OVER: Final = _UNKNOWN | {400, 412}
"""The same, and about one whose end was refused: for its content, or as the key is taken."""

_TAKEN: Final = "taken"
"""Stands for the generation of an object that was not made, as its key holds something else than it did."""

_SPELLED: Final = "/:?[]@!$&'()*+,;=%"
_AGAIN: Final = "run the command again"

_RANGE = re.compile(r"bytes=0-(\d+)")


@frozen
class _Progress:
    """
    How far a session is.

    Attributes:
        committed: Bytes that Google keeps, from the first one on.
        generation: Of the object that it became. Empty before that.
    """

    committed: int
    generation: str = ""


class GcsSink:
    """
    The sink for ``gs://``.

    Every write names the generation it replaces, and the CRC-32C by which Google refuses other content. A large object
    is one session, by which another process can go on; until its last byte is there, its key holds what it held.
    """

    def __init__(self, context: SinkContext, *, clock: Callable[[], float] = time.time) -> None:
        self._client = Client(context, WRITE, clock)
        self._bucket = GcsRef.parse(ModelUri(scheme="gs", location=context.bucket, style=UriStyle.OBJECT))
        self._calls = Calls(self._client, self._bucket.bucket, context.send)
        self._known: dict[Secret, _Progress] = {}

    def head(self, key: str) -> StoredObject | None:
        """Return the object at ``key``. None when it, or the bucket, is not there."""
        found = self._client.object(self._ref(key))
        return None if found is None else found.stored

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        """Return all objects whose keys begin with ``prefix``. Raises NotFoundError when there is no such bucket."""
        return (found.stored for found in self._client.objects(self._bucket, prefix))

    def put(self, new: NewObject, body: Body) -> None:
        """Write an object by one request that carries its digests, too. Raises as the contract says."""
        with body.open() as stream:
            content = stream.read()
        if len(content) != new.size:
            raise SizeMismatchError(f"{len(content)} bytes to be sent, not {new.size}: {self._ref(new.key)}")
        headers, data = _related(new_resource(new), content)
        sent = Body(path=body.path, size=len(data), data=data)
        self._written(new, self._calls.send("POST", self._insert("multipart", new), headers, sent))

    def close(self) -> None:
        """Forget how far sessions are."""
        self._known.clear()

    # ------------------------------------------------------------------------------------------------ resumable uploads
    def part_bytes(self, size: int) -> int | None:
        """Return the size of the parts of a session. None: one request."""
        return None if size <= _AT_ONCE else _PART

    def begin(self, new: NewObject, token: Secret | None) -> Upload:
        """Start a session, or go on with that of ``token`` if it is there still and for the very same."""
        progress = None if token is None else self._resumed(new, token)
        if token is None or progress is None:
            token, progress = self._started(new), _Progress(0)
        self._known[token] = progress
        return Upload(token=token, part_bytes=_PART, ordered=True, stored=_parts(new, progress))

    def put_part(self, new: NewObject, upload: Upload, part: Part) -> StoredPart:
        """
        Send what a session lacks of a part.

        Google checks the CRC-32C of all parts together, with the last one. That the key is taken comes out then, too,
        and is left to :meth:`finish`.
        """
        try:
            tag = self._sent(new, upload, part)
        except RemoteChangedError:
            tag = _TAKEN
        return StoredPart(number=part.number, size=part.body.size, tag=tag)

    def _sent(self, new: NewObject, upload: Upload, part: Part) -> str:
        """Send what a session lacks of a part; return the object's generation when that was the last."""
        begins = (part.number - 1) * upload.part_bytes
        ends = begins + part.body.size
        progress = self._known.pop(upload.token, None) or self._ask(new, upload.token)
        while progress.committed < ends:
            before = progress.committed
            if before >= begins:
                rest = _rest(part.body, before - begins)
                progress = self._progress(new, self._send_part(new, upload.token, rest, before))
            if progress.committed <= before:
                raise TransientError(f"upload does not get on: {self._ref(new.key)}", uri=str(self._ref(new.key)))
        self._known[upload.token] = progress
        return progress.generation

    def finish(self, new: NewObject, upload: Upload, parts: Sequence[StoredPart]) -> None:
        """See to it that the object is there: the last part made it. Raises as :meth:`put`."""
        tag = parts[-1].tag
        generation = self._held(new) if tag == _TAKEN else tag or self._ask(new, upload.token).generation
        ref = self._ref(new.key)
        if not generation:
            raise TransientError(f"upload is not complete: {ref}", uri=str(ref))
        found = self._client.object(ref, int(generation))
        if found is None or found.number != int(generation):
            raise self._changed(new)
        self._accept(new, found)
        self._known.pop(upload.token, None)

    def abort(self, new: NewObject, upload: Upload) -> None:
        """Give up a session."""
        self._known.pop(upload.token, None)
        answer = self._calls.ask("DELETE", _target(upload.token))
        if answer.status >= 300 and answer.status not in _UNKNOWN:
            raise self._refusal(new, answer)

    # ----------------------------------------------------------------------------------------------------------- copies
    def copy(self, new: NewObject, uri: ModelUri) -> bool:
        """Have Google copy an object that is in a bucket of the same service already. Raises as :meth:`put`."""
        if uri.scheme != "gs":
            return False
        source = GcsRef.parse(uri)
        try:
            found = None if source.is_prefix else self._client.object(source)
        except (NotFoundError, PermissionDeniedError):
            return False
        return found is not None and found.vouches_for(new) and self._copied(new, source, found.number)

    def _copied(self, new: NewObject, source: GcsRef, generation: int) -> bool:
        """Copy one generation, in as many requests as it takes; False when Google is not willing to."""
        ref = self._ref(new.key)
        target = f"/storage/v1/{source.place}/rewriteTo/{ref.place}?sourceGeneration={generation}&{_condition(new)}"
        target += f"&maxBytesRewrittenPerCall={_COPIED_PER_CALL}"
        content = json.dumps(attributes(new)).encode()
        token = ""
        while True:
            answer = self._calls.ask("POST", target + token, _JSON, content, repeatable=False)
            if answer.status in {400, 403, 404}:
                return False
            if answer.status != 200:
                self._written(new, answer)
                return True
            with self._client.judging(ref):
                told = json.loads(answer.body)
                found = Generation.read(told["resource"]) if told["done"] else None
                token = f"&rewriteToken={quote(told['rewriteToken'], safe='')}" if found is None else ""
            if found is not None:
                self._accept(new, found)
                return True

    # --------------------------------------------------------------------------------------------------------- sessions
    def _started(self, new: NewObject) -> Secret:
        headers = {**_JSON, "X-Upload-Content-Type": CONTENT_TYPE, "X-Upload-Content-Length": str(new.size)}
        content = json.dumps(new_resource(new)).encode()
        answer = self._calls.ask("POST", self._insert("resumable", new), headers, content)
        if answer.status == 412:
            raise self._changed(new)
        if answer.status not in _DONE:
            raise self._refusal(new, answer)
        with self._client.judging(self._ref(new.key)):
            place = urlsplit(quote(answer.headers["location"], safe=_SPELLED))
        # Without its host: tokens go to the endpoint that the user named, and to no other.
        return Secret(f"{self._mark(new)} {place.path}?{place.query}")

    def _mark(self, new: NewObject) -> str:
        """Return what tells sessions for different things apart."""
        facts = [self._client.url, self._bucket.bucket, new.size, new_resource(new), _condition(new)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def _resumed(self, new: NewObject, token: Secret) -> _Progress | None:
        """Return how far an earlier session is. None when it is over, or was for something else."""
        if token.reveal().partition(" ")[0] != self._mark(new):
            return None
        answer = self._status(new, token)
        return None if answer.status in _OVER else self._progress(new, answer)

    def _ask(self, new: NewObject, token: Secret) -> _Progress:
        return self._progress(new, self._status(new, token))

    def _status(self, new: NewObject, token: Secret) -> HttpAnswer:
        return self._calls.ask("PUT", _target(token), {"Content-Range": f"bytes */{new.size}"})

    def _send_part(self, new: NewObject, token: Secret, body: Body, begins: int) -> HttpAnswer:
        ends = begins + body.size
        headers = {"Content-Range": f"bytes {begins}-{ends - 1}/{new.size}"}
        if ends < new.size:
            return self._calls.send("PUT", _target(token), headers, body)
        headers["X-Goog-Hash"] = f"crc32c={crc32c(new)}"
        answer = self._calls.send("PUT", _target(token), headers, body)
        if answer.status == 400:
            raise DigestMismatchError(f"other content arrived than was sent: {self._ref(new.key)}", hint=_AGAIN)
        return answer

    def _progress(self, new: NewObject, answer: HttpAnswer) -> _Progress:
        """Read the answer to a part, or to the question how far the session is."""
        if answer.status == 308:
            match = _RANGE.fullmatch(answer.headers.get("range", ""))
            return _Progress(0 if match is None else int(match[1]) + 1)
        if answer.status in _UNKNOWN:
            ref = self._ref(new.key)
            lost = NotFoundError(f"the upload is not known any more: {ref}", hint=_AGAIN, uri=str(ref))
            return _Progress(new.size, self._held(new, lost))
        return _Progress(new.size, self._written(new, answer))

    # --------------------------------------------------------------------------------------------- requests and answers
    def _ref(self, key: str) -> GcsRef:
        return evolve(self._bucket, key=key)

    def _insert(self, kind: str, new: NewObject) -> str:
        return f"/upload/storage/v1/b/{self._bucket.bucket}/o?uploadType={kind}&{_condition(new)}"

    def _written(self, new: NewObject, answer: HttpAnswer) -> str:
        """Return the generation that a request made."""
        if answer.status == 412:
            return self._held(new)
        if answer.status not in _DONE:
            raise self._refusal(new, answer)
        with self._client.judging(self._ref(new.key)):
            found = Generation.read(json.loads(answer.body))
        return self._accept(new, found)

    def _held(self, new: NewObject, otherwise: NimError | None = None) -> str:
        """
        Return the generation when the key holds already what was to be written, as when the answer to an earlier try
        was lost. Raises ``otherwise``, or else RemoteChangedError.
        """
        found = self._client.object(self._ref(new.key))
        if found is None or not found.holds(new):
            raise otherwise or self._changed(new)
        return str(found.number)

    def _accept(self, new: NewObject, found: Generation) -> str:
        """Return the generation when it is what was to be written; another one is deleted."""
        if found.holds(new):
            return str(found.number)
        ref = self._ref(new.key)
        kind = DigestMismatchError if found.size == new.size else SizeMismatchError
        answer = self._calls.ask("DELETE", f"/storage/v1/{ref.place}?generation={found.number}")
        deleted = answer.status < 300 or answer.status in _UNKNOWN
        left = "it was deleted" if deleted else "it could not be deleted: delete it by hand"
        raise kind(f"other content arrived than was sent: {ref}", hint=left)

    def _changed(self, new: NewObject) -> RemoteChangedError:
        return RemoteChangedError(f"somebody else wrote there in the meantime: {self._ref(new.key)}", hint=_AGAIN)

    def _refusal(self, new: NewObject, answer: HttpAnswer) -> SourceError:
        return self._client.refusal(self._ref(new.key), answer.status)


def _condition(new: NewObject) -> str:
    """Return the parameter that lets a write replace just what it may; generation 0 stands for nothing at all."""
    return f"ifGenerationMatch={'0' if new.replaces is None else new.replaces.version}"


def _target(token: Secret) -> str:
    return token.reveal().partition(" ")[2]


def _parts(new: NewObject, progress: _Progress) -> tuple[StoredPart, ...]:
    """Return the parts that a session has whole."""
    whole = -(-new.size // _PART) if progress.generation else progress.committed // _PART
    sizes = [min(_PART, new.size - _PART * number) for number in range(whole)]
    return tuple(
        StoredPart(number=number, size=size, tag=progress.generation) for number, size in enumerate(sizes, start=1)
    )


def _rest(body: Body, skip: int) -> Body:
    """Return a body without its first bytes."""
    data = None if body.data is None else body.data[skip:]
    return evolve(body, offset=body.offset + skip, size=body.size - skip, data=data)


def _related(resource: Mapping[str, Any], content: bytes) -> tuple[dict[str, str], bytes]:
    """Return headers and bytes of a body that holds an object's resource and its content (``multipart/related``)."""
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {_JSON['Content-Type']}\r\n\r\n{json.dumps(resource)}\r\n"
    head += f"--{boundary}\r\nContent-Type: {CONTENT_TYPE}\r\n\r\n"
    data = b"".join((head.encode(), content, f"\r\n--{boundary}--".encode()))
    return {"Content-Type": f"multipart/related; boundary={boundary}"}, data
