"""The part of a download that talks to sources: listings, what the cache has, plan, engine, cache."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from importlib.metadata import version
from pathlib import Path

from attrs import evolve

from nim_core.cache.index import ReceiptIndex
from nim_core.cache.layout import Layout
from nim_core.cache.lease import Holder, Lease, lease
from nim_core.cache.pruning import prune
from nim_core.cache.receipts import ReceiptFile
from nim_core.cache.space import Incoming, check_space, probe
from nim_core.cache.store import Store
from nim_core.download import DownloadOptions, Fetched, Missing, Observer, Run
from nim_core.errors import NimError
from nim_core.forecast import Forecast
from nim_core.override import Override, read_overrides
from nim_core.plan import Fetch, Plan, Present, Wanted
from nim_core.redirecting import Redirecting, redirected_schemes
from nim_core.registry import Registry
from nim_core.resolve import Resolver
from nim_core.settings import Settings
from nim_core.transfer.control import control_client
from nim_core.transfer.engine import Engine
from nim_core.transfer.exchange import Timeouts
from nim_core.transfer.jobs import SMALL_BYTES, Job, Verified
from nim_core.transfer.network import NetworkConfig, Origin, network_config
from nim_core.transfer.options import EngineOptions
from nim_core.transfer.retry import retry_policy
from nim_core.transfer.streams import digest_file
from nim_core.transfer.workers import map_threads
from nim_core.types import Digest, ModelUri, TransferEvent, UriStyle

__all__ = ["fetch_missing", "named_endpoints"]


def fetch_missing(missing: Missing, known: Mapping[ModelUri, Present], run: Run, until_receipts: ExitStack) -> Fetched:
    """
    Fetch what is missing.

    Args:
        missing: Files, and model URIs to list.
        known: Files that are known to be right without asking.
        run: What the download works with.
        until_receipts: Keeps the lease of the targets until their receipts are written.

    Raises:
        NimError: As :func:`nim_core.download.download`.
    """
    overrides = read_overrides(run.settings.repository_overrides)
    schemes = redirected_schemes(run.registry, run.settings) if overrides else frozenset()
    network = network_config(run.settings, _endpoints(missing, overrides, run))
    asked: dict[Origin, None] = {}
    with (
        control_client(network, retry_policy(run.settings), asking=asked.setdefault) as http,
        closing(Redirecting(Resolver(run.registry, http), run.registry, overrides, schemes)) as resolver,
    ):
        run.observer.phase("listing")
        expanded = {uri: run.options.patterns.chosen(resolver.expand(uri)) for uri in missing.unlisted}
        found = {uri: resolver.listing(uri) for uri in missing.unlisted}
        listings = {uri: listing for uri, listing in found.items() if listing is not None}
        wanted = [*missing.wanted, *(item for items in expanded.values() for item in items)]
        fetches = resolver.fetches(wanted, verify=run.options.verify)
        run.observer.phase("verifying")
        here = _already_here(fetches, wanted, resolver, run)
        held = None
        if len(here) < len(fetches) and not run.options.plan_only:
            held = until_receipts.enter_context(lease(run.layout, missing.ids, partial(_tell_waiting, run.observer)))
            if held.waited and not run.options.force:
                here |= _brought(fetches, [item for item in wanted if item.uri not in here], resolver, run)
        plan = Plan(
            fetches=tuple(fetch for identity, fetch in fetches.items() if identity not in here),
            present=(*known.values(), *here.values()),
        )
        run.observer.planned(plan)
        if run.options.plan_only:
            forecast = Forecast(run.layout, run.registry, resolver, network, asked)
            return Fetched(expanded=expanded, plan=plan, outlook=forecast.outlook(_by_id(plan.fetches), wanted))
        for present in here.values():
            run.ready(present)
        run.observer.phase("fetching")
        carrier = _Carrier(run, resolver, network, held)
        try:
            new = carrier.carry(plan.fetches) if plan.fetches else {}
        finally:
            run.registry.finish_telling()
    prune(run.layout.partials, map(_file_id, fetches.values()))
    return Fetched(
        expanded=expanded,
        present={**here, **new},
        new=frozenset(new),
        plan=plan,
        bytes_fetched=carrier.bytes_received,
        listings=listings,
    )


def _tell_waiting(observer: Observer, holder: Holder | None) -> None:
    observer.phase(f"waiting for {holder or 'another process'}")


def _brought(
    fetches: Mapping[ModelUri, Fetch], wanted: Sequence[Wanted], resolver: Redirecting, run: Run
) -> dict[ModelUri, Present]:
    """Return what the process that was waited for has brought, by its receipt, or by reading what has none."""
    run = evolve(run, index=ReceiptIndex(run.layout))
    vouched = {item.uri: run.index.trusted(item) for item in wanted}
    brought = {uri: present for uri, present in vouched.items() if present is not None and _is(fetches[uri], present)}
    rest = [item for item in wanted if item.uri not in brought]
    return brought | _already_here({item.uri: fetches[item.uri] for item in rest}, rest, resolver, run)


def _is(fetch: Fetch, present: Present) -> bool:
    """Whether a receipt tells of the content that is listed now, and not of an earlier one of the same name."""
    listed = fetch.file.digests
    seen = not listed or not set(listed).isdisjoint(present.digests)
    return seen and fetch.file.size in {None, present.size} and _holds(listed, present.digests)


def named_endpoints(registry: Registry, settings: Settings) -> Iterable[str]:
    """Yield the URLs in variables that plugins declare as such: what the user named may be anywhere."""
    variables = settings.read(registry.declared_variables)
    for variable in variables.declared:
        if variable.kind == "url" and variables.is_set(variable.name):
            yield variables.text(variable.name) or ""


def _endpoints(missing: Missing, overrides: Iterable[Override], run: Run) -> Iterable[str]:
    """
    Yield what the user named as endpoints; no manifest does.

    That is variables of that kind, URIs that are URLs, and targets of the override that begin with a host: web servers,
    and whatever stands in for a repository.
    """
    yield from named_endpoints(run.registry, run.settings)
    for uri in missing.named:
        if uri.style is UriStyle.OBJECT and uri.scheme in {"http", "https"}:
            yield str(uri)
    for override in overrides:
        if override.scheme in {"http", "https"}:
            yield f"{override.scheme}://{override.location}"
        elif run.registry.styles.get(override.scheme) is UriStyle.REPOSITORY:
            yield f"https://{override.location}"


# ------------------------------------------------------------------------------------------------ what is here already
def _already_here(
    fetches: Mapping[ModelUri, Fetch], wanted: Sequence[Wanted], resolver: Redirecting, run: Run
) -> dict[ModelUri, Present]:
    local = resolver.local_paths(fetches)
    checks: list[Callable[[], Present | None]] = [
        partial(_outside, fetches[identity], path, run.options) for identity, path in local.items()
    ]
    if not run.options.force:
        rest = {item.uri: item for item in wanted if item.uri not in local}
        store = Store(run.layout)
        checks += [check for identity, item in rest.items() for check in _checks(fetches[identity], item, run, store)]
    found = map_threads("nim-verify", lambda check: check(), checks, os.cpu_count() or 1)
    return {present.identity: present for present in found if present is not None}


def _outside(fetch: Fetch, path: Path, options: DownloadOptions) -> Present | None:
    """Return a file that is used from where it is; None leaves it, and the error about it, to the engine."""
    found = _read(path, None, fetch.file.digests, options)
    if found is None:
        return None
    info, digests = found
    return Present(
        identity=fetch.identity, blob=path, link=None, size=info.st_size, mtime_ns=info.st_mtime_ns, digests=digests
    )


def _checks(fetch: Fetch, wanted: Wanted, run: Run, store: Store) -> Iterable[Callable[[], Present | None]]:
    """Yield what looks whether a file is in the cache; nothing where no blob could be it, as for most new files."""
    known = run.index.find(wanted)
    blobs = _candidates(fetch, known, run.layout) if _expected(fetch, known) else ()
    if blobs:
        yield partial(_inside, fetch, known, blobs, run, store)


def _inside(fetch: Fetch, known: ReceiptFile | None, blobs: Iterable[Path], run: Run, store: Store) -> Present | None:
    """Return a file of the cache; None when none of ``blobs`` is what is expected."""
    expected = _expected(fetch, known)
    for blob in blobs:
        found = _read(blob, fetch.file.size, expected, run.options)
        if found is None:
            continue
        info, digests = found
        if not digests and known is not None and known.mtime_ns == info.st_mtime_ns:
            digests = known.digests
        return Present(
            identity=fetch.identity,
            blob=blob,
            link=(store.place if run.options.plan_only else store.link)(fetch, blob),
            size=info.st_size,
            mtime_ns=info.st_mtime_ns,
            digests=digests,
            host=known.host if known is not None else None,
        )
    return None


def _candidates(fetch: Fetch, known: ReceiptFile | None, layout: Layout) -> Collection[Path]:
    """
    Return blobs that may be the file: the snapshot's, those named by an expected digest, a receipt's.

    A link that leads out of the cache is none of them: what it leads to is not the cache's to keep.
    """
    names = [fetch.file.blob_name, *(digest.value for digest in fetch.file.digests)]
    paths = [layout.link(fetch.key, fetch.file.path), *(layout.blob(fetch.key, name) for name in names if name)]
    if known is not None:
        paths.append(layout.path / known.blob)
    there = (path for path in paths if os.path.lexists(path))
    named = ((path, layout.unresolved(Path(os.path.realpath(path)), fetch.key)) for path in there)
    return dict.fromkeys(real for path, real in named if real == path or layout.has(real, fetch.key))


def _expected(fetch: Fetch, known: ReceiptFile | None) -> tuple[Digest, ...]:
    """
    Return what a cached file has to be checked against.

    What source and manifest promise; where they promise nothing and the name never gets another content, what the file
    was seen to have when it was fetched.
    """
    if fetch.file.digests or not fetch.pinned or known is None:
        return fetch.file.digests
    return known.digests


def _read(
    path: Path, size: int | None, expected: tuple[Digest, ...], options: DownloadOptions
) -> tuple[os.stat_result, tuple[Digest, ...]] | None:
    """Return what a file is like, read where digests count; None when it cannot be read or is something else."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or size not in {None, info.st_size}:
            return None
        digests = digest_file(path, expected, _never)[1] if expected and options.verify else ()
    except OSError:
        return None
    return (info, digests) if _holds(expected, digests) else None


