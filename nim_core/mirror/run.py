"""The function behind ``mirror``: each file goes to the bucket as soon as it is verified, while others still come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal, Protocol

from attrs import evolve, field, frozen

from nim_core.cache.layout import Layout
from nim_core.download import DownloadOptions, DownloadResult, Observer, download
from nim_core.errors import SourceError
from nim_core.mirror.keys import Planned, agrees, listing_prefixes, planned_objects
from nim_core.mirror.place import Destination, Place, opened
from nim_core.mirror.survey import listed, survey
from nim_core.mirror.tokens import Tokens
from nim_core.mirror.upload import Listener, ObjectResult, Uploader
from nim_core.override import object_name
from nim_core.plan import Fetch, Plan, Present, Target, Wanted
from nim_core.planning import DownloadPlan
from nim_core.registry import Registry
from nim_core.settings import Settings
from nim_core.transfer.workers import map_threads
from nim_core.types import ModelUri, StoredObject, UriStyle

__all__ = ["MirrorObserver", "MirrorOptions", "MirrorResult", "PlannedObject", "manifest_object", "mirror"]

_COPY_THREADS: Final = 8


class MirrorObserver(Observer, Listener, Protocol):
    """Hears how a mirror goes on, from any thread; must return at once."""


@frozen(kw_only=True)
class MirrorOptions:
    """
    How to mirror.

    Attributes:
        cache_path: Folder of the model cache, through which files go.
        max_connections: Connections at once, at most, in each direction.
        manifest: File to be written next to the objects, as it is. None: none.
        dry_run: Find out what would be done, and do nothing.
    """

    cache_path: Path
    max_connections: int = 32
    manifest: Path | None = None
    dry_run: bool = False


@frozen(kw_only=True)
class PlannedObject:
    """What would be done about an object: ``upload`` it, ``replace`` what its key holds, or nothing (``present``)."""

    planned: Planned
    action: Literal["upload", "replace", "present"]


@frozen(kw_only=True)
class MirrorResult:
    """
    What was done, or would be.

    Attributes:
        url: What NIM_REPOSITORY_OVERRIDE has to be to serve from there.
        objects: What became of each object. Empty where nothing was done.
        planned: What was to be done about each.
        plan: What had to be downloaded for that.
        download: The same as a plan of a download, where nothing was done.
        bytes_fetched: Bytes that came over the network.
        bytes_sent: Bytes that went to the bucket.
        seconds: How long it took.
    """

    url: str
    objects: tuple[ObjectResult, ...] = ()
    planned: tuple[PlannedObject, ...] = ()
    plan: Plan = field(factory=Plan)
    download: DownloadPlan = field(factory=DownloadPlan)
    bytes_fetched: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0


def mirror(
    targets: tuple[Target, ...],
    destination: Destination,
    options: MirrorOptions,
    registry: Registry,
    settings: Settings,
    *,
    observer: MirrorObserver,
) -> MirrorResult:
    """
    Have a bucket hold every file of ``targets`` under the key that an override looks for.

    What is there and right, by the digests stored with it, is neither downloaded nor uploaded. A run that was killed is
    gone on with by the next.

    Raises:
        NimError: In its most fitting subclass; every object that is readable then is complete and right.
        KeyboardInterrupt: Within seconds of the user's wish.
    """
    started = time.monotonic()
    with opened(destination, registry, settings) as place:
        observer.phase("looking at the bucket")
        objects = planned_objects(targets, destination.prefix, place.with_scheme)
        extra = [] if options.manifest is None else [manifest_object(options.manifest, destination)]
        prefixes = (*listing_prefixes(objects.values(), destination.prefix, place.with_scheme), *(o.key for o in extra))
        there = survey(place.sink, [*objects.values(), *extra], listed(place.sink, prefixes))
        planned = tuple(PlannedObject(planned=item, action=_action(item, there)) for item in objects.values())
        run = _Run(place=place, options=options, settings=settings, observer=observer, there=there)
        result = run.look(targets, planned) if options.dry_run else run.carry_out(targets, planned, extra)
    return evolve(result, seconds=time.monotonic() - started)


def manifest_object(path: Path, destination: Destination) -> Planned:
    """Return the object that a manifest becomes: under its own name, which no file's key can be."""
    uri = ModelUri(scheme="manifest", location=path.name, style=UriStyle.OBJECT)
    return Planned(key=object_name(destination.prefix, path.name), uri=uri, path=path.name)


