"""What a bucket holds, and where its bytes are."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.types import Digest, HttpObject, Listing, ModelUri, RemoteFile, SourceContext
from nim_source_s3.client import Access, Clients, ElsewhereError
from nim_source_s3.errors import answer_error, archived, boto_error, garbled, no_such_object
from nim_source_s3.refs import S3Ref

T = TypeVar("T")
_URL_SECONDS: Final = 3600
_TEMPORARY_URL_SECONDS: Final = 600
"""botocore renews temporary keys ten minutes before they expire, so a URL this short-lived never outlives them."""

_ALGORITHMS: Final = {"SHA256": "sha256", "SHA1": "sha1", "CRC32C": "crc32c", "CRC32": "crc32"}
"""Checksums of S3 that core can check. Of the others, CRC64NVME and XXHASH, no fast implementation is at hand."""

_ARCHIVES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_PARTS: Final = re.compile(r'"[^"]*-\d+"')


@frozen(kw_only=True)
class _Facts:
    """
    What the store says about an object.

    Attributes:
        size: Bytes.
        etag: Pins the content while it is fetched; never a digest. None when the store gives none.
        digests: Of the whole content.
        complete: Whether there is no more to learn by asking about this object alone.
    """

    size: int
    etag: str | None
    digests: tuple[Digest, ...] = ()
    complete: bool = True


class S3Source:
    """
    The source behind ``s3://``: an object, or all objects below a prefix.

    boto3 finds credentials, lists and signs; bytes come from presigned URLs. Checksums of whole objects become digests.
    Those of multipart uploads that are made of the parts' checksums, and ETags, do not.
    """

    def __init__(self, context: SourceContext) -> None:
        self._clients = Clients(context)
        payer = context.variables.text("AWS_REQUEST_PAYER")
        if payer not in {None, "requester"}:
            raise ConfigError(f"no such payer: {payer}", hint="set AWS_REQUEST_PAYER to requester, or unset it")
        self._payer = {"RequestPayer": payer} if payer else {}
        self._known: dict[tuple[str, str], _Facts] = {}
        self._folders: set[S3Ref] = set()

    def list_files(self, uri: ModelUri) -> Listing:
        """
        List the object, else all that is below; a key without a slash at its end may be either.

        Raises:
            SourceError: In its most fitting subclass.
            ConfigError: A variable or the AWS configuration cannot work.
            InvalidUriError: No bucket can have that name, or a key below is not safe as a path.
        """
        ref = S3Ref.parse(uri)
        facts = None if ref.is_prefix else self._object(ref)
        if facts is not None:
            return Listing(uri=uri, files=(RemoteFile(path=ref.name, size=facts.size, digests=facts.digests),))
        below = self._ask(ref, lambda access: self._below(ref, access))
        if not below and not ref.is_prefix:
            raise no_such_object(ref)
        self._known.update({(ref.bucket, key): facts for key, facts in below.items()})
        self._folders.add(ref)
        files = (RemoteFile(path=key[len(ref.prefix) :], size=facts.size) for key, facts in below.items())
        return Listing(uri=uri, files=tuple(files))

    def locate(self, uri: ModelUri, file: RemoteFile) -> HttpObject:
        """Return a presigned URL; the first time with what the listing said, from then on with what the store says."""
        ref = S3Ref.parse(uri)
        key = ref.prefix + file.path if ref.is_prefix or ref in self._folders else ref.key
        facts = self._known.pop((ref.bucket, key), None) or self._ask(ref, lambda access: self._head(ref, key, access))
        if facts is None:
            raise no_such_object(ref)
        url, expires_at, authorities = self._ask(ref, lambda access: self._signed(ref.bucket, key, access))
        return HttpObject(
            url=url,
            headers={"x-amz-request-payer": "requester"} if self._payer else {},
            expires_at=expires_at,
            ranges=True,
            validator=facts.etag,
            size=facts.size,
            authorities=authorities,
        )

    def close(self) -> None:
        """Forget what was learned."""
        self._known.clear()

    def _object(self, ref: S3Ref) -> _Facts | None:
        known = self._known.get((ref.bucket, ref.key))
        if known is not None and known.complete:
            return known
        facts = self._ask(ref, lambda access: self._head(ref, ref.key, access))
        if facts is not None:
            self._known[ref.bucket, ref.key] = facts
        return facts

    def _ask(self, ref: S3Ref, question: Callable[[Access], T], *, moved: bool = False) -> T:
        """Return the answer, asked again where the bucket turns out to be elsewhere and has not ``moved`` yet."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            access = self._clients.access(ref)
        except (BotoCoreError, ClientError) as exc:
            raise boto_error(exc, ref) from exc
        try:
            return question(access)
        except ElsewhereError as exc:
            if moved:
                raise answer_error({"Error": {"Code": "PermanentRedirect"}}, ref, access) from exc
            self._clients.move(ref.bucket, exc.region)
        except ClientError as exc:
            raise answer_error(exc.response, ref, access) from exc
        except BotoCoreError as exc:
            raise boto_error(exc, ref) from exc
        except (KeyError, ValueError, TypeError) as exc:
            raise garbled(ref, exc) from exc
        return self._ask(ref, question, moved=True)

    def _head(self, ref: S3Ref, key: str, access: Access) -> _Facts | None:
        """Return what the store says about one object. None when there is none."""
        from botocore.exceptions import ClientError

        wanted = {"Bucket": ref.bucket, "Key": key, **self._payer}
        try:
            answer = access.client.head_object(**wanted, ChecksumMode="ENABLED")
        except ClientError as exc:
            if exc.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            answer = access.client.get_object(**wanted, Range="bytes=0-0")  # a refusal says why, which HEAD's cannot
        if answer.get("StorageClass") in _ARCHIVES and 'ongoing-request="false"' not in answer.get("Restore", ""):
            raise archived(ref)
        return _facts(answer)

    def _below(self, ref: S3Ref, access: Access) -> dict[str, _Facts]:
        """Return all objects below, by key; keys that end in a slash only make a folder seen in a console."""
        pages = access.client.get_paginator("list_objects_v2")
        found: dict[str, _Facts] = {}
        for page in pages.paginate(Bucket=ref.bucket, Prefix=ref.prefix, **self._payer):
            if "IsTruncated" not in page:
                raise garbled(ref, "no listing")
            found.update({entry["Key"]: _listed(entry, access) for entry in page.get("Contents", ())})
        return {key: facts for key, facts in found.items() if not key.endswith("/")}

    def _signed(self, bucket: str, key: str, access: Access) -> tuple[str, float | None, Path | None]:
        seconds = _TEMPORARY_URL_SECONDS if access.temporary else _URL_SECONDS
        wanted = {"Bucket": bucket, "Key": key, **self._payer}
        url = access.client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds)
        return str(url), None if access.origin is None else time.time() + seconds, access.authorities


