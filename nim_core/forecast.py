"""
What it would take to fetch what is missing, found out without fetching or writing anything.

Sources have been asked for their listings by then, and whom that took is known. Where bytes come from, one file per
place is asked for: per repository, per bucket, per host of URLs, and of a few places only. To where those servers
redirect nobody can know before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from attrs import define, evolve, field

from nim_core.cache.layout import Layout
from nim_core.cache.space import DeviceNeed, Incoming, device_needs, write_error
from nim_core.errors import NimError
from nim_core.plan import Fetch, Wanted
from nim_core.planning import CredentialUse, HostUse, Outlook, SourceUse
from nim_core.redirecting import Redirecting
from nim_core.registry import Registry
from nim_core.transfer.jobs import SMALL_BYTES, claim, cut, file_record
from nim_core.transfer.journal import unfinished
from nim_core.transfer.network import NetworkConfig, Origin, origin
from nim_core.types import HttpObject, Location, ModelUri, StreamObject, UriStyle

__all__ = ["Forecast"]

_MOST_ASKED: Final = 8


@define
class Forecast:
    """
    Finds out what a download takes.

    Attributes:
        layout: The cache.
        registry: The plugins.
        resolver: Asks the sources.
        network: Proxy rules.
        asked: Origins that control requests went to; grows while this asks more.
    """

    layout: Layout
    registry: Registry
    resolver: Redirecting
    network: NetworkConfig
    asked: Mapping[Origin, None]
    _located: dict[ModelUri, Location] = field(factory=dict, init=False)

    def outlook(self, fetches: Mapping[str, Sequence[Fetch]], wanted: Iterable[Wanted]) -> Outlook:
        """
        Return what it takes.

        Args:
            fetches: Files to fetch, by what names their partials; of those under one name the first is fetched.
            wanted: All files that sources were asked about.

        Raises:
            NimError: A source does not say where a file is.
        """
        firsts = {file_id: items[0] for file_id, items in fetches.items()}
        places = _by_place(firsts.values())
        for fetch in list(places.values())[:_MOST_ASKED]:
            self._locate(fetch)
        resumed = {fetch.identity: done for file_id, fetch in firsts.items() if (done := self._resumed(file_id, fetch))}
        sizes = {
            uri: it.size for uri, it in self._located.items() if isinstance(it, HttpObject) and it.size is not None
        }
        files = [
            Incoming(id=file_id, size=_size(fetch, sizes), root=self.layout.root(fetch.key))
            for file_id, fetch in firsts.items()
        ]
        devices = device_needs(self.layout, files)
        return Outlook(
            resumed=resumed,
            sizes={fetch.identity: sizes[fetch.identity] for fetch in firsts.values() if fetch.identity in sizes},
            duplicates=frozenset(fetch.identity for items in fetches.values() for fetch in items[1:]),
            devices=devices,
            sources=tuple(self._sources()),
            hosts=tuple(self._hosts()),
            unasked=max(0, len(places) - _MOST_ASKED),
            streamed=tuple({uri.scheme: None for uri, it in self._located.items() if isinstance(it, StreamObject)}),
            credentials=tuple(
                sorted(set(self._credentials(item.uri for item in wanted)), key=lambda use: (use.source, use.endpoint))
            ),
            error=self._error(files, devices),
        )

    def _locate(self, fetch: Fetch) -> Location:
        if fetch.identity not in self._located:
            self._located[fetch.identity] = self.resolver.locate(fetch)
        return self._located[fetch.identity]

    def _resumed(self, file_id: str, fetch: Fetch) -> int:
        """Return how many bytes of a file its partial has, asking for its version where only that tells if they fit."""
        found = unfinished(self.layout.partials, file_id)
        if found is None:
            return 0
        earlier, parts = found
        size, validator = fetch.file.size, None
        if size is None or not set(earlier.digests) & {str(digest) for digest in fetch.file.digests}:
            location = self._locate(fetch)
            if isinstance(location, HttpObject):
                size, validator = location.size if size is None else size, location.validator
        if size is None or size <= SMALL_BYTES or not file_record(size, validator, fetch.file.digests).fits(earlier):
            return 0
        cuts = cut(size, single=False)
        claim(cuts, parts)
        return sum(part.done for part in cuts)

    def _sources(self) -> Iterator[SourceUse]:
        for scheme in sorted(self.resolver.schemes):
            owner = self.registry.owner(scheme)
            yield SourceUse(scheme=scheme, distribution=owner.distribution, version=owner.version)

    def _hosts(self) -> Iterable[HostUse]:
        hosts = {place: self._host(place, listing=True) for place in self.asked}
        for location in self._located.values():
            if isinstance(location, HttpObject):
                place = origin(location.url.reveal())
                hosts[place] = evolve(hosts.get(place) or self._host(place), files=True)
        return sorted(hosts.values(), key=lambda use: use.host)

    def _host(self, place: Origin, *, listing: bool = False) -> HostUse:
        proxy = self.network.proxy(str(place))
        return HostUse(host=str(place), listing=listing, proxy=None if proxy is None else proxy.display)

    def _credentials(self, uris: Iterable[ModelUri]) -> Iterator[CredentialUse]:
        """Yield what the sources in use were given, and what URIs bring themselves."""
        names = {self.registry.source_spec(scheme).name for scheme in self.resolver.schemes}
        for given in self.registry.given_credentials:
            if given.source in names:
                yield CredentialUse.of(given.source, given.endpoint, given.credential)
        for uri in uris:
            if uri.style is UriStyle.OBJECT and "@" in _authority(uri):
                endpoint = f"{uri.scheme}://{_authority(uri).rpartition('@')[2]}"
                name = self.registry.source_spec(uri.scheme).name
                yield CredentialUse(source=name, endpoint=endpoint, kind="basic_pair", origin="the URI itself")

    def _error(self, files: Collection[Incoming], devices: Iterable[DeviceNeed]) -> NimError | None:
        if not files:
            return None
        errors = (
            write_error([self.layout.partials]),
            *(need.error for need in devices),
            write_error(file.root for file in files),
        )
        return next(filter(None, errors), None)


def _by_place(fetches: Iterable[Fetch]) -> dict[tuple[str, str], Fetch]:
    """Return the first file of each place that may have servers of its own."""
    places: dict[tuple[str, str], Fetch] = {}
    for fetch in fetches:
        place = _authority(fetch.uri) if fetch.uri.style is UriStyle.OBJECT else fetch.uri.location
        places.setdefault((fetch.uri.scheme, place), fetch)
    return places


def _authority(uri: ModelUri) -> str:
    return uri.location.partition("/")[0]


def _size(fetch: Fetch, sizes: Mapping[ModelUri, int]) -> int | None:
    return sizes.get(fetch.identity) if fetch.file.size is None else fetch.file.size
