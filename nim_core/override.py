"""What stands in for the places a manifest names, and what its files are called there: pure, without I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from attrs import frozen

from nim_core.errors import OverrideUnsupportedError
from nim_core.types import ModelUri, OverrideTarget, UriStyle

__all__ = ["Override", "object_key", "object_name", "read_overrides"]

_TARGET = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*[^/])/*")
_VARIABLE: Final = "NIM_REPOSITORY_OVERRIDE"


@frozen(kw_only=True)
class Override:
    """
    One target of NIM_REPOSITORY_OVERRIDE.

    Attributes:
        scheme: Lower case, without ``://``.
        location: Literal text after ``://`` without trailing slashes.
    """

    scheme: str
    location: str

    def target(self, key: str) -> OverrideTarget:
        """Return the place of one file."""
        return OverrideTarget(scheme=self.scheme, location=self.location, key=key)

    @property
    def display(self) -> str:
        """The target for messages, without secrets."""
        return ModelUri(scheme=self.scheme, location=self.location, style=UriStyle.OBJECT).display


def read_overrides(texts: Sequence[str]) -> tuple[Override, ...]:
    """
    Read the targets of NIM_REPOSITORY_OVERRIDE, each ``scheme://place[/prefix]``; slashes at the end do not count.

    Raises:
        OverrideUnsupportedError: One of them has another form.
    """
    return tuple(_read(text) for text in texts)


def _read(text: str) -> Override:
    match = _TARGET.fullmatch(text)
    if match is None or match[2].startswith("/"):
        shown = text.partition("://")[0][:40] if "://" in text else "without ://"
        raise OverrideUnsupportedError(
            f"not a target in {_VARIABLE}: {shown}",
            hint="write it as scheme://bucket[/prefix] or https://host[/path], several separated by commas",
        )
    return Override(scheme=match[1].lower(), location=match[2])


def object_key(uri: ModelUri, *, with_scheme: bool) -> str:
    """
    Return what a mirror calls a file: one flat name.

    Everything but ``A-Z a-z 0-9 - . _ ~`` is percent-encoded, slashes too, in upper-case hex; those characters are in
    the name itself. So NVIDIA documents it for ``ngc://`` (nim-repository-override), where the scheme is left out.

    Args:
        uri: Of the file, as the manifest has it; what is secret in it does not count.
        with_scheme: Whether the scheme belongs to the name, so that files of several sources never share one.
    """
    text = uri.identity
    return quote(text if with_scheme else text.partition("://")[2], safe="")


def object_name(prefix: str, key: str) -> str:
    """Return a key beneath a prefix; slashes around the prefix do not count."""
    prefix = prefix.strip("/")
    return f"{prefix}/{key}" if prefix else key
