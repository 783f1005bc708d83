"""Files, where their bytes are, and the digests they must have."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from attrs import field, frozen, validators

from nim_core.errors import ConfigError, InvalidUriError
from nim_core.types.secret import Secret, as_secret
from nim_core.types.uris import ModelUri

DIGEST_HEX_LENGTHS: Mapping[str, int] = {
    "blake3": 64,
    "sha256": 64,
    "sha1-git": 40,
    "sha1": 40,
    "md5": 32,
    "crc32c": 8,
    "crc32": 8,
}
"""
Digest algorithms core can check, strongest first, and the length of their values in hex digits.

``sha1-git`` is git's blob id: SHA-1 over ``blob <size>``, a NUL byte and the content.
"""


_HEX = re.compile("[0-9a-f]+")


def _lower(value: str) -> str:
    return value.lower()


@frozen
class Digest:
    """
    A digest that a file's content must have.

    Attributes:
        algorithm: A key of :data:`DIGEST_HEX_LENGTHS`.
        value: Lower-case hex.

    Raises:
        ConfigError: The algorithm is unknown or the value has the wrong length or other characters than hex digits.
    """

    algorithm: str
    value: str = field(converter=_lower)

    def __attrs_post_init__(self) -> None:
        length = DIGEST_HEX_LENGTHS.get(self.algorithm)
        if length is None:
            known = ", ".join(DIGEST_HEX_LENGTHS)
            raise ConfigError(f"unknown digest algorithm: {self.algorithm!r} (known: {known})")
        if len(self.value) != length or not _HEX.fullmatch(self.value):
            raise ConfigError(f"not a {self.algorithm} digest of {length} hex digits: {self.value!r}")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``algorithm:hex``. Raises ConfigError as the class does, and when there is no colon."""
        algorithm, colon, value = text.partition(":")
        if not colon:
            raise ConfigError(f"not an algorithm:hex digest: {text!r}")
        return cls(algorithm, value)

    @classmethod
    def from_base64(cls, algorithm: str, text: str) -> Digest:
        """Read a digest given as base64 of its raw bytes. Raises ConfigError when it is none."""
        try:
            return cls(algorithm, base64.b64decode(text, validate=True).hex())
        except ValueError as exc:
            raise ConfigError(f"not base64: {text!r}") from exc

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:")
_MAX_NAME_BYTES = 255


def _name_fault(name: str) -> str | None:
    if name in {"", ".", ".."}:
        return f"has the component {name!r}"
    if _RESERVED.fullmatch(name):
        return f"has the reserved name {name!r}"
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
        return "has a component of more than 255 bytes"
    return None


def check_relative_path(path: str) -> str:
    """
    Return ``path`` when it is safe to create beneath a folder; it came from a server or a manifest.

    Raises:
        InvalidUriError: The path is empty, absolute, climbs, names a drive, or has a backslash, a control character,
            a lone surrogate, a reserved device name or an over-long component. The message says which.
    """
    fault = _path_fault(path)
    if fault is not None:
        shown = path.encode("unicode_escape", "backslashreplace").decode("ascii")[:200]
        raise InvalidUriError(f"unsafe file path: '{shown}' {fault}")
    return path


def _path_fault(path: str) -> str | None:
    if not path or path.startswith("/") or _DRIVE.match(path):
        return "is absolute" if path else "is empty"
    if _UNSAFE.search(path):
        return "has a backslash or control character"
    return next(filter(None, map(_name_fault, path.split("/"))), None)


def _safe_path(_instance: object, _attribute: object, value: str) -> None:
    check_relative_path(value)


@frozen(kw_only=True)
class RemoteFile:
    """
    One file as a source lists it.

    Attributes:
        path: Relative to the repository or prefix, ``/`` between components, checked by :func:`check_relative_path`.
        size: Bytes. None when the source does not say.
        digests: Digests of the whole content the source vouches for, any number.
        blob_name: Name the content must have among the cache's blobs. None lets core name it by content.
    """

    path: str = field(validator=_safe_path)
    size: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    digests: tuple[Digest, ...] = ()
    blob_name: str | None = field(default=None, validator=validators.optional(_safe_path))


@frozen(kw_only=True)
class CacheKey:
    """
    Where files of a repository live in the cache: ``<root>/<repo>/snapshots/<snapshot>/<path>``.

    Attributes:
        root: Relative to the cache path, such as ``s3/hub``; absolute when a vendor's own variable moves it.
        repo: One folder name, such as ``models--org--name``.
        snapshot: One folder name: the immutable revision where there is one.
        refs: Names, such as a branch, that resolved to this snapshot.
    """

    root: str
    repo: str = field(validator=_safe_path)
    snapshot: str = field(validator=_safe_path)
    refs: tuple[str, ...] = field(default=(), validator=validators.deep_iterable(_safe_path))


@frozen(kw_only=True)
class Listing:
    """
    What a source found at a URI.

    Attributes:
        uri: The URI that was asked for.
        files: Every file, in the order the source gave them.
        pinned: The immutable revision the answer belongs to. None where the source has none.
    """

    uri: ModelUri
    files: tuple[RemoteFile, ...]
    pinned: str | None = None


Headers = Mapping[str, str | Secret] | tuple[tuple[str, str | Secret], ...]


def secret_headers(value: Headers) -> tuple[tuple[str, Secret], ...]:
    """Return headers as pairs whose values do not show."""
    pairs = value if isinstance(value, tuple) else value.items()
    return tuple((name, as_secret(text)) for name, text in pairs)


@frozen(kw_only=True)
class HttpObject:
    """
    Bytes behind a URL.

    Attributes:
        url: Sent byte for byte as given. Counts as secret: it may be signed.
        headers: Sent to the URL's own origin only, never across a redirect to another.
        expires_at: Unix time in seconds after which :meth:`Source.locate` must be asked again. None: not known.
        ranges: Whether ranged requests work. None: not known, core finds out.
        validator: A strong ETag or the like that pins the content between ranged requests. None: none.
        size: Bytes, where ``locate`` learned it. None: not known.
        authorities: PEM file of those to trust for this URL instead of the run's, as a vendor's own variable may ask.
            Control requests name one as the extension ``authorities``. None: the run's.
    """

    url: Secret = field(converter=as_secret)
    headers: tuple[tuple[str, Secret], ...] = field(default=(), converter=secret_headers)
    expires_at: float | None = None
    ranges: bool | None = None
    validator: str | None = None
    size: int | None = None
    authorities: Path | None = None


@frozen(kw_only=True)
class LocalObject:
    """Bytes already on this machine, at an absolute path: linked, never copied."""

    path: Path


@frozen(kw_only=True)
class StreamObject:
    """
    Bytes of a source that has no URL.

    Attributes:
        open: Returns a binary stream at byte 0; called again for a retry. Read from one thread, then closed.
    """

    open: Callable[[], BinaryIO]


Location = HttpObject | LocalObject | StreamObject
