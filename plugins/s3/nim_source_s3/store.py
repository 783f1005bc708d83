"""What source and sink share: questions to a bucket, wherever it is, and what its answers say about objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.types import Digest, SinkContext, SourceContext
from nim_source_s3.client import Access, Clients, ElsewhereError
from nim_source_s3.errors import answer_error, boto_error, garbled
from nim_source_s3.refs import S3Ref

T = TypeVar("T")
_URL_SECONDS: Final = 3600
_TEMPORARY_URL_SECONDS: Final = 600
"""botocore renews temporary keys ten minutes before they expire, so a URL this short-lived never outlives them."""

_ALGORITHMS: Final = ("sha256", "sha1", "crc32c", "crc32")
"""Checksums of S3 that core can check. Of the others, CRC64NVME and XXHASH, no fast implementation is at hand."""

_ARCHIVES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_RESTORED: Final = 'ongoing-request="false"'
_DIGESTS: Final = "nim-digests"
_PARTS: Final = re.compile(r'"[^"]*-\d+"')


@frozen(kw_only=True)
class Facts:
    """
    What the store says about an object.

    Attributes:
        size: Bytes.
        etag: Pins the content while it is fetched; never a digest. None when the store gives none.
        digests: Of the whole content: the store's, and those that a mirror has written into the metadata.
        archived: Whether its bytes have to be restored before they can be read.
    """

    size: int
    etag: str | None
    digests: tuple[Digest, ...] = ()
    archived: bool = False

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Facts:
        """Read the headers, names in lower case, of an answer about one object."""
        ranged = headers.get("content-range", "").rpartition("/")[2]
        size = int(ranged) if ranged.isdecimal() else int(headers["content-length"])
        archived = headers.get("x-amz-storage-class") in _ARCHIVES and _RESTORED not in headers.get("x-amz-restore", "")
        etag = strong_etag(headers.get("etag", ""))
        return cls(size=size, etag=etag, digests=_digests(headers), archived=archived)


class Store:
    """
    A service that speaks S3's protocol, reached with the variables and credentials of one source or sink.

    Attributes:
        clients: Ways to its buckets.
        payer: Parameter of every request that says who pays.
    """

    def __init__(self, context: SourceContext | SinkContext) -> None:
        payer = context.variables.text("AWS_REQUEST_PAYER")
        if payer not in {None, "requester"}:
            raise ConfigError(f"no such payer: {payer}", hint="set AWS_REQUEST_PAYER to requester, or unset it")
        self.clients = Clients(context)
        self.payer = {"RequestPayer": payer} if payer else {}

    @property
    def headers(self) -> Mapping[str, str]:
        """What says so in a request that boto3 does not make."""
        return {"x-amz-request-payer": self.payer["RequestPayer"]} if self.payer else {}

    def ask(self, ref: S3Ref, question: Callable[[Access], T], *, moved: bool = False) -> T:
        """
        Return the answer, asked again where the bucket turns out to be elsewhere and has not ``moved`` yet.

        Raises:
            NimError: The one that fits what boto3 raised, or an answer without what it has to have.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            access = self.clients.access(ref)
        except (BotoCoreError, ClientError) as exc:
            raise boto_error(exc, ref) from exc
        try:
            return question(access)
        except ElsewhereError as exc:
            if moved:
                raise answer_error({"Error": {"Code": "PermanentRedirect"}}, ref, access) from exc
            self.clients.move(ref.bucket, exc.region)
        except ClientError as exc:
            raise answer_error(exc.response, ref, access) from exc
        except BotoCoreError as exc:
            raise boto_error(exc, ref) from exc
        except (KeyError, ValueError, TypeError) as exc:
            raise garbled(ref, exc) from exc
        return self.ask(ref, question, moved=True)

    def head(self, ref: S3Ref, key: str) -> Facts | None:
        """Return what the store says about one object. None when there is none."""
        from botocore.exceptions import ClientError

        wanted = {"Bucket": ref.bucket, "Key": key, **self.payer}

        def question(access: Access) -> Facts | None:
            try:
                answer = access.client.head_object(**wanted, ChecksumMode="ENABLED")
            except ClientError as exc:
                if exc.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return None
                answer = access.client.get_object(**wanted, Range="bytes=0-0")  # says why, which HEAD's cannot
            return Facts.of(answer["ResponseMetadata"]["HTTPHeaders"])

        return self.ask(ref, question)

    def listing(self, ref: S3Ref, prefix: str, read: Callable[[Mapping[str, Any], Access], T]) -> list[T]:
        """Return what ``read`` makes of each object whose key begins with ``prefix``."""

        def question(access: Access) -> list[T]:
            pages = access.client.get_paginator("list_objects_v2")
            found: list[T] = []
            for page in pages.paginate(Bucket=ref.bucket, Prefix=prefix, **self.payer):
                if "IsTruncated" not in page:
                    raise garbled(ref, "no listing")
                found.extend(read(entry, access) for entry in page.get("Contents", ()))
            return found

        return self.ask(ref, question)


def url_seconds(access: Access) -> int:
    """Return how long a presigned URL is good for."""
    return _TEMPORARY_URL_SECONDS if access.temporary else _URL_SECONDS


def has_checksum(algorithms: Iterable[str]) -> bool:
    """Whether core can check a checksum of one of these kinds, as S3 names them."""
    return any(name.lower() in _ALGORITHMS for name in algorithms)


def strong_etag(etag: str) -> str | None:
    """Return an ETag that pins a content. None when it does not."""
    return etag if etag.startswith('"') and len(etag) > 2 else None


def metadata(digests: Iterable[Digest]) -> Mapping[str, str]:
    """Return digests as the metadata that a mirror stores with an object."""
    return {_DIGESTS: ",".join(map(str, digests))}


def _digests(headers: Mapping[str, str]) -> tuple[Digest, ...]:
    """Return those of the metadata, but for what the store has computed by itself."""
    found = (*_mirrored(headers.get(f"x-amz-meta-{_DIGESTS}", "")), *_checksums(headers))
    return tuple({digest.algorithm: digest for digest in found}.values())


def _mirrored(text: str) -> Iterable[Digest]:
    for item in text.split(","):
        with suppress(ConfigError):  # anybody may write metadata
            yield Digest.parse(item.strip())


def _checksums(headers: Mapping[str, str]) -> Iterable[Digest]:
    """Return checksums of the whole object: of a multipart upload only those that say so, and no secure hash."""
    kind, in_parts = headers.get("x-amz-checksum-type"), _PARTS.fullmatch(headers.get("etag", "")) is not None
    for algorithm in _ALGORITHMS:
        value = headers.get(f"x-amz-checksum-{algorithm}", "")
        whole = kind == "FULL_OBJECT" and "crc" in algorithm if in_parts else kind != "COMPOSITE"
        if value and whole and "-" not in value:
            with suppress(ConfigError):  # what is no checksum vouches for nothing
                yield Digest.from_base64(algorithm, value)
