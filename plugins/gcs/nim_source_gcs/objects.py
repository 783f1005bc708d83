"""What the API tells of an object, and what a mirror stores with one."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.types import Digest, NewObject, StoredObject

FIELDS: Final = "items(name,size,md5Hash,crc32c,generation,contentEncoding,metadata),nextPageToken"
"""Of a listing: what :class:`Generation` reads."""

CONTENT_TYPE: Final = "application/octet-stream"

_METADATA: Final = "nim-digests"


@frozen(kw_only=True)
class Generation:
    """
    One content of an object.

    Attributes:
        key: Literal.
        number: Google's number of it.
        size: Bytes, as they are stored.
        digests: Google's own, and of other algorithms those that a mirror stored with it. None where ``unpacked``.
        unpacked: Whether it is stored compressed and sent unpacked: what arrives has neither its size nor its digests.
    """

    key: str
    number: int
    size: int
    digests: tuple[Digest, ...]
    unpacked: bool

    @classmethod
    def read(cls, resource: Any) -> Generation:
        """Read what the API calls an object's resource. Raises ConfigError, ValueError and the like when it is none."""
        unpacked = resource.get("contentEncoding") == "gzip"
        told = [(name, resource.get(field)) for name, field in (("md5", "md5Hash"), ("crc32c", "crc32c"))]
        own = [Digest.from_base64(name, text) for name, text in told if text]  # composite objects have no MD5
        known = {digest.algorithm for digest in own}
        mirrored = [digest for digest in _mirrored(resource.get("metadata")) if digest.algorithm not in known]
        return cls(
            key=str(resource["name"]),
            number=int(resource["generation"]),
            size=int(resource["size"]),
            digests=() if unpacked else (*own, *mirrored),
            unpacked=unpacked,
        )

    def holds(self, new: NewObject) -> bool:
        """Whether this is what was to be written, with its digests."""
        return self.size == new.size and set(new.digests) <= set(self.digests)

    def vouches_for(self, new: NewObject) -> bool:
        """Whether size and a digest say that it has the content to be written, and no digest says otherwise."""
        ours = {digest.algorithm: digest for digest in new.digests}
        agree = [digest == ours[digest.algorithm] for digest in self.digests if digest.algorithm in ours]
        return not self.unpacked and self.size == new.size and bool(agree) and all(agree)

    @property
    def stored(self) -> StoredObject:
        """The same for core."""
        return StoredObject(key=self.key, size=self.size, digests=self.digests, version=str(self.number))


def new_resource(new: NewObject) -> Mapping[str, Any]:
    """Return the resource of an object to be written; Google refuses content that has another CRC-32C."""
    return {"name": new.key, "crc32c": crc32c(new), **attributes(new)}


def attributes(new: NewObject) -> Mapping[str, Any]:
    """Return what is stored with an object beside its content: a neutral type and its digests."""
    return {"contentType": CONTENT_TYPE, "metadata": {_METADATA: ",".join(map(str, new.digests))}}


def crc32c(new: NewObject) -> str:
    """Return the CRC-32C of an object to be written as Google writes it: its four bytes in base64."""
    [value] = (digest.value for digest in new.digests if digest.algorithm == "crc32c")
    return base64.b64encode(bytes.fromhex(value)).decode()


def _mirrored(metadata: Any) -> tuple[Digest, ...]:
    """Return the digests a mirror stored; none where somebody else wrote the object, or this."""
    text = metadata.get(_METADATA) if isinstance(metadata, dict) else None
    try:
        return tuple(Digest.parse(item) for item in str(text or "").split(","))
    except ConfigError:
        return ()
