"""``gs://bucket/key`` as a value, its addresses in the API, and its place in the cache."""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import quote

from attrs import evolve, frozen

from nim_core.errors import InvalidUriError
from nim_core.types import CacheKey, ModelUri, check_relative_path

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_MAX_NAME: Final = 200


@frozen(kw_only=True)
class GcsRef:
    """
    An object, or all objects below a prefix; without a slash at the end only the bucket knows which of the two.

    Attributes:
        bucket: Name.
        key: Literal, never decoded; empty for the whole bucket.
    """

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: ModelUri) -> GcsRef:
        """Read a URI. Raises InvalidUriError when the bucket's name is none."""
        bucket, _, key = uri.location.partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise InvalidUriError(
                f"not a bucket of Google Cloud Storage: {uri.display}",
                hint="write gs://BUCKET/KEY for an object, gs://BUCKET/PREFIX/ for all objects below a prefix",
            )
        return cls(bucket=bucket, key=key)

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.key}"

    @property
    def is_prefix(self) -> bool:
        """Whether it cannot be an object's own name."""
        return not self.key or self.key.endswith("/")

    @property
    def prefix(self) -> str:
        """What the keys of objects below it begin with."""
        return self.key if self.is_prefix else f"{self.key}/"

    @property
    def name(self) -> str:
        """What to call the object's file: the last part of the key, or a digest of a key that ends in no file name."""
        last = self.key.rpartition("/")[2]
        try:
            return check_relative_path(last)
        except InvalidUriError:
            return hashlib.sha256(self.key.encode()).hexdigest()

    def below(self, path: str) -> GcsRef:
        """Return the object at ``path`` below this prefix."""
        return evolve(self, key=self.prefix + path)

    @property
    def place(self) -> str:
        """How paths of the API name the object."""
        return f"b/{quote(self.bucket, safe='')}/o/{quote(self.key, safe='')}"

    def media_path(self, generation: int) -> str:
        """API path of the bytes of one generation of the object."""
        return f"/download/storage/v1/{self.place}?generation={generation}&alt=media"

    @property
    def cache_key(self) -> CacheKey:
        """
        Place in the cache: a repository per folder of a bucket, so that equal names in two folders do not meet.

        Buckets have no revisions: a new generation of an object takes the place of the old one.
        """
        folder = (self.bucket, *self.key.split("/")[:-1])
        parts = (re.sub("^-|(?<=-)-|-$", "%2D", quote(part, safe="+@=~")) for part in folder)
        repo = "--".join(("models", *parts))
        if len(repo) > _MAX_NAME:
            repo = f"{repo[:_MAX_NAME]}--{hashlib.sha256(repo.encode()).hexdigest()[:32]}"
        return CacheKey(root="gcs/hub", repo=repo, snapshot="current")
