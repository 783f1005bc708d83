"""Requests that a sink makes: signed, sent by core, and asking no more of a store than it knows."""

from __future__ import annotations

import base64
import enum
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

from attrs import evolve

from nim_core.errors import UnsupportedError
from nim_core.types import Body, HttpAnswer, HttpUpload, ModelUri, Secret, SinkContext, UriStyle
from nim_source_s3.client import Access, check_region
from nim_source_s3.errors import client_error, may_be_unknown
from nim_source_s3.refs import S3Ref
from nim_source_s3.signing import presign
from nim_source_s3.store import Facts, Store, url_seconds

T = TypeVar("T")
_PIECE: Final = 1 << 20
_SIGNED: Final = re.compile(r"(?P<url>[^?]*)\?.*X-Amz-Credential=[^&]*%2F(?P<region>[^%&]+)%2Fs3%2Faws4_request&.*")


class Asked(enum.Flag):
    """What is asked of a store beyond the first version of S3's protocol."""

    CONDITION = enum.auto()
    CHECKSUM = enum.auto()


_LADDER: Final = (Asked.CONDITION | Asked.CHECKSUM, Asked.CHECKSUM, Asked.CONDITION, Asked(0))


class Requests:
    """
    Makes requests about objects of one bucket.

    Attributes:
        store: For those that boto3 makes.
    """

    def __init__(self, context: SinkContext) -> None:
        self.store = Store(context)
        self._bucket = context.bucket
        self._send = context.send
        self._places: dict[Access, tuple[str, str]] = {}
        self._rung = 0
        self._confirms = True

    def ref(self, key: str) -> S3Ref:
        """Return an object. Raises InvalidUriError when the bucket has no name that one can have."""
        return S3Ref.parse(ModelUri(scheme="s3", location=f"{self._bucket}/{key}", style=UriStyle.OBJECT))

    def object(self, ref: S3Ref) -> Mapping[str, str]:
        """Return boto3's parameters of an object."""
        return {"Bucket": ref.bucket, "Key": ref.key, **self.store.payer}

    def upload(self, ref: S3Ref, token: Secret) -> Mapping[str, str]:
        """Return boto3's parameters of an upload."""
        return {**self.object(ref), "UploadId": token.reveal()}

    def tried(self, ref: S3Ref, request: Callable[[Access, Asked], T]) -> T:
        """
        Make a request; where the store refuses it, without what it may not know.

        That is left out from then on where it helped. Raises as :meth:`Store.ask`.
        """
        return self.store.ask(ref, lambda access: self._attempt(access, request, self._rung))

    def head(self, ref: S3Ref) -> Facts | None:
        """Return what the store says about an object, asked without boto3, which takes 2 ms of a processor for it."""

        def question(access: Access) -> Facts | None:
            answer = self._answer(access, "HEAD", ref, headers={"x-amz-checksum-mode": "ENABLED"})
            if answer.status == 404:
                return None
            return Facts.of(answer.headers) if answer.status == 200 else self.store.head(ref, ref.key)

        return self.store.ask(ref, question)

    def put(
        self,
        access: Access,
        ref: S3Ref,
        body: Body,
        *,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> Mapping[str, str]:
        """
        Send a body from within a question, with its MD5 once the store has left a CRC-32C unconfirmed.

        Args:
            access: The way to the bucket.
            ref: What it is for.
            body: The bytes.
            headers: Sent along; names in lower case.
            query: Of the URL.

        Returns: the headers of the answer, an ETag among them.

        Raises:
            ClientError: The store refused.
            ElsewhereError: The bucket is in another region.
        """
        if not self._confirms:
            headers = {**headers, "content-md5": _md5(body)}
        answer = self._answer(access, "PUT", ref, headers=headers, query=query, body=body)
        if answer.status >= 300:
            error = client_error(answer, "PutObject")
            check_region(access.region, answer.headers, error.response)
            raise error
        if "etag" not in answer.headers:
            raise ValueError("no ETag")
        self._confirms = "x-amz-checksum-crc32c" in answer.headers
        return answer.headers

    def _attempt(self, access: Access, request: Callable[[Access, Asked], T], rung: int) -> T:
        from botocore.exceptions import ClientError

        try:
            answer = request(access, _LADDER[rung])
        except ClientError as exc:
            if rung + 1 == len(_LADDER) or not may_be_unknown(exc.response):
                raise
            return self._attempt(access, request, rung + 1)
        self._rung = max(self._rung, rung)
        return answer

    def _answer(
        self,
        access: Access,
        method: str,
        ref: S3Ref,
        *,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> HttpAnswer:
        bucket, region = self._place(access)
        url, signed, query = bucket + quote(ref.key, safe="/~"), {**headers, **self.store.headers}, query or {}
        if access.keys is None:
            url += f"?{urlencode(query)}"
        else:
            keys = access.keys.get_frozen_credentials()
            url = presign(method, url, query, signed, keys=keys, region=region, seconds=url_seconds(access))
        return self._send(HttpUpload(url=url, method=method, headers=signed, body=body, authorities=access.authorities))

    def _place(self, access: Access) -> tuple[str, str]:
        """Return the bucket's URL, and the region that signatures for it name; boto3 knows them."""
        if access not in self._places:
            url = access.client.generate_presigned_url("head_bucket", Params={"Bucket": self._bucket})
            match = _SIGNED.fullmatch(url)
            if match is None and access.keys is not None:
                raise UnsupportedError(f"a kind of bucket that cannot be written to: {self._bucket}")
            bucket, region = (match["url"], match["region"]) if match else (url, "")
            self._places[access] = f"{bucket.removesuffix('/')}/", region
        return self._places[access]


def _md5(body: Body) -> str:
    """Return the MD5 of a body as S3 writes it."""
    digest = hashlib.md5(usedforsecurity=False)
    with evolve(body, progress=lambda _: None).open() as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return base64.b64encode(digest.digest()).decode()
