"""Asking sources: which files there are, and where each one's bytes are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import evolve

from nim_core.cache.layout import default_key
from nim_core.errors import DigestMismatchError, NotFoundError, SourceError
from nim_core.plan import Fetch, Wanted
from nim_core.registry import Registry
from nim_core.transfer.workers import map_threads
from nim_core.types import (
    CacheKey,
    CachePlacement,
    Digest,
    FileNaming,
    Listing,
    LocalObject,
    Location,
    ModelUri,
    RemoteFile,
    Source,
    UriStyle,
)
from nim_core.uris import without_file

if TYPE_CHECKING:
    import httpx

__all__ = ["Resolver"]

_THREADS: Final = 16
_MOST_ASKED: Final = 256
"""So many files may be asked for their sizes, so that space is checked before the first byte; more take too long."""


class Resolver:
    """
    Asks the sources of a run; each is opened once, on first use.

    Args:
        registry: Knows who owns a scheme.
        http: Client for control requests.
    """

    def __init__(self, registry: Registry, http: httpx.Client) -> None:
        self._registry = registry
        self._http = http
        self._sources: dict[str, Source] = {}
        self._places: dict[str, Callable[[ModelUri, str | None], CacheKey]] = {}
        self._listings: dict[ModelUri, Listing] = {}

    def close(self) -> None:
        """Close every source; what one raises does not keep the others open."""
        for source in self._sources.values():
            with contextlib.suppress(Exception):
                source.close()

    @property
    def schemes(self) -> tuple[str, ...]:
        """Schemes of the sources that were opened, in that order."""
        return tuple(self._sources)

    def expand(self, uri: ModelUri) -> tuple[Wanted, ...]:
        """Return every file that a model URI names. Raises NotFoundError when there is none."""
        listing = self._listing(_listed(uri))
        files = listing.files if uri.file is None else (_named(listing, uri),)
        if not files:
            raise NotFoundError(f"nothing there: {uri.display}", uri=uri.display)
        return tuple(Wanted(path=file.path, uri=_identity(uri, file, alone=len(files) == 1)) for file in files)

    def fetches(self, wanted: Iterable[Wanted], *, verify: bool) -> dict[ModelUri, Fetch]:
        """
        Return how to fetch each wanted file, by its identity.

        Args:
            wanted: Files; the same one may be wanted more than once.
            verify: Whether the manifest's digests count.

        Raises:
            NotFoundError: A source does not have a file.
            DigestMismatchError: A source has another content than a manifest promises, as its listing shows, or two
                promises for one file contradict each other.
        """
        items = list(wanted)
        uris = list(dict.fromkeys(_listed(item.uri) for item in items))
        promised: dict[ModelUri, dict[Digest, None]] = {item.uri: {} for item in items}
        for item in items:
            if verify and item.digest is not None:
                promised[item.uri][item.digest] = None
        for uri in uris:
            source = self._source(uri)
            if len(uris) > _MOST_ASKED and promised.get(uri) and isinstance(source, FileNaming):
                self._listings.setdefault(uri, Listing(uri=uri, files=(RemoteFile(path=source.file_name(uri)),)))
        map_threads("nim-list", self._listing, [uri for uri in uris if uri not in self._listings], _THREADS)
        return {uri: self._fetch(uri, tuple(digests)) for uri, digests in promised.items()}

    def locate(self, fetch: Fetch) -> Location:
        """Ask where the bytes of a file are now."""
        return self._source(fetch.uri).locate(fetch.uri, fetch.file)

    def local_paths(self, fetches: Mapping[ModelUri, Fetch]) -> dict[ModelUri, Path]:
        """Return the files that are on this machine already, of sources whose URIs are paths."""
        found: dict[ModelUri, Path] = {}
        for identity, fetch in fetches.items():
            if identity.style is UriStyle.PATH:
                location = self.locate(fetch)
                if isinstance(location, LocalObject):
                    found[identity] = location.path
        return found

    def source(self, scheme: str) -> Source:
        """Return the source that owns a scheme, opened."""
        return self._source(ModelUri(scheme=scheme, location=""))

    def _source(self, uri: ModelUri) -> Source:
        if uri.scheme not in self._sources:
            source = self._sources[uri.scheme] = self._registry.open_source(uri.scheme, self._http)
            self._places[uri.scheme] = source.cache_key if isinstance(source, CachePlacement) else default_key
        return self._sources[uri.scheme]

    def _listing(self, uri: ModelUri) -> Listing:
        if uri not in self._listings:
            self._listings[uri] = self._source(uri).list_files(uri)
        return self._listings[uri]

    def _fetch(self, identity: ModelUri, promised: tuple[Digest, ...]) -> Fetch:
        uri = _listed(identity)
        listing = self._listing(uri)
        return Fetch(
            identity=identity,
            uri=uri,
            file=_promised(_named(listing, identity), promised, identity),
            key=self._places[uri.scheme](uri, listing.pinned),
            pinned=listing.pinned is not None,
        )


def _listed(uri: ModelUri) -> ModelUri:
    """Return the URI whose listing has the file of ``uri``."""
    return uri if uri.style is UriStyle.OBJECT else without_file(uri)


def _identity(uri: ModelUri, file: RemoteFile, *, alone: bool) -> ModelUri:
    """Return the URI of a file that ``uri`` names; an object is named by its own URI, be it beneath a prefix or not."""
    if uri.style is not UriStyle.OBJECT:
        return evolve(uri, file=file.path)
    if alone:
        return uri
    return evolve(uri, location=f"{uri.location.removesuffix('/')}/{file.path}")


def _named(listing: Listing, uri: ModelUri) -> RemoteFile:
    """Return the one file of a listing that ``uri`` names."""
    if uri.style is UriStyle.OBJECT:
        if not listing.files:
            raise NotFoundError(f"no such file: {uri.display}", uri=uri.display)
        if len(listing.files) > 1:
            raise SourceError(f"not one file but {len(listing.files)}", uri=uri.display)
        return listing.files[0]
    for file in listing.files:
        if file.path == uri.file or (uri.file is None and len(listing.files) == 1):
            return file
    raise NotFoundError(f"no such file: {uri.display}", uri=uri.display, hint=_similar(listing.files, uri.file))


def _similar(files: Sequence[RemoteFile], name: str | None) -> str:
    import difflib

    close = difflib.get_close_matches(name or "", [file.path for file in files], n=3)
    if close:
        return f"did you mean {' or '.join(close)}"
    return f"the source lists {len(files)} files, this is none of them"


def _promised(file: RemoteFile, promised: tuple[Digest, ...], uri: ModelUri) -> RemoteFile:
    """Return ``file`` with what manifests promise first among its digests."""
    seen: dict[str, Digest] = {}
    for digest in promised:
        first = seen.setdefault(digest.algorithm, digest)
        if first != digest:
            raise DigestMismatchError(f"two contents promised for {uri.display}: {first} and {digest}")
    for listed in file.digests:
        digest = seen.get(listed.algorithm, listed)
        if digest != listed:
            raise DigestMismatchError(
                f"wrong content of {uri.display}: source lists {listed}, manifest has {digest}",
                hint="the file was replaced at its source, or the manifest belongs to another version",
            )
    return evolve(file, digests=tuple(dict.fromkeys((*promised, *file.digests))))
