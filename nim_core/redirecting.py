"""
NIM_REPOSITORY_OVERRIDE for downloads: where files are looked for instead of where a manifest points.

Name, digests and place in the cache stay what a file's own URI and its manifest say; what is listed and located is what
the plugin of a target makes of that URI. So it does not matter who answers, and the cache is the one that a direct
download fills. Targets are tried in their order, for each file by itself. One that fails in a way that passes is given
up for the run; one that lacks a file, refuses it or has other content is passed over for that file. The place that the
URI itself names is never asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog
from attrs import Factory, define, evolve, frozen

from nim_core.errors import ConfigError, IntegrityError, NimError, NotFoundError, OverrideUnsupportedError, SourceError
from nim_core.override import Override, object_key
from nim_core.plan import Fetch, Wanted
from nim_core.registry import Registry
from nim_core.resolve import MOST_ASKED, THREADS, Resolver, agreed, listed, named, promises
from nim_core.settings import Settings
from nim_core.transfer.workers import map_threads
from nim_core.types import Digest, Listing, Location, ModelUri, RemoteFile, UriStyle

__all__ = ["Redirecting", "redirected_schemes"]

_TARGETS: Final = "NIM_REPOSITORY_OVERRIDE"
_SCHEMES: Final = "NIM_REPOSITORY_OVERRIDE_SCHEMES"
_ELSEWHERE: Final = (SourceError, IntegrityError)
"""What another target may do better."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


def redirected_schemes(registry: Registry, settings: Settings) -> frozenset[str]:
    """
    Return the schemes whose URIs are looked for at the targets of the override.

    Raises:
        ConfigError: The user names one that no installed plugin brings.
    """
    named_by_user = settings.overridden_schemes
    if named_by_user is None:
        return frozenset(scheme for scheme in registry.styles if registry.source_spec(scheme).capabilities.overridable)
    schemes = frozenset(scheme.lower() for scheme in named_by_user)
    unknown = sorted(schemes - registry.styles.keys())
    if unknown:
        raise ConfigError(
            f"no installed plugin for scheme in {_SCHEMES}: {unknown[0]}",
            hint=f"schemes are separated by commas, without ://; installed: {', '.join(sorted(registry.styles))}",
        )
    return schemes


@define(eq=False)
class _Target:
    """
    One target, as far as it is known by now.

    Attributes:
        override: As the user named it.
        form: Which of its several URIs for a file was the right one last.
        dead: Why it is not asked any more. None: it is.
        told: Kinds of errors the user has been told of.
    """

    override: Override
    form: int = 0
    dead: SourceError | None = None
    told: set[type[NimError]] = Factory(set)

    def in_order(self, forms: Sequence[ModelUri]) -> tuple[tuple[int, ModelUri], ...]:
        """Return the URIs of a file with their numbers, the most promising first."""
        return tuple(sorted(enumerate(forms), key=lambda item: item[0] != self.form))


@frozen(kw_only=True)
class _Place:
    """A file at a target: ``uri`` is listed, and ``file`` is what the target calls it."""

    target: _Target
    uri: ModelUri
    file: RemoteFile


@define(eq=False, kw_only=True)
class _File:
    """
    One file, and where it is looked for.

    Attributes:
        identity: Its URI in the manifest.
        promised: What manifests promise.
        forms: The URIs that may stand for it, by target, in the order of trying.
        failures: Why a target is not the one for it.
        place: Where it is.
        seen: Whether a listing shows it there, or that is a guess.
    """

    identity: ModelUri
    promised: tuple[Digest, ...]
    forms: Mapping[_Target, tuple[ModelUri, ...]]
    failures: dict[_Target, NimError] = Factory(dict)
    place: _Place | None = None
    seen: bool = False

    @property
    def has_moved(self) -> bool:
        """Whether its place is at a target that is not the one for it any more."""
        target = None if self.place is None else self.place.target
        return target is not None and (target.dead is not None or target in self.failures)


