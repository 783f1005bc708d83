"""
What is wanted, what is here, and what therefore has to be fetched: values, without I/O.

A :class:`Target` names what the user wants. With the listings of its sources and the state of the cache it becomes a
:class:`Plan`, which can be printed, compared and tested, and which the engine carries out.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from nim_core.types import CacheKey, Digest, ModelUri, RemoteFile

__all__ = ["Fetch", "Plan", "Present", "Target", "Wanted"]


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