def _listed(entry: Mapping[str, Any], access: Access) -> _Facts:
    """
    Return what a page of a listing says about one object.

    Checksums are not in it. AWS says which there are; other stores say nothing, and may have some all the same.
    """
    algorithms, kind = entry.get("ChecksumAlgorithm", ()), entry.get("ChecksumType")
    more = not _ALGORITHMS.keys().isdisjoint(algorithms) and kind != "COMPOSITE" if algorithms else not access.is_aws
    return _Facts(size=entry["Size"], etag=_etag(entry), complete=not more)


def _facts(answer: Mapping[str, Any]) -> _Facts:
    ranged = answer.get("ContentRange", "").rpartition("/")[2]
    size = int(ranged) if ranged.isdecimal() else int(answer["ContentLength"])
    return _Facts(size=size, etag=_etag(answer), digests=_digests(answer))


def _etag(answer: Mapping[str, Any]) -> str | None:
    etag = answer.get("ETag", "")
    return etag if etag.startswith('"') and len(etag) > 2 else None


def _digests(answer: Mapping[str, Any]) -> tuple[Digest, ...]:
    """Return the checksums of the whole object: of a multipart upload only those that say so, and no secure hash."""
    kind, in_parts = answer.get("ChecksumType"), _PARTS.fullmatch(answer.get("ETag", "")) is not None
    digests: list[Digest] = []
    for name, algorithm in _ALGORITHMS.items():
        value = answer.get(f"Checksum{name}", "")
        whole = kind == "FULL_OBJECT" and "CRC" in name if in_parts else kind != "COMPOSITE"
        if value and whole and "-" not in value:
            with suppress(ConfigError):  # what is no checksum vouches for nothing
                digests.append(Digest.from_base64(algorithm, value))
    return tuple(digests)