def _holds(expected: Iterable[Digest], found: Iterable[Digest]) -> bool:
    computed = {digest.algorithm: digest for digest in found}
    return all(computed.get(digest.algorithm, digest) == digest for digest in expected)


def _never() -> bool:
    return False


# ------------------------------------------------------------------------------------------------------- fetching them
def _file_id(fetch: Fetch) -> str:
    """Return what names the partials of a file: its identity and its content, not the place it comes from."""
    text = "\n".join([fetch.identity.identity, *sorted(str(digest) for digest in fetch.file.digests)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _by_id(fetches: Iterable[Fetch]) -> dict[str, list[Fetch]]:
    found: dict[str, list[Fetch]] = {}
    for fetch in fetches:
        found.setdefault(_file_id(fetch), []).append(fetch)
    return found


class _Carrier:
    """Has the engine fetch files and puts them into the cache."""

    def __init__(self, run: Run, resolver: Redirecting, network: NetworkConfig, held: Lease | None) -> None:
        self._held = held
        self._done = self._total = 0
        self._run = run
        self._resolver = resolver
        self._network = network
        self._store = Store(run.layout)
        self._present: dict[ModelUri, Present] = {}
        self._fetches: dict[str, dict[ModelUri, Fetch]] = {}
        self._under_way: dict[str, TransferEvent] = {}
        self.bytes_received = 0

    def carry(self, fetches: Sequence[Fetch]) -> dict[ModelUri, Present]:
        """Fetch, verify and publish ``fetches``, elsewhere where one cannot be had; return where they are."""
        jobs = self._jobs(fetches)
        self._total = sum(job.file.size or 0 for job in jobs)
        self._preflight(jobs)
        while jobs:
            engine = self._engine(jobs)
            try:
                engine.run(jobs)
                break
            except NimError as exc:
                if engine.failed is None:
                    raise
                missing = [fetch for fetch in fetches if fetch.identity not in self._present]
                fetches = self._resolver.elsewhere(missing, engine.failed.identity, exc)
                self._start_again(exc)
            finally:
                self.bytes_received += engine.bytes_received
            jobs = self._jobs(fetches)
        return self._present

    def _engine(self, jobs: Sequence[Job]) -> Engine:
        return Engine(
            options=self._engine_options(jobs),
            network=self._network,
            folder=self._run.layout.partials,
            publish=self._publish,
            emit=self._emit,
        )

    def _jobs(self, fetches: Iterable[Fetch]) -> list[Job]:
        """Return what fetches the files; URIs that differ in userinfo alone have one job in common."""
        jobs: dict[str, Job] = {}
        for fetch in fetches:
            job = self._job(fetch)
            self._fetches.setdefault(job.id, {})[fetch.identity] = fetch
            jobs.setdefault(job.id, job)
        return list(jobs.values())

    def _job(self, fetch: Fetch) -> Job:
        locate = partial(self._resolver.locate, fetch)
        return Job(id=_file_id(fetch), identity=fetch.identity, file=fetch.file, locate=locate)

    def _start_again(self, reason: NimError) -> None:
        """Tell that files that are not complete begin again; what is right of their bytes is counted anew."""
        for event in tuple(self._under_way.values()):
            self._emit(evolve(event, kind="restart", bytes=-(event.bytes or 0), reason=reason.message))
        self._under_way.clear()

    def _preflight(self, jobs: Sequence[Job]) -> None:
        probe(self._run.layout, self._run.settings.cache_probe_seconds)
        layout = self._run.layout
        roots = {job.id: layout.root(self._first(job).key) for job in jobs}
        check_space(layout, [Incoming(id=job.id, size=job.file.size, root=roots[job.id]) for job in jobs])

    def _engine_options(self, jobs: Sequence[Job]) -> EngineOptions:
        """Return the limits; requests for small files wait for the server, not for bytes: all may begin at once."""
        usual, most = EngineOptions().connections, self._run.options.max_connections
        small = all((job.file.size or 0) <= SMALL_BYTES for job in jobs)
        variables = self._run.settings.variables
        retries = variables.number("NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT")
        patience = self._run.options.patience
        return EngineOptions(
            connections=most if small else usual,
            max_connections=most,
            rate=self._run.options.limit_rate,
            retries=int(retries or 0),
            backoff=(variables.number("NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS") or 0.0) / 1000,
            verify=self._run.options.verify,
            timeouts=Timeouts() if patience is None else Timeouts.of(patience),
            user_agent=f"nim-core/{version('nim-core')}",
        )

    def _emit(self, event: TransferEvent) -> None:
        if event.kind in {"started", "progress", "restart"}:
            self._done += event.bytes or 0
            before = self._under_way.get(event.uri)
            counted = (event.bytes or 0) + (0 if before is None else before.bytes or 0)
            self._under_way[event.uri] = evolve(event, bytes=counted)
            if self._held is not None:
                self._held.report(self._done, self._total)
        elif event.kind == "published":
            self._under_way.pop(event.uri, None)
        self._run.observer.event(event)
        self._run.registry.notify(event)

    def _publish(self, batch: Sequence[Verified]) -> None:
        for stored in self._store.publish((self._first(item.job), item) for item in batch):
            verified = stored.verified
            for fetch in self._fetches[verified.job.id].values():
                present = self._present[fetch.identity] = Present(
                    identity=fetch.identity,
                    blob=stored.blob,
                    link=stored.link,
                    size=verified.size,
                    mtime_ns=stored.blob.stat().st_mtime_ns,
                    digests=verified.digests,
                    host=verified.host,
                )
                self._run.ready(present)

    def _first(self, job: Job) -> Fetch:
        return next(iter(self._fetches[job.id].values()))
