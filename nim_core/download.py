"""
The one function behind ``download-to-cache``: targets, listings, plan, engine, cache, receipts.

A run that receipts satisfy imports neither httpx nor libcurl and opens no socket: what talks to a network is imported
where the first file turns out to be missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from attrs import evolve, field, frozen

from nim_core.cache.index import ReceiptIndex
from nim_core.cache.layout import Layout
from nim_core.cache.receipts import Receipt, ReceiptFile, read_receipt, receipt_path, write_receipt
from nim_core.cache.space import check_answers
from nim_core.errors import CacheError, CacheIncompleteError, ConfigError, NimError
from nim_core.plan import EVERY_FILE, Patterns, Plan, Present, Target, Wanted
from nim_core.planning import DownloadPlan, Outlook, as_planned
from nim_core.registry import Registry
from nim_core.settings import Settings
from nim_core.types import Listing, ModelUri, TransferEvent, UriStyle

__all__ = ["DownloadOptions", "DownloadResult", "Observer", "TargetResult", "download", "plan_download"]

_DISABLED: Final = "NIM_DISABLE_MODEL_DOWNLOAD"
_LISTED: Final = 100


@frozen(kw_only=True)
class DownloadOptions:
    """
    How to download.

    Attributes:
        cache_path: Folder of the model cache.
        use_cache: A complete receipt is enough; the source is not asked and nothing is hashed.
        verify: Check digests of what is fetched and of what is cached.
        force: Fetch everything again.
        recheck: As ``use_cache``, but read every cached file, and fetch those again that are damaged.
        max_connections: Connections at once, at most.
        limit_rate: Bytes per second, at most. None: no limit.
        patience: Seconds that a request for data may go without a connection, an answer or a byte before it is tried
            again. None: 15 s for a connection, 30 s for all else.
        patterns: Which files of a model URI are wanted; the target's id has to tell one choice from another.
        record: Write receipts, which say that a target is complete.
        plan_only: Find out what would be done, and do nothing.
    """

    cache_path: Path
    use_cache: bool = False
    verify: bool = True
    force: bool = False
    recheck: bool = False
    max_connections: int = 32
    limit_rate: float | None = None
    patience: float | None = None
    patterns: Patterns = EVERY_FILE
    record: bool = True
    plan_only: bool = False


@frozen(kw_only=True)
class TargetResult:
    """
    What became of one target.

    Attributes:
        target: The target, its files filled in where a model URI was listed.
        receipt: Its receipt. None when the cache cannot be written and already had all files.
        files: How many files it has.
        fetched: How many of them were fetched now.
        present: Where each file is, by path inside the workspace.
    """

    target: Target
    receipt: Path | None
    files: int
    fetched: int
    present: Mapping[str, Present]


@frozen(kw_only=True)
class DownloadResult:
    """
    What was done: per target, and in all ``bytes_fetched`` bytes over the network in ``seconds``.

    ``damaged`` are the paths of cached files that were found damaged, and have been fetched again. Where nothing was to
    be done, ``planned`` is what would have been, and the rest is empty. ``listings`` are those of model URIs, but for
    those that are looked for elsewhere.
    """

    plan: Plan
    targets: tuple[TargetResult, ...] = ()
    bytes_fetched: int = 0
    seconds: float
    damaged: tuple[str, ...] = ()
    planned: DownloadPlan = field(factory=DownloadPlan)
    listings: Mapping[ModelUri, Listing] = field(factory=dict)


class Observer(Protocol):
    """Hears how a download goes on, from any thread; must return at once."""

    def phase(self, name: str) -> None:
        """Hear that a phase begins: ``listing``, ``verifying``, ``fetching``, ``finishing``."""

    def planned(self, plan: Plan) -> None:
        """Hear what will be done, once, before the first byte."""

    def event(self, event: TransferEvent) -> None:
        """Hear a fact about a file."""

    def damaged(self, path: str, reason: str) -> None:
        """Hear of a cached file that is damaged."""


@frozen(kw_only=True)
class Run:
    """What a download works with from beginning to end."""

    options: DownloadOptions
    layout: Layout
    index: ReceiptIndex
    registry: Registry
    settings: Settings
    observer: Observer
    ready: Callable[[Present], None]


@frozen(kw_only=True)
class Missing:
    """
    What receipts do not answer for.

    Attributes:
        wanted: Files.
        unlisted: Model URIs whose files are not known.
        named: Every model URI that the user named.
        ids: Ids of all targets.
    """

    wanted: tuple[Wanted, ...]
    unlisted: tuple[ModelUri, ...]
    named: tuple[ModelUri, ...] = ()
    ids: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.wanted or self.unlisted)


@frozen(kw_only=True)
class Fetched:
    """What asking the sources led to: files of model URIs, where every file is, what was done, or would be."""

    expanded: Mapping[ModelUri, tuple[Wanted, ...]]
    plan: Plan
    present: Mapping[ModelUri, Present] = field(factory=dict)
    new: frozenset[ModelUri] = frozenset()
    bytes_fetched: int = 0
    outlook: Outlook = field(factory=Outlook)
    listings: Mapping[ModelUri, Listing] = field(factory=dict)


def _nobody(_present: Present) -> None:
    pass


def download(
    targets: tuple[Target, ...],
    options: DownloadOptions,
    registry: Registry,
    settings: Settings,
    observer: Observer,
    *,
    ready: Callable[[Present], None] = _nobody,
) -> DownloadResult:
    """
    Bring every file of ``targets`` into the cache.

    Args:
        targets: What is wanted.
        options: How.
        registry: The plugins.
        settings: The environment.
        observer: Hears how it goes on.
        ready: Gets every file as soon as it is here and right, on any thread; what it raises ends the download.

    Raises:
        NimError: In its most fitting subclass; what was verified until then stays, nothing else is visible.
        KeyboardInterrupt: Within a second of the user's wish; partials are kept.
    """
    started = time.monotonic()
    layout = Layout(options.cache_path.absolute())
    run = Run(
        options=options,
        layout=layout,
        index=ReceiptIndex(layout),
        registry=registry,
        settings=settings,
        observer=observer,
        ready=ready,
    )
    check_answers(layout, settings.cache_probe_seconds)
    if options.force and settings.downloads_disabled:
        raise ConfigError(
            f"downloading again is asked for, and {_DISABLED} is set", hint=f"leave out --force, or unset {_DISABLED}"
        )
    if options.recheck:
        return _rechecked(targets, run, started)
    known: Mapping[ModelUri, Present] = {}
    if (options.use_cache or settings.downloads_disabled) and not options.force:
        targets, known = _from_cache(targets, run)
    return _completed(targets, known, run, started)


def plan_download(
    targets: tuple[Target, ...], options: DownloadOptions, registry: Registry, settings: Settings, observer: Observer
) -> DownloadPlan:
    """
    Return what :func:`download` would do with the same arguments now, and write nothing.

    Sources are asked for listings, and for where a file of each place is; cached files are read where a download would.

    Raises:
        NimError: What a download would raise at that point. That it would run out of space, or may not write, is told
            in the plan instead.
    """
    return download(targets, evolve(options, plan_only=True), registry, settings, observer).planned


def _completed(
    targets: tuple[Target, ...], known: Mapping[ModelUri, Present], run: Run, started: float
) -> DownloadResult:
    for present in known.values():
        run.ready(present)
    with ExitStack() as until_receipts:
        fetched = _fetch(_missing(targets, known), known, run, until_receipts)
        return _result(targets, known, fetched, run, started)


def _rechecked(targets: tuple[Target, ...], run: Run, started: float) -> DownloadResult:
    """Read what is cached; what is damaged is removed, and fetched again with what is missing."""
    from nim_core.rechecking import damage_error, recheck, remove_from_view

    run.observer.phase("verifying")
    targets = tuple(_from_receipt(target, run) for target in targets)
    found = recheck(targets, run.index, run.layout)
    for damage in found.damaged:
        run.observer.damaged(damage.path, damage.reason)
    if found.damaged and run.settings.downloads_disabled:
        raise damage_error(found.damaged, f"and {_DISABLED} is set", f"unset {_DISABLED} to have them fetched again")
    if not run.options.plan_only:
        remove_from_view(found.damaged)
    try:
        result = _completed(targets, found.right, run, started)
    except NimError as exc:
        if not found.damaged:
            raise
        raise damage_error(found.damaged, f"not fetched again: {exc.message.splitlines()[0]}", exc.hint) from exc
    paths = tuple(damage.path for damage in found.damaged)
    planned = evolve(result.planned, damaged=paths)
    if found.damaged and planned.error is not None:
        error = damage_error(found.damaged, f"not fetched again: {planned.error.message}", planned.error.hint)
        planned = evolve(planned, outlook=evolve(planned.outlook, error=error))
    return evolve(result, damaged=paths, planned=planned)


def _from_cache(targets: tuple[Target, ...], run: Run) -> tuple[tuple[Target, ...], Mapping[ModelUri, Present]]:
    """Return the targets with the files of model URIs filled in, and what receipts vouch for."""
    known = tuple(_from_receipt(target, run) for target in targets)
    return known, _trusted(known, run)


def _result(
    targets: tuple[Target, ...], known: Mapping[ModelUri, Present], fetched: Fetched, run: Run, started: float
) -> DownloadResult:
    run.observer.phase("finishing")
    present = {**known, **fetched.present}
    expanded = tuple(_expanded(target, fetched) for target in targets)
    if run.options.plan_only:
        planned = as_planned(expanded, fetched.plan, fetched.outlook)
        return DownloadResult(plan=fetched.plan, planned=planned, seconds=time.monotonic() - started)
    return DownloadResult(
        targets=tuple(_finish(target, present, fetched, run) for target in expanded),
        plan=fetched.plan,
        bytes_fetched=fetched.bytes_fetched,
        seconds=time.monotonic() - started,
        listings=fetched.listings,
    )


def _fetch(missing: Missing, known: Mapping[ModelUri, Present], run: Run, until_receipts: ExitStack) -> Fetched:
    if not missing:
        return _nothing(known, run)
    if run.settings.downloads_disabled:
        _refuse_to_download(missing, run)
    from nim_core.fetching import fetch_missing

    return fetch_missing(missing, known, run, until_receipts)


def _refuse_to_download(missing: Missing, run: Run) -> None:
    """Raise CacheIncompleteError, unless all that is missing is a file of this machine, which nothing has to bring."""
    absent = [item.uri for item in missing.wanted if item.uri.style is not UriStyle.PATH]
    unlisted = [uri for uri in missing.unlisted if uri.style is not UriStyle.PATH]
    if not absent and not unlisted:
        return
    names = [f"{uri.display}: not downloaded to this cache yet" for uri in unlisted] + [uri.display for uri in absent]
    lines = [*names[:_LISTED], *([f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else [])]
    what = f"{len(absent)} file{'' if len(absent) == 1 else 's'}" if absent else "the model"
    raise CacheIncompleteError(
        "\n  ".join([f"{_DISABLED} is set, and {what} cannot be found in the cache {run.layout.path}", *lines]),
        hint=f"unset {_DISABLED}, or let one process that has it unset fill this cache first",
    )


def _nothing(known: Mapping[ModelUri, Present], run: Run) -> Fetched:
    plan = Plan(present=tuple(known.values()))
    run.observer.planned(plan)
    return Fetched(expanded={}, plan=plan)


def _from_receipt(target: Target, run: Run) -> Target:
    """Fill in the files of a model URI from its receipt, where there is one."""
    if target.uri is None:
        return target
    files = run.index.files_of(target.id).values()
    try:
        wanted = tuple(Wanted(path=file.path, uri=_named_by(target.uri, file.uri, run.registry)) for file in files)
    except ConfigError:  # not a receipt of this version's
        return target
    return evolve(target, files=wanted)


def _named_by(uri: ModelUri, identity: str, registry: Registry) -> ModelUri:
    """Return the URI of a file that ``uri`` names, with what its identity leaves out: userinfo, or a signed query."""
    if identity == uri.identity:
        return uri
    userinfo, at, _ = uri.location.partition("/")[0].rpartition("@")
    file = registry.parse_uri(identity)
    return evolve(file, location=userinfo + at + file.location)


def _trusted(targets: tuple[Target, ...], run: Run) -> dict[ModelUri, Present]:
    """Return the files that are what every target that wants them expects."""
    found: dict[ModelUri, Present] = {}
    doubtful: set[ModelUri] = set()
    for target, wanted in _each(targets):
        expected = wanted if run.options.verify else evolve(wanted, digest=None)
        present = run.index.trusted(expected, target.id)
        if present is None:
            doubtful.add(wanted.uri)
        else:
            found[wanted.uri] = present
    return {uri: present for uri, present in found.items() if uri not in doubtful}


def _missing(targets: tuple[Target, ...], known: Mapping[ModelUri, Present]) -> Missing:
    named = tuple(target.uri for target in targets if target.uri is not None)
    return Missing(
        wanted=tuple(dict.fromkeys(item for _, item in _each(targets) if item.uri not in known)),
        unlisted=tuple(target.uri for target in targets if target.uri is not None and not target.files),
        named=named,
        ids=tuple(target.id for target in targets),
    )


def _each(targets: tuple[Target, ...]) -> Iterator[tuple[Target, Wanted]]:
    for target in targets:
        for wanted in target.files:
            yield target, wanted


def _expanded(target: Target, fetched: Fetched) -> Target:
    if target.uri is None or target.files:
        return target
    return evolve(target, files=fetched.expanded[target.uri])


def _finish(target: Target, present: Mapping[ModelUri, Present], fetched: Fetched, run: Run) -> TargetResult:
    """Write the receipt of a target; where only that is not possible, the target is complete all the same."""
    new = sum(wanted.uri in fetched.new for wanted in target.files)
    receipt: Path | None = None
    try:
        receipt = _write_receipt(target, present, run)
    except CacheError:
        if new:
            raise
    return TargetResult(
        target=target,
        receipt=receipt,
        files=len(target.files),
        fetched=new,
        present={wanted.path: present[wanted.uri] for wanted in target.files},
    )


def _write_receipt(target: Target, present: Mapping[ModelUri, Present], run: Run) -> Path | None:
    if not run.options.record:
        return None
    files = tuple(_receipt_file(wanted, present[wanted.uri], run.layout) for wanted in target.files)
    path = receipt_path(run.layout, target.id)
    earlier = read_receipt(path)
    if earlier is not None and earlier.files == files:
        return path
    owners = [run.registry.owner(scheme) for scheme in sorted({wanted.uri.scheme for wanted in target.files})]
    receipt = Receipt(
        id=target.id,
        label=target.label,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        plugins={owner.distribution: owner.version for owner in owners},
        files=files,
    )
    return write_receipt(run.layout, receipt)


def _receipt_file(wanted: Wanted, present: Present, layout: Layout) -> ReceiptFile:
    return ReceiptFile(
        path=wanted.path,
        uri=wanted.uri.identity,
        blob=layout.relative(present.blob),
        link=None if present.link is None else layout.relative(present.link),
        size=present.size,
        mtime_ns=present.mtime_ns,
        digests=present.digests,
        host=present.host,
    )
