"""``s3://bucket/key`` as a value. Keys are literal: nothing is decoded, and ``?``, ``#`` and ``:`` mean nothing."""

from __future__ import annotations

import re

from attrs import field, frozen

from nim_core.errors import InvalidUriError
from nim_core.types import ModelUri

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


@frozen(kw_only=True)
class S3Ref:
    """
    An object, or a prefix of keys.

    Attributes:
        bucket: Name, or alias of an access point.
        key: Of the object; empty, or ending in ``/``, for all objects whose keys begin with it.
        uri: What it was read from.
    """

    bucket: str
    key: str
    uri: ModelUri = field(eq=False)

    @classmethod
    def parse(cls, uri: ModelUri) -> S3Ref:
        """Read a URI of OBJECT style. Raises InvalidUriError when it has no name that a bucket can have."""
        bucket, _, key = uri.location.partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise InvalidUriError(
                f"not a name of a bucket: {bucket.rpartition('@')[2]!r}",
                hint="write s3://bucket/key or s3://bucket/prefix/",
            )
        return cls(bucket=bucket, key=key, uri=uri)

    def __str__(self) -> str:
        return self.uri.display

    @property
    def is_prefix(self) -> bool:
        """Whether no single object is meant."""
        return not self.key or self.key.endswith("/")

    @property
    def prefix(self) -> str:
        """What keys of objects below begin with."""
        return self.key if self.is_prefix else f"{self.key}/"

    @property
    def name(self) -> str:
        """What the object is called: the last part of its key, or its end where that is longer than a file name."""
        return self.key.rpartition("/")[2][-255:]
