"""Model URIs and override targets as values; core's ``uris`` module parses them."""

from __future__ import annotations

import enum
import hashlib
import re

from attrs import frozen


class UriStyle(enum.Enum):
    """
    The three grammars a model URI can have; a source declares which one its schemes use. Nothing is ever decoded.

    REPOSITORY: ``scheme://a/b[/c][:revision][?file=path]``
    OBJECT: ``scheme://bucket/key``; everything after ``://`` is literal
    PATH: ``scheme:///absolute[?file=path]``
    """

    REPOSITORY = "repository"
    OBJECT = "object"
    PATH = "path"


_USERINFO = re.compile(r"^[^/]*@")
_SIGNED = re.compile(
    r"(?i)([?&](?:[^=&]*(?:signature|credential|token|secret|password|api_?key)|sig|key)=)[^&]*",
)


def _masked(text: str) -> str:
    """Return a URI without what signs it; most have no query, and are looked at thousands of times."""
    return _SIGNED.sub(r"\1***", text) if "?" in text or "&" in text else text


@frozen(kw_only=True, cache_hash=True)
class ModelUri:
    """
    Where a model or one of its files lives, parsed once.

    Attributes:
        scheme: Lower case, without ``://``.
        location: Literal text after ``://``, without revision and file.
        revision: Version, branch, tag or commit. None when not given; never a default name.
        file: Path within the repository or folder. None means all of it.
        style: The grammar it was parsed by, and by which ``str`` writes it again, to the letter.
    """

    scheme: str
    location: str
    revision: str | None = None
    file: str | None = None
    style: UriStyle = UriStyle.REPOSITORY

    def __str__(self) -> str:
        revision = "" if self.revision is None else f":{self.revision}"
        file = "" if self.file is None else f"?file={self.file}"
        return f"{self.scheme}://{self.location}{revision}{file}"

    @property
    def display(self) -> str:
        """The URI without userinfo and without what signs a URL, for messages, logs and receipts."""
        return _masked(self._plain())

    @property
    def identity(self) -> str:
        """
        What receipts know a file by: the display form and, where that leaves out part of a query, a digest of it all.

        Userinfo does not count, so a changed password does not make another file.
        """
        plain = self._plain()
        masked = _masked(plain)
        if masked == plain:
            return plain
        plain = plain.partition("://")[2]
        return f"{masked}#{hashlib.sha256(plain.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"

    def _plain(self) -> str:
        rest = str(self).partition("://")[2]
        return f"{self.scheme}://{_USERINFO.sub('', rest) if '@' in rest else rest}"

    def __repr__(self) -> str:
        return f"ModelUri({self.display!r})"


@frozen(kw_only=True)
class OverrideTarget:
    """
    One place that NIM_REPOSITORY_OVERRIDE names instead of where a manifest points, and one file there.

    Attributes:
        scheme: Lower case, without ``://``.
        location: Literal text after ``://`` without trailing slashes: host or bucket, and a prefix where there is one.
        key: What ``mirror`` calls the file there: one flat name, percent-encoded but for ``A-Z a-z 0-9 - . _ ~``.
    """

    scheme: str
    location: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.location}"

    @property
    def display(self) -> str:
        """The target without userinfo and without what signs a URL, for messages and logs."""
        return ModelUri(scheme=self.scheme, location=self.location, style=UriStyle.OBJECT).display
