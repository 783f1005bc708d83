"""Objects written to a bucket: at once, in parts, or by the store itself from another object."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attrs import evolve

from nim_core.errors import (
    ConfigError,
    NimError,
    NotFoundError,
    PermissionDeniedError,
    RemoteChangedError,
    SizeMismatchError,
    SourceError,
)
from nim_core.types import (
    Body,
    Digest,
    ModelUri,
    NewObject,
    Part,
    Secret,
    SinkContext,
    StoredObject,
    StoredPart,
    Upload,
)
from nim_source_s3.client import Access
from nim_source_s3.errors import UploadGoneError, may_be_unknown
from nim_source_s3.refs import S3Ref
from nim_source_s3.requests import Asked, Requests
from nim_source_s3.store import Facts, metadata, strong_etag

_MIB: Final = 1 << 20
_AT_ONCE_BYTES: Final = 64 * _MIB
_PART_BYTES: Final = 32 * _MIB
_COPY_BYTES: Final = 512 * _MIB
"""What one request copies: it has to be answered before core's client loses patience. S3's own limit is 5 GiB."""

_MAX_PARTS: Final = 10_000
_STALE: Final = timedelta(days=1)
_MD5: Final = re.compile(r'"?(?P<value>[0-9a-f]{32})"?')
_HEADERS: Final = {"IfMatch": "if-match", "IfNoneMatch": "if-none-match"}


class S3Sink:
    """
    The sink behind ``s3://``.

    boto3 finds credentials and makes requests without bodies; bodies go to presigned URLs. An object carries its
    digests as metadata. Conditions keep mirrors from replacing each other's objects, and checksums make the store
    refuse damaged bodies; where a store turns out not to know one of the two, it is left out.
    """

    def __init__(self, context: SinkContext) -> None:
        self._requests = Requests(context)
        self._requests.ref("")

    def head(self, key: str) -> StoredObject | None:
        """Return what the store says, and the digests in its metadata."""
        facts = self._requests.head(self._requests.ref(key))
        if facts is None:
            return None
        return StoredObject(key=key, size=facts.size, digests=facts.digests, version=facts.etag)

    def list_objects(self, prefix: str) -> Iterable[StoredObject]:
        """List: sizes and versions, no digests."""
        return self._requests.store.listing(self._requests.ref(prefix), prefix, _listed)

    def put(self, new: NewObject, body: Body) -> None:
        """Write by one PUT; the store compares the CRC-32C."""
        described = {f"x-amz-meta-{name}": value for name, value in metadata(new.digests).items()}

        def request(access: Access, asked: Asked) -> None:
            condition = {_HEADERS[name]: value for name, value in _condition(new, asked).items()}
            headers = {**described, **condition, **_checksum(new.digests, asked)}
            self._requests.put(access, self._requests.ref(new.key), body, headers=headers)

        self._commit(new, request)

    def close(self) -> None:
        """Nothing is open."""

    def _commit(self, new: NewObject, request: Callable[[Access, Asked], object]) -> None:
        """Make the request that makes an object visible; it, or another mirror's, may have been made already."""
        ref = self._requests.ref(new.key)
        try:
            self._requests.tried(ref, request)
        except (RemoteChangedError, UploadGoneError):
            found = self.head(new.key)
            if found is None or not _is_described(found, new):
                raise
        except NotFoundError as exc:
            if new.replaces is None:
                raise
            raise RemoteChangedError(f"somebody else has removed {ref}", hint="mirror again") from exc

    # ------------------------------------------------------------------------------------------------------- in parts
    def part_bytes(self, size: int) -> int | None:
        """Return 32 MiB, or more where 10,000 parts would not do; up to 64 MiB are written at once."""
        return None if size <= _AT_ONCE_BYTES else _part_bytes(size, _PART_BYTES)

    def begin(self, new: NewObject, token: Secret | None) -> Upload:
        """Go on with the upload of the token, else with one of the same key and parts of the same size, else begin."""
        ref, part_bytes = self._requests.ref(new.key), _part_bytes(new.size, _PART_BYTES)
        for known in self._candidates(ref, token):
            parts = self._stored(ref, known)
            if parts is not None and all(_fits(part, new.size, part_bytes) for part in parts):
                return Upload(token=known, part_bytes=part_bytes, stored=parts)
        return Upload(token=self._create(new), part_bytes=part_bytes)

    def put_part(self, new: NewObject, upload: Upload, part: Part) -> StoredPart:
        """Send a part; the store compares its CRC-32C."""
        ref = self._requests.ref(new.key)
        query = {"partNumber": str(part.number), "uploadId": upload.token.reveal()}

        def request(access: Access, asked: Asked) -> StoredPart:
            headers = _checksum((part.crc32c,), asked)
            answer = self._requests.put(access, ref, part.body, headers=headers, query=query)
            return _stored_part(part.number, part.body.size, answer["etag"], answer.get("x-amz-checksum-crc32c", ""))

        return self._requests.tried(ref, request)

    def finish(self, new: NewObject, upload: Upload, parts: Sequence[StoredPart]) -> None:
        """Complete the upload; an object that was begun without these digests gets them by a copy onto itself."""
        size = sum(part.size for part in parts)
        if size != new.size:
            raise SizeMismatchError(f"parts of {size} bytes, not {new.size}: {self._requests.ref(new.key)}")
        self._complete(new, upload, parts)
        ref, found = self._requests.ref(new.key), self.head(new.key)
        if found is not None and found.version is not None and not _is_described(found, new):
            self._copy(evolve(new, replaces=found), ref, found.version)
        with suppress(SourceError):
            self._sweep(ref)

    def abort(self, new: NewObject, upload: Upload) -> None:
        """Drop the parts."""
        with suppress(UploadGoneError):
            self._drop(self._requests.ref(new.key), upload.token)

    def _candidates(self, ref: S3Ref, token: Secret | None) -> Iterator[Secret]:
        """Yield uploads that may be this object's: the known one, then others to its key, newest first."""
        if token is not None:
            yield token
        try:
            found = self._unfinished(ref)
        except SourceError as exc:
            if exc.retryable:
                raise
            return  # not everybody may list uploads, not every store can, and rclone calls it an error to have none
        yield from (other for _, other in found if other != token)

    def _unfinished(self, ref: S3Ref) -> list[tuple[datetime, Secret]]:
        """Return uploads to this very key with the time they were begun, newest first."""

        def question(access: Access) -> list[tuple[datetime, Secret]]:
            pages = access.client.get_paginator("list_multipart_uploads")
            asked = pages.paginate(Bucket=ref.bucket, Prefix=ref.key, **self._requests.store.payer)
            found = [upload for page in asked for upload in page.get("Uploads", ()) if upload["Key"] == ref.key]
            found.sort(key=lambda upload: upload["Initiated"], reverse=True)
            return [(upload["Initiated"], Secret(upload["UploadId"])) for upload in found]

        return self._requests.store.ask(ref, question)

    def _stored(self, ref: S3Ref, token: Secret) -> tuple[StoredPart, ...] | None:
        """Return the parts of an upload. None: it is gone, somebody else's, or checked by another kind of checksum."""

        def question(access: Access) -> tuple[StoredPart, ...] | None:
            pages = list(access.client.get_paginator("list_parts").paginate(**self._requests.upload(ref, token)))
            if any(page.get("ChecksumAlgorithm", "CRC32C") != "CRC32C" for page in pages):
                return None
            return tuple(_listed_part(part) for page in pages for part in page.get("Parts", ()))

        try:
            return self._requests.store.ask(ref, question)
        except (NotFoundError, PermissionDeniedError):
            return None

    def _create(self, new: NewObject) -> Secret:
        ref = self._requests.ref(new.key)
        wanted = {**self._requests.object(ref), "Metadata": metadata(new.digests)}

        def request(access: Access, asked: Asked) -> Secret:
            checksum = {"ChecksumAlgorithm": "CRC32C"} if Asked.CHECKSUM in asked else {}
            return Secret(access.client.create_multipart_upload(**wanted, **checksum)["UploadId"])

        return self._requests.tried(ref, request)

    def _complete(self, new: NewObject, upload: Upload, parts: Sequence[StoredPart]) -> None:
        wanted: dict[str, Any] = {**self._requests.upload(self._requests.ref(new.key), upload.token)}
        wanted["MultipartUpload"] = {"Parts": [_named(part) for part in parts]}
        complete = all(_crc32c(part.digests) for part in parts)

        def request(access: Access, asked: Asked) -> None:
            try:
                access.client.complete_multipart_upload(**wanted, **_condition(new, asked))
            except access.client.exceptions.ClientError as exc:
                if complete or not may_be_unknown(exc.response):
                    raise
                self.abort(new, upload)  # SeaweedFS wants the checksums of parts that it does not list
                raise UploadGoneError(f"the store cannot go on with {self._requests.ref(new.key)}") from exc

        self._commit(new, request)

    def _drop(self, ref: S3Ref, token: Secret) -> None:
        wanted = self._requests.upload(ref, token)
        self._requests.store.ask(ref, lambda access: access.client.abort_multipart_upload(**wanted))

    def _sweep(self, ref: S3Ref) -> None:
        """Drop what was left of uploads to this key."""
        for begun, token in self._unfinished(ref):
            if datetime.now(UTC) - begun > _STALE:
                self._drop(ref, token)

    # --------------------------------------------------------------------------------------------- from another object
    def copy(self, new: NewObject, uri: ModelUri) -> bool:
        """Have the store copy an object of its own that has digests of ``new``, by its checksums or its metadata."""
        if uri.scheme != "s3":
            return False
        origin = S3Ref.parse(uri)
        try:
            facts = None if origin.is_prefix else self._requests.store.head(origin, origin.key)
            if facts is None or facts.etag is None or not _vouches(facts, new) or not self._is_near(origin, new):
                return False
            self._copy(new, origin, facts.etag)
        except RemoteChangedError:
            return False
        except SourceError as exc:
            if exc.retryable:
                raise
            return False
        return True

    def _is_near(self, origin: S3Ref, new: NewObject) -> bool:
        """Whether one service, in one region, has both."""
        ways = [self._requests.store.clients.access(ref) for ref in (origin, self._requests.ref(new.key))]
        return len({(way.endpoint, way.region) for way in ways}) == 1

    def _copy(self, new: NewObject, origin: S3Ref, etag: str) -> None:
        """Write an object from one version of another."""
        source = {"CopySource": {"Bucket": origin.bucket, "Key": origin.key}, "CopySourceIfMatch": etag}
        if new.size > _COPY_BYTES:
            self._copy_in_parts(new, source)
            return
        wanted = {**self._requests.object(self._requests.ref(new.key)), **source}
        wanted |= {"MetadataDirective": "REPLACE", "Metadata": metadata(new.digests)}

        def request(access: Access, asked: Asked) -> None:
            access.client.copy_object(**wanted, **_condition(new, asked))

        self._commit(new, request)

    def _copy_in_parts(self, new: NewObject, source: Mapping[str, Any]) -> None:
        upload = Upload(token=self._create(new), part_bytes=_part_bytes(new.size, _COPY_BYTES))
        try:
            numbers = range(1, -(-new.size // upload.part_bytes) + 1)
            self._complete(new, upload, [self._copy_part(new, upload, source, number) for number in numbers])
        except BaseException:
            with suppress(NimError):
                self.abort(new, upload)
            raise

    def _copy_part(self, new: NewObject, upload: Upload, source: Mapping[str, Any], number: int) -> StoredPart:
        ref, first = self._requests.ref(new.key), (number - 1) * upload.part_bytes
        size = min(upload.part_bytes, new.size - first)
        wanted = {**self._requests.upload(ref, upload.token), **source, "PartNumber": number}
        wanted["CopySourceRange"] = f"bytes={first}-{first + size - 1}"

        def question(access: Access) -> StoredPart:
            return _listed_part(
                {**access.client.upload_part_copy(**wanted)["CopyPartResult"], "PartNumber": number, "Size": size}
            )

        return self._requests.store.ask(ref, question)


def _part_bytes(size: int, least: int) -> int:
    """Return how large parts are: ``least``, or as many MiB as it takes to stay within 10,000 of them."""
    return max(least, -(-size // (_MAX_PARTS * _MIB)) * _MIB)


def _fits(part: StoredPart, size: int, part_bytes: int) -> bool:
    """Whether a part is one of those that an object of ``size`` bytes would have."""
    return part.number >= 1 and part.size == min(part_bytes, size - (part.number - 1) * part_bytes)


def _listed(entry: Mapping[str, Any], _access: Access) -> StoredObject:
    return StoredObject(key=entry["Key"], size=entry["Size"], version=strong_etag(entry.get("ETag", "")))


def _listed_part(entry: Mapping[str, Any]) -> StoredPart:
    return _stored_part(entry["PartNumber"], entry["Size"], entry["ETag"], entry.get("ChecksumCRC32C", ""))


def _stored_part(number: int, size: int, etag: str, crc32c: str) -> StoredPart:
    """Return a part by its checksum, else by its ETag; one that is no MD5 looks like none, or like a wrong one."""
    digests: tuple[Digest, ...] = ()
    match = _MD5.fullmatch(etag)
    if match:
        digests = (Digest("md5", match["value"]),)
    with suppress(ConfigError):
        digests = (Digest.from_base64("crc32c", crc32c),)
    return StoredPart(number=number, size=size, tag=etag, digests=digests)


def _named(part: StoredPart) -> Mapping[str, Any]:
    """Return what a part is called when its upload is completed."""
    crc32c = _crc32c(part.digests)
    return {"PartNumber": part.number, "ETag": part.tag, **({"ChecksumCRC32C": crc32c} if crc32c else {})}


def _checksum(digests: Iterable[Digest], asked: Asked) -> Mapping[str, str]:
    """Return the header that has the store compare what arrives."""
    crc32c = _crc32c(digests)
    return {"x-amz-checksum-crc32c": crc32c} if crc32c and Asked.CHECKSUM in asked else {}


def _crc32c(digests: Iterable[Digest]) -> str | None:
    """Return the CRC-32C among ``digests`` as S3 writes it. None: there is none."""
    found = (digest.value for digest in digests if digest.algorithm == "crc32c")
    return next((base64.b64encode(bytes.fromhex(value)).decode() for value in found), None)


def _condition(new: NewObject, asked: Asked) -> Mapping[str, str]:
    """Return the parameter that has the store write over nothing but what ``new`` replaces."""
    if Asked.CONDITION not in asked:
        return {}
    if new.replaces is None:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": new.replaces.version} if new.replaces.version else {}


def _is_described(found: StoredObject, new: NewObject) -> bool:
    """Whether an object is what was to be written, its digests included."""
    return found.size == new.size and set(new.digests) <= set(found.digests)


def _vouches(facts: Facts, new: NewObject) -> bool:
    """Whether an object has a digest in common with ``new``, and none against it."""
    known = {digest.algorithm: digest for digest in facts.digests}
    same = [known[digest.algorithm] == digest for digest in new.digests if digest.algorithm in known]
    return facts.size == new.size and bool(same) and all(same)
