"""What a bucket holds and where its bytes are."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import evolve, frozen

from nim_core.errors import NotFoundError, RemoteChangedError
from nim_core.types import CacheKey, HttpObject, Listing, ModelUri, RemoteFile, SourceContext
from nim_source_gcs.client import Client, Pass
from nim_source_gcs.credentials import READ
from nim_source_gcs.objects import Generation
from nim_source_gcs.refs import GcsRef


@frozen(kw_only=True)
class _Object:
    """
    One generation of an object.

    Attributes:
        ref: The object.
        generation: Google's number of this content.
        file: As listed by the object's own URI.
        unpacked: Whether it is stored compressed and sent unpacked: then neither size nor digests are the file's.
    """

    ref: GcsRef
    generation: int
    file: RemoteFile
    unpacked: bool


class GcsSource:
    """
    The source behind ``gs://``: an object, or all objects below a prefix.

    URLs name the generation that was listed, so that all parts of a file come from one content. They want a bearer
    token, which is renewed when it is about to expire or was refused.
    """

    def __init__(self, context: SourceContext, *, clock: Callable[[], float] = time.time) -> None:
        self._client = Client(context, READ, clock)
        self._objects: dict[GcsRef, _Object] = {}
        self._given: dict[GcsRef, Pass] = {}

    def list_files(self, uri: ModelUri) -> Listing:
        """
        List the object, else what is below the prefix. An object that a listing brought is not asked for again.

        Raises:
            NotFoundError: There is no such bucket, no such object and nothing below.
            SourceError: In its most fitting subclass.
        """
        ref = GcsRef.parse(uri)
        known = self._objects.get(ref) or (None if ref.is_prefix else self._asked(ref))
        files = (known.file,) if known else self._below(ref)
        if not files:
            raise NotFoundError(
                f"no such object, and none below: {ref}", hint="check the key, which is taken literally"
            )
        return Listing(uri=uri, files=files)

    def locate(self, uri: ModelUri, file: RemoteFile) -> HttpObject:
        """
        Return the URL of the listed generation and the token.

        Asked again, it sees to it that the object is still there, and says why it may not be had.
        """
        found = self._object(uri, file)
        granted = self._client.signer.sign(found.ref.bucket, refused=self._given.get(found.ref))
        if found.ref in self._given:
            self._check(found)
        self._given[found.ref] = granted
        return HttpObject(
            url=self._client.url + found.ref.media_path(found.generation),
            headers=granted.headers,
            expires_at=granted.expires_at,
            ranges=not found.unpacked,
            size=found.file.size,
        )

    def cache_key(self, uri: ModelUri, pinned: str | None) -> CacheKey:  # noqa: ARG002 - buckets have no revisions
        """Return the place for files of ``uri``, see :attr:`~nim_source_gcs.refs.GcsRef.cache_key`."""
        return GcsRef.parse(uri).cache_key

    def close(self) -> None:
        """Forget what was learned."""
        self._objects.clear()

    def _asked(self, ref: GcsRef) -> _Object | None:
        told = self._client.object(ref)
        return None if told is None else self._learned(ref, told)

    def _below(self, ref: GcsRef) -> tuple[RemoteFile, ...]:
        """List below a prefix, without the empty objects that stand for folders."""
        files = []
        for told in self._client.objects(ref, ref.prefix):
            found = GcsRef(bucket=ref.bucket, key=told.key)
            if not (found.is_prefix and told.size == 0):
                files.append(evolve(self._learned(found, told).file, path=found.key.removeprefix(ref.prefix)))
        return tuple(files)

    def _learned(self, ref: GcsRef, told: Generation) -> _Object:
        file = RemoteFile(path=ref.name, size=None if told.unpacked else told.size, digests=told.digests)
        found = _Object(ref=ref, generation=told.number, file=file, unpacked=told.unpacked)
        self._objects[ref] = found
        return found

    def _object(self, uri: ModelUri, file: RemoteFile) -> _Object:
        ref = GcsRef.parse(uri)
        below = ref.below(file.path)
        if ref not in self._objects and below not in self._objects:
            self.list_files(uri)
        found = self._objects.get(ref) or self._objects.get(below)
        if found is None:
            raise NotFoundError(f"no such object: {below}", uri=str(below))
        return found

    def _check(self, found: _Object) -> None:
        if self._client.object(found.ref, found.generation) is None:
            raise RemoteChangedError(
                f"object was deleted or replaced while it was being fetched: {found.ref}", hint="run the command again"
            )