class Redirecting:
    """
    A resolver that looks for files of some schemes at the targets of the override, and for others where they are.

    Args:
        resolver: Asks sources.
        registry: Knows what stands for a URI at a target.
        overrides: The targets, in the order of trying. Empty: nothing is redirected.
        schemes: Whose URIs are redirected.
    """

    def __init__(
        self, resolver: Resolver, registry: Registry, overrides: Iterable[Override], schemes: frozenset[str]
    ) -> None:
        self._resolver = resolver
        self._registry = registry
        self._targets = tuple(_Target(override) for override in overrides)
        self._schemes = schemes if self._targets else frozenset()
        self._files: dict[ModelUri, _File] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every source."""
        self._resolver.close()

    @property
    def schemes(self) -> tuple[str, ...]:
        """Schemes of the sources that were opened, in that order."""
        return self._resolver.schemes

    def expand(self, uri: ModelUri) -> tuple[Wanted, ...]:
        """
        Return every file that a model URI names.

        Raises:
            NimError: As :meth:`fetches`; OverrideUnsupportedError also where a target cannot list a model.
        """
        if uri.scheme not in self._schemes:
            return self._resolver.expand(uri)
        if uri.file is not None or uri.style is UriStyle.OBJECT:
            return (Wanted(path=uri.file or self._resolver.file_name(uri), uri=uri),)
        _, files = self._first(self._file(uri, ()), self._resolver.expand)
        return tuple(Wanted(path=file.path, uri=evolve(uri, file=file.path)) for file in files)

    def listing(self, uri: ModelUri) -> Listing | None:
        """Return what its source listed at a model URI that was expanded. None where it is looked for elsewhere."""
        return None if uri.scheme in self._schemes else self._resolver.listing(listed(uri))

    def fetches(self, wanted: Iterable[Wanted], *, verify: bool) -> dict[ModelUri, Fetch]:
        """
        Return how to fetch each wanted file, by its identity; arguments and errors as :meth:`Resolver.fetches`.

        Raises:
            OverrideUnsupportedError: A target cannot stand in.
            PluginError: No plugin brings the scheme of a target, or one failed.
        """
        items = list(wanted)
        ours = [item for item in items if item.uri.scheme in self._schemes]
        others = [item for item in items if item.uri.scheme not in self._schemes]
        files = [self._file(uri, digests) for uri, digests in promises(ours, verify=verify).items()]
        self._files |= {file.identity: file for file in files}
        found = {**self._resolver.fetches(others, verify=verify), **self._look_for(files)}
        return {item.uri: found[item.uri] for item in items}

    def locate(self, fetch: Fetch) -> Location:
        """Ask where the bytes of a file are now; one that nobody has seen yet may turn out to be at another target."""
        file = self._files.get(fetch.identity)
        if file is None:
            return self._resolver.locate(fetch)
        place = file.place
        if place is None:
            place = file.place = self._guess(file)
        elif not file.seen:  # what was guessed has been refused
            file.place = None
            self._resolver.forget(place.uri)
            place = self._seen(file)[0]
        return self._resolver.locate_at(place.uri, place.file)

    def local_paths(self, fetches: Mapping[ModelUri, Fetch]) -> dict[ModelUri, Path]:
        """Return the files that are on this machine already."""
        direct = {identity: fetch for identity, fetch in fetches.items() if identity not in self._files}
        return self._resolver.local_paths(direct)

    def elsewhere(self, fetches: Sequence[Fetch], failed: ModelUri, error: BaseException) -> tuple[Fetch, ...]:
        """
        Return how to go on with ``fetches`` after one of them could not be had where it was thought to be.

        Args:
            fetches: What is still missing.
            failed: The identity of that one.
            error: Why.

        Raises:
            BaseException: ``error``, where no other target can help; or as :meth:`fetches`.
        """
        file = self._files.get(failed)
        if file is None or file.place is None or not isinstance(error, _ELSEWHERE):
            raise error
        self._pass_over(file, file.place.target, error)
        moved = [it for fetch in fetches if (it := self._files.get(fetch.identity)) is not None and it.has_moved]
        for it in moved:
            it.place, it.seen = None, False
        found = self._look_for(moved)
        return tuple(found.get(fetch.identity, fetch) for fetch in fetches)

    # ------------------------------------------------------------------------------------------------ looking for files
    def _file(self, identity: ModelUri, promised: tuple[Digest, ...]) -> _File:
        overridable = self._registry.source_spec(identity.scheme).capabilities.overridable
        key = object_key(identity, with_scheme=not overridable)
        forms = {target: self._forms(identity, target.override, key) for target in self._targets}
        return _File(identity=identity, promised=promised, forms=forms)

    def _forms(self, identity: ModelUri, override: Override, key: str) -> tuple[ModelUri, ...]:
        forms = self._registry.rewrite_uri(identity, override.target(key))
        if not forms:
            self._registry.owner(override.scheme)
            raise OverrideUnsupportedError(
                f"{override.scheme}:// cannot stand in for {identity.scheme}://: {_TARGETS} names {override.display}",
                hint="targets are buckets, web servers, and proxies that speak the repository's own protocol; "
                f"to download from {override.scheme}://, name its URIs in the manifest, or use --model-uri",
            )
        return forms

    def _look_for(self, files: Sequence[_File]) -> dict[ModelUri, Fetch]:
        """Return how to fetch each file; the first shows the others which targets are dead, and which form is right."""
        guessed = self._guessable(files)
        asked = [file for file in files if file not in guessed]
        seen = [
            fetch for some in (asked[:1], asked[1:]) for fetch in map_threads("nim-list", self._found, some, THREADS)
        ]
        return {fetch.identity: fetch for fetch in (*seen, *map(self._unseen, guessed))}

    def _guessable(self, files: Sequence[_File]) -> dict[_File, None]:
        """Return files that are so many that nobody is asked for them, as for objects in general, but for one."""
        if len(files) <= MOST_ASKED:
            return {}
        return dict.fromkeys([file for file in files if file.promised and self._are_named(file)][1:])

    def _are_named(self, file: _File) -> bool:
        return all(self._resolver.names_files(uri) for forms in file.forms.values() for uri in forms)

    def _found(self, file: _File) -> Fetch:
        return self._fetch(file, *self._seen(file))

    def _unseen(self, file: _File) -> Fetch:
        return self._fetch(file, self._guess(file), None)

    def _seen(self, file: _File) -> tuple[_Place, str | None]:
        """Look at each target until one has the file; return its place, and the revision that is pinned to."""
        target, (uri, entry, pinned) = self._first(file, partial(self._entry, file))
        place = file.place = _Place(target=target, uri=uri, file=entry)
        file.seen = True
        return place, pinned

    def _entry(self, file: _File, uri: ModelUri) -> tuple[ModelUri, RemoteFile, str | None]:
        listing = self._resolver.listing(listed(uri))
        entry = named(listing, uri)
        agreed(entry, file.promised, file.identity)
        return listed(uri), entry, listing.pinned

    def _guess(self, file: _File) -> _Place:
        target = self._next_target(file)
        _, uri = target.in_order(file.forms[target])[0]
        return _Place(target=target, uri=uri, file=RemoteFile(path=self._resolver.file_name(uri)))

    def _fetch(self, file: _File, place: _Place, pinned: str | None) -> Fetch:
        """
        Return how to fetch a file from a place.

        Where a manifest promises nothing, the target's digests count; where it does, they have been compared with it,
        and are left out, so that a partial is the same one whatever target it came from.
        """
        own, spec = file.identity, self._registry.source_spec(file.identity.scheme)
        if place.uri.scheme != own.scheme or own.style is UriStyle.OBJECT:
            pinned = None
        path = self._resolver.file_name(own) if own.style is UriStyle.OBJECT else own.file or place.file.path
        return Fetch(
            identity=own,
            uri=place.uri,
            file=RemoteFile(path=path, size=place.file.size, digests=file.promised or place.file.digests),
            key=self._resolver.place(listed(own), pinned),
            pinned=pinned is not None or (spec.capabilities.pins_revisions and own.revision is not None),
        )

    # --------------------------------------------------------------------------------------------------- trying targets
    def _first(self, file: _File, use: Callable[[ModelUri], T]) -> tuple[_Target, T]:
        """Return the first target that ``use`` succeeds with, and what that brought."""
        while True:
            target = self._next_target(file)
            try:
                return target, self._at(target, file.forms[target], use)
            except _ELSEWHERE as exc:
                self._pass_over(file, target, exc)

    def _at(self, target: _Target, forms: Sequence[ModelUri], use: Callable[[ModelUri], T]) -> T:
        failures: list[NimError] = []
        for number, uri in target.in_order(forms):
            if target.dead is not None:
                raise target.dead
            try:
                found = use(uri)
            except SourceError as exc:
                if exc.retryable:
                    raise
                failures.append(exc)
            else:
                target.form = number
                return found
        raise _most_telling(failures)

    def _next_target(self, file: _File) -> _Target:
        for target in self._targets:
            if target.dead is not None:
                file.failures.setdefault(target, target.dead)
            if target not in file.failures:
                return target
        raise self._nowhere(file)

    def _nowhere(self, file: _File) -> NimError:
        """Return the most telling of the errors of a file that no target has, with a hint at the others."""
        failures = {target: file.failures[target] for target in self._targets}
        telling = _most_telling(list(failures.values()))
        others = [f"{it.override.display} ({error.message})" for it, error in failures.items() if error is not telling]
        own = f"{_TARGETS} says where {file.identity.display} is looked for"
        tried = f"; also tried: {', '.join(others)}" if others else ""
        return _with_hint(telling, f"{telling.hint}; {own}{tried}" if telling.hint else own + tried)

    def _pass_over(self, file: _File, target: _Target, error: NimError) -> None:
        """Remember that a target is not the one for a file, or for none at all, and tell the user."""
        with self._lock:
            file.failures[target] = error
            news = isinstance(error, IntegrityError) or type(error) not in target.told
            target.told.add(type(error))
            if isinstance(error, SourceError) and error.retryable:
                news = target.dead is None
                target.dead = target.dead or error
        if news and len(self._targets) > 1 and not isinstance(error, NotFoundError):
            event = "override_passed_over" if target.dead is None else "override_given_up"
            _log.warning(event, target=target.override.display, file=file.identity.display, reason=error.message)


def _most_telling(failures: Sequence[NimError]) -> NimError:
    """Return the first error that says more than that a file is not there, else the first."""
    return next((error for error in failures if not isinstance(error, NotFoundError)), failures[0])


def _with_hint(error: NimError, hint: str) -> NimError:
    """Return an error like ``error``, which other files may have in common, but for its hint."""
    like = type(error).__new__(type(error), *error.args)
    like.__dict__.update(error.__dict__, hint=hint)
    like.__cause__ = error
    return like
