"""Asking sources: which files there are, and where each one's bytes are."""

from __future__ import annotations

import contextlib
import threading
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
from nim_core.uris import file_uri, without_file

if TYPE_CHECKING:
    import httpx

__all__ = ["MOST_ASKED", "THREADS", "Resolver", "agreed", "listed", "named", "promises"]

THREADS: Final = 16
MOST_ASKED: Final = 256
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
        self._listings: dict[ModelUri, Listing | SourceError] = {}
        self._asking: dict[ModelUri, threading.Lock] = {}
        self._lock = threading.Lock()

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
        listing = self.listing(listed(uri))
        files = listing.files if uri.file is None else (named(listing, uri),)
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
        promised = promises(wanted, verify=verify)
        uris = list(dict.fromkeys(listed(uri) for uri in promised))
        if len(uris) > MOST_ASKED:
            for uri in uris:
                if promised.get(uri) and self.names_files(uri):
                    self._listings.setdefault(uri, Listing(uri=uri, files=(RemoteFile(path=self.file_name(uri)),)))
        map_threads("nim-list", self.listing, [uri for uri in uris if uri not in self._listings], THREADS)
        return {uri: self._fetch(uri, digests) for uri, digests in promised.items()}

    def listing(self, uri: ModelUri) -> Listing:
        """
        Return what a source lists at ``uri``; it is asked once, however often and from whatever threads that is needed.

        Raises:
            SourceError: What the source raised, then and ever after.
        """
        with self._lock:
            asking = self._asking.setdefault(uri, threading.Lock())
        with asking:
            if uri not in self._listings:
                self._listings[uri] = self._asked(uri)
            found = self._listings[uri]
        if isinstance(found, SourceError):
            raise found
        return found

    def forget(self, uri: ModelUri) -> None:
        """Have the source asked again for what is at ``uri``, when that is needed next."""
        self._listings.pop(uri, None)

    def names_files(self, uri: ModelUri) -> bool:
        """Whether the source of ``uri`` knows what its file is called without asking."""
        return isinstance(self._source(uri), FileNaming)

    def file_name(self, uri: ModelUri) -> str:
        """Return what the one file of an OBJECT URI is called: as its source says, else the last part of the key."""
        source = self._source(uri)
        return source.file_name(uri) if isinstance(source, FileNaming) else uri.location.rpartition("/")[2]

    def place(self, uri: ModelUri, pinned: str | None) -> CacheKey:
        """Return where files of ``uri`` live in the cache, without asking anybody."""
        self._source(uri)
        return self._places[uri.scheme](uri, pinned)

    def locate(self, fetch: Fetch) -> Location:
        """Ask where the bytes of a file are now."""
        return self.locate_at(fetch.uri, fetch.file)

    def locate_at(self, uri: ModelUri, file: RemoteFile) -> Location:
        """Ask where the bytes of a file in the listing of ``uri`` are now."""
        return self._source(uri).locate(uri, file)

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
        with self._lock:
            if uri.scheme not in self._sources:
                source = self._sources[uri.scheme] = self._registry.open_source(uri.scheme, self._http)
                self._places[uri.scheme] = source.cache_key if isinstance(source, CachePlacement) else default_key
            return self._sources[uri.scheme]

    def _asked(self, uri: ModelUri) -> Listing | SourceError:
        try:
            return self._source(uri).list_files(uri)
        except SourceError as exc:
            return exc

    def _fetch(self, identity: ModelUri, promised: tuple[Digest, ...]) -> Fetch:
        uri = listed(identity)
        listing = self.listing(uri)
        return Fetch(
            identity=identity,
            uri=uri,
            file=agreed(named(listing, identity), promised, identity),
            key=self.place(uri, listing.pinned),
            pinned=listing.pinned is not None,
        )


def promises(wanted: Iterable[Wanted], *, verify: bool) -> dict[ModelUri, tuple[Digest, ...]]:
    """Return what manifests promise of each file, each promise once; nothing when they do not count."""
    promised: dict[ModelUri, dict[Digest, None]] = {}
    for item in wanted:
        digests = promised.setdefault(item.uri, {})
        if verify and item.digest is not None:
            digests[item.digest] = None
    return {uri: tuple(digests) for uri, digests in promised.items()}


def listed(uri: ModelUri) -> ModelUri:
    """Return the URI whose listing has the file of ``uri``."""
    return uri if uri.style is UriStyle.OBJECT else without_file(uri)


def _identity(uri: ModelUri, file: RemoteFile, *, alone: bool) -> ModelUri:
    """Return the URI of a file that ``uri`` names; an object is named by its own URI, be it beneath a prefix or not."""
    return uri if alone and uri.style is UriStyle.OBJECT else file_uri(uri, file.path)


def named(listing: Listing, uri: ModelUri) -> RemoteFile:
    """Return the one file of a listing that ``uri`` names. Raises SourceError when it names none, or several."""
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


def agreed(file: RemoteFile, promised: tuple[Digest, ...], uri: ModelUri) -> RemoteFile:
    """
    Return ``file`` with what manifests promise first among its digests.

    Raises:
        DigestMismatchError: Promises contradict each other, or the listing.
    """
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
