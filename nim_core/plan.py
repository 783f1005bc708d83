"""
What is wanted, what is here, and what therefore has to be fetched: values, without I/O.

A :class:`Target` names what the user wants. With the listings of its sources and the state of the cache it becomes a
:class:`Plan`, which can be printed, compared and tested, and which the engine carries out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.errors import NotFoundError
from nim_core.types import CacheKey, Digest, ModelUri, RemoteFile

__all__ = ["EVERY_FILE", "Fetch", "Patterns", "Plan", "Present", "Target", "Wanted", "model_id"]


@frozen(kw_only=True)
class Wanted:
    """
    One file of a target.

    Attributes:
        path: Path inside the workspace.
        uri: Its identity: the URI as the manifest has it.
        digest: What the manifest promises. None when it promises nothing.
    """

    path: str
    uri: ModelUri
    digest: Digest | None = None


@frozen(kw_only=True)
class Patterns:
    """
    Which files of a model are wanted: those that fit a pattern of ``include``, or all, but none that fits ``exclude``.

    A pattern is compared with the whole path: ``*`` is any text, slashes too, ``?`` one character, ``[ab]`` one of
    these, and one that ends in a slash means everything beneath that folder. That no file fits is an error, unless
    ``may_be_none``.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    may_be_none: bool = False

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)

    def chosen(self, files: Sequence[Wanted]) -> tuple[Wanted, ...]:
        """Return the files that are wanted. Raises NotFoundError when there are files but none of them is."""
        found = tuple(file for file in files if self._fits(file.path))
        if files and not found and not self.may_be_none:
            given = [f"--include {text}" for text in self.include] + [f"--exclude {text}" for text in self.exclude]
            raise NotFoundError(
                f"none of {len(files)} files is left by {' '.join(given)}",
                hint="patterns are compared with the whole path; quote them, so that the shell leaves them alone",
            )
        return found

    def _fits(self, path: str) -> bool:
        return (not self.include or _fits_any(path, self.include)) and not _fits_any(path, self.exclude)


EVERY_FILE: Final = Patterns()


def model_id(uri: ModelUri, patterns: Patterns = EVERY_FILE) -> str:
    """Return the id of the receipt of a model, or of some of its files."""
    chosen = (f"\n{json.dumps([patterns.include, patterns.exclude])}") if patterns else ""
    return hashlib.sha256((uri.identity + chosen).encode()).hexdigest()


def _fits_any(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, f"{text}*" if text.endswith("/") else text) for text in patterns)


@frozen(kw_only=True)
class Target:
    """
    One thing to have in the cache: a profile of a manifest, or all that a model URI names.

    Attributes:
        id: Names the receipt; the profile's id, or a digest of the URI.
        label: What to call it towards the user.
        files: The files. Empty for a model URI.
        uri: The model URI to list. None for a profile.
    """

    id: str
    label: str
    files: tuple[Wanted, ...] = ()
    uri: ModelUri | None = None


@frozen(kw_only=True)
class Fetch:
    """
    One file to fetch, once, however many targets want it.

    Attributes:
        identity: The URI the file is known by in the cache.
        uri: The URI its source was listed by, without the file.
        file: Name, size and every digest known, the manifest's first.
        key: Where it goes in the cache.
        pinned: Whether the source vouches that this name never gets another content.
    """

    identity: ModelUri
    uri: ModelUri
    file: RemoteFile
    key: CacheKey
    pinned: bool = False


@frozen(kw_only=True)
class Present:
    """
    One file that is here and right.

    Attributes:
        identity: The URI the file is known by.
        blob: Its bytes: a blob of the cache, or a file outside it that is used from where it is.
        link: Its place in a snapshot. None for a file outside the cache.
        size: Bytes.
        mtime_ns: Time of last change in nanoseconds, when it was found right.
        digests: Digests the bytes were seen to have.
        host: Where they came from. None when not from a network, or not known any more.
    """

    identity: ModelUri
    blob: Path
    link: Path | None
    size: int
    mtime_ns: int
    digests: tuple[Digest, ...] = ()
    host: str | None = None


@frozen(kw_only=True)
class Plan:
    """What has to be done for the targets, and what need not be."""

    fetches: tuple[Fetch, ...] = ()
    present: tuple[Present, ...] = ()

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes to fetch, counting files of unknown size as nothing."""
        return sum(fetch.file.size or 0 for fetch in self.fetches)

    @property
    def unknown_sizes(self) -> int:
        """How many files to fetch have no known size."""
        return sum(fetch.file.size is None for fetch in self.fetches)

    @property
    def bytes_present(self) -> int:
        """Bytes that need not be fetched."""
        return sum(item.size for item in self.present)
