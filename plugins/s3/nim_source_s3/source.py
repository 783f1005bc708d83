"""What a bucket holds, and where its bytes are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from nim_core.types import HttpObject, Listing, ModelUri, RemoteFile, SourceContext
from nim_source_s3.client import Access
from nim_source_s3.errors import archived, no_such_object
from nim_source_s3.refs import S3Ref
from nim_source_s3.store import Facts, Store, has_checksum, strong_etag, url_seconds


@frozen(kw_only=True)
class _Known:
    """What was learned about an object; ``complete`` when there is no more to learn by asking about it alone."""

    facts: Facts
    complete: bool = True


class S3Source:
    """
    The source behind ``s3://``: an object, or all objects below a prefix.

    boto3 finds credentials, lists and signs; bytes come from presigned URLs. Checksums of whole objects become digests,
    and so do those that a mirror wrote into the metadata. Checksums of multipart uploads that are made of the parts'
    checksums, and ETags, do not.
    """

    def __init__(self, context: SourceContext) -> None:
        self._store = Store(context)
        self._known: dict[tuple[str, str], _Known] = {}
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
        below = self._below(ref)
        if not below and not ref.is_prefix:
            raise no_such_object(ref)
        self._known.update({(ref.bucket, key): known for key, known in below.items()})
        self._folders.add(ref)
        files = (RemoteFile(path=key[len(ref.prefix) :], size=known.facts.size) for key, known in below.items())
        return Listing(uri=uri, files=tuple(files))

    def locate(self, uri: ModelUri, file: RemoteFile) -> HttpObject:
        """Return a presigned URL; the first time with what the listing said, from then on with what the store says."""
        ref = S3Ref.parse(uri)
        key = ref.prefix + file.path if ref.is_prefix or ref in self._folders else ref.key
        known = self._known.pop((ref.bucket, key), None)
        facts = known.facts if known else self._head(ref, key)
        if facts is None:
            raise no_such_object(ref)
        url, expires_at, authorities = self._store.ask(ref, lambda access: self._signed(ref.bucket, key, access))
        return HttpObject(
            url=url,
            headers=self._store.headers,
            expires_at=expires_at,
            ranges=True,
            validator=facts.etag,
            size=facts.size,
            authorities=authorities,
        )

    def close(self) -> None:
        """Forget what was learned."""
        self._known.clear()

    def _object(self, ref: S3Ref) -> Facts | None:
        known = self._known.get((ref.bucket, ref.key))
        if known is not None and known.complete:
            return known.facts
        facts = self._head(ref, ref.key)
        if facts is not None:
            self._known[ref.bucket, ref.key] = _Known(facts=facts)
        return facts

    def _head(self, ref: S3Ref, key: str) -> Facts | None:
        """Return what the store says about one object. None when there is none."""
        facts = self._store.head(ref, key)
        if facts is not None and facts.archived:
            raise archived(ref)
        return facts

    def _below(self, ref: S3Ref) -> dict[str, _Known]:
        """Return all objects below, by key; keys that end in a slash only make a folder seen in a console."""
        found = dict(self._store.listing(ref, ref.prefix, _listed))
        return {key: known for key, known in found.items() if not key.endswith("/")}

    def _signed(self, bucket: str, key: str, access: Access) -> tuple[str, float | None, Path | None]:
        seconds = url_seconds(access)
        wanted = {"Bucket": bucket, "Key": key, **self._store.payer}
        url = access.client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds)
        return str(url), None if access.origin is None else time.time() + seconds, access.authorities


def _listed(entry: Mapping[str, Any], access: Access) -> tuple[str, _Known]:
    """
    Return the key, and what a page of a listing says about its object.

    Checksums are not in it. AWS says which there are; other stores say nothing, and may have some all the same.
    """
    algorithms, kind = entry.get("ChecksumAlgorithm", ()), entry.get("ChecksumType")
    more = has_checksum(algorithms) and kind != "COMPOSITE" if algorithms else not access.is_aws
    facts = Facts(size=entry["Size"], etag=strong_etag(entry.get("ETag", "")))
    return entry["Key"], _Known(facts=facts, complete=not more)