def _action(item: Planned, there: Mapping[str, StoredObject]) -> Literal["upload", "replace", "present"]:
    stored = there.get(item.key)
    if stored is None:
        return "upload"
    return "present" if agrees(stored, None, item.digests) else "replace"


@frozen(kw_only=True)
class _Run:
    """A mirror under way; ``there`` is what the bucket held."""

    place: Place
    options: MirrorOptions
    settings: Settings
    observer: MirrorObserver
    there: Mapping[str, StoredObject]

    def look(self, targets: tuple[Target, ...], planned: tuple[PlannedObject, ...]) -> MirrorResult:
        """Return what would be done."""
        found = self._download(targets, planned, (), lambda _: None)
        return MirrorResult(url=self.place.url, planned=planned, plan=found.plan, download=found.planned)

    def carry_out(
        self, targets: tuple[Target, ...], planned: tuple[PlannedObject, ...], extra: Iterable[Planned]
    ) -> MirrorResult:
        """Do it."""
        layout = Layout(self.options.cache_path.absolute())
        tokens = Tokens(layout, f"{self.place.destination.sink}\n{self.place.destination.bucket}")
        uploader = Uploader(
            sink=self.place.sink,
            stored=self.there,
            tokens=tokens,
            policy=self.place.policy,
            connections=self.options.max_connections,
            listener=self.observer,
        )
        try:
            copied = self._copy(planned, uploader)
            objects = {item.planned.uri: item.planned for item in planned}
            brought = self._download(
                targets, planned, copied, lambda present: _add(uploader, objects[present.identity], present)
            )
            for item in extra:
                uploader.add(item, self.options.manifest or Path(), 0, ())
            self.observer.phase("uploading")
            results = uploader.finish()
        finally:
            uploader.stop()
        tokens.prune()
        done = tuple(results.get(item.planned.key) or _untouched(item.planned, self.there) for item in planned)
        return MirrorResult(
            url=self.place.url,
            objects=done,
            planned=planned,
            plan=brought.plan,
            bytes_fetched=brought.bytes_fetched,
            bytes_sent=uploader.bytes_sent,
        )

    def _copy(self, planned: Iterable[PlannedObject], uploader: Uploader) -> tuple[ModelUri, ...]:
        """Have the store copy what it has itself and vouches for; return what it copied."""
        wanted = [
            Wanted(path=item.planned.path, uri=item.planned.uri, digest=next(iter(item.planned.digests), None))
            for item in planned
            if item.action != "present" and item.planned.uri.scheme == self.place.scheme and self.place.sink.copies
        ]
        if not wanted:
            return ()
        objects = {item.planned.uri: item.planned for item in planned}
        fetches = self.place.resolver.fetches(wanted, verify=True)
        copied = map_threads("nim-copy", partial(_copied, uploader, objects), list(fetches.values()), _COPY_THREADS)
        return tuple(uri for uri in copied if uri is not None)

    def _download(
        self,
        targets: tuple[Target, ...],
        planned: tuple[PlannedObject, ...],
        copied: tuple[ModelUri, ...],
        ready: Callable[[Present], None],
    ) -> DownloadResult:
        """Download what is neither there nor copied; only where that is all of a profile, it counts as downloaded."""
        needless = {item.planned.uri for item in planned if item.action == "present"} | set(copied)
        reduced = tuple(
            evolve(target, files=tuple(file for file in target.files if file.uri not in needless)) for target in targets
        )
        options = DownloadOptions(
            cache_path=self.options.cache_path,
            use_cache=True,
            max_connections=self.options.max_connections,
            record=not needless,
            plan_only=self.options.dry_run,
        )
        left = tuple(target for target in reduced if target.files)
        if not left:
            return DownloadResult(plan=Plan(), seconds=0.0)
        return download(left, options, self.place.registry, self.settings, self.observer, ready=ready)


def _add(uploader: Uploader, planned: Planned, present: Present) -> None:
    uploader.add(planned, present.blob, present.size, present.digests)


def _copied(uploader: Uploader, objects: Mapping[ModelUri, Planned], fetch: Fetch) -> ModelUri | None:
    """Return the URI of what was copied; what cannot be copied is downloaded, and its error comes up there."""
    file = fetch.file
    if file.size is None or not file.digests:
        return None
    try:
        done = uploader.copy(objects[fetch.identity], file.size, file.digests)
    except SourceError:
        return None
    return fetch.identity if done else None


def _untouched(planned: Planned, there: Mapping[str, StoredObject]) -> ObjectResult:
    return ObjectResult(
        key=planned.key,
        path=planned.path,
        uri=planned.uri.display,
        size=there[planned.key].size,
        state="present",
    )
