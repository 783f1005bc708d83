"""``mirror`` and ``mirror verify`` from the request to what is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from nim_core.cli.fetch import chosen_profiles, profile_target
from nim_core.cli.logging import HUMAN, printable
from nim_core.cli.offers import find_offer
from nim_core.cli.planned import plan_as_json
from nim_core.cli.render import watch
from nim_core.cli.selection import Choice
from nim_core.cli.session import Session
from nim_core.cli.units import duration, rate, size
from nim_core.download import DownloadOptions
from nim_core.errors import DigestMismatchError, NimError, NotFoundError
from nim_core.mirror.place import Destination, check_sink, destination_url
from nim_core.mirror.run import MirrorOptions, MirrorResult, mirror
from nim_core.mirror.verify import Verification, verify
from nim_core.plan import Target
from nim_core.registry import Registry
from nim_core.settings import Settings

__all__ = ["Answer", "Request", "mirror_profiles", "verify_mirror"]


@frozen(kw_only=True)
class Request:
    """
    What the user asked ``mirror`` for.

    Attributes:
        destination: The bucket.
        choice: Profiles of the manifest.
        manifest_file: Manifest to read. None for what the environment says, as for the next.
        cache_path: Folder of the model cache.
        max_connections: As in :class:`~nim_core.mirror.run.MirrorOptions`, like the next two.
        with_manifest: Whether the manifest is uploaded as well.
        dry_run: Whether nothing is done.
        deep: Whether ``verify`` reads every object.
    """

    destination: Destination
    choice: Choice
    manifest_file: Path | None = None
    cache_path: Path | None = None
    max_connections: int = 32
    with_manifest: bool = False
    dry_run: bool = False
    deep: bool = False


@frozen(kw_only=True)
class Answer:
    """What is printed, as text or as a record, and the error that decides about the exit code. None: 0."""

    text: str
    record: Mapping[str, Any]
    error: NimError | None = None


@frozen(kw_only=True)
class _Manifest:
    """Where a manifest is, the profiles that are meant, all it has, and the environment for what follows."""

    path: Path
    targets: tuple[Target, ...]
    every: tuple[Target, ...]
    settings: Settings


def mirror_profiles(request: Request, session: Session) -> Answer:
    """Mirror what ``request`` names, showing how it goes on. Raises NimError as :func:`~nim_core.mirror.run.mirror`."""
    import structlog

    style = session.start_logging()
    registry = session.load_registry()
    cache_path = (request.cache_path or session.settings.cache_path).absolute()
    manifest = _read(request, cache_path, session, registry)
    options = MirrorOptions(
        cache_path=cache_path,
        max_connections=request.max_connections,
        manifest=manifest.path if request.with_manifest else None,
        dry_run=request.dry_run,
    )
    log = structlog.get_logger()
    url = destination_url(request.destination, registry)
    for target in manifest.targets:
        text = f"Mirroring manifest profile: {target.id} ({target.label}) to {url}"
        log.info("mirroring", id=target.id, label=target.label, url=url, **{HUMAN: text})
    with watch(session, style) as observer:
        result = mirror(manifest.targets, request.destination, options, registry, manifest.settings, observer=observer)
    record = _record(result, manifest.targets)
    if request.dry_run:
        record["download"] = plan_as_json(result.download)
        return Answer(text=_dry_text(result), record=record, error=result.download.error)
    log.info("mirrored", url=result.url, **record["counts"], **{HUMAN: _summary(result)})
    return Answer(text="\n".join(f"{target.id}\t{result.url}" for target in manifest.targets), record=record)


def verify_mirror(request: Request, session: Session) -> Answer:
    """Compare a bucket with a manifest. Raises NimError as :func:`~nim_core.mirror.verify.verify`."""
    style = session.start_logging()
    registry = session.load_registry()
    manifest = _read(request, (request.cache_path or session.settings.cache_path).absolute(), session, registry)
    with watch(session, style) as observer:
        observer.phase("verifying")
        found = verify(
            manifest.targets,
            manifest.every,
            request.destination,
            registry,
            manifest.settings,
            deep=request.deep,
            manifest_name=manifest.path.name,
            count=observer.sent,
        )
    return Answer(text=_table(found, deep=request.deep), record=_verified_record(found), error=_verdict(found))


def _read(request: Request, cache_path: Path, session: Session, registry: Registry) -> _Manifest:
    check_sink(request.destination, registry)
    options = DownloadOptions(cache_path=cache_path, plan_only=request.dry_run)
    offer = find_offer(request.manifest_file, options, session, registry)
    chosen = chosen_profiles(request.choice, offer.manifest, cache_path, session)
    return _Manifest(
        path=offer.path,
        targets=tuple(profile_target(profile, registry) for profile in chosen),
        every=tuple(profile_target(profile, registry) for profile in offer.manifest.profiles),
        settings=offer.settings,
    )


def _summary(result: MirrorResult) -> str:
    states = [item.state for item in result.objects]
    parts = [f"{states.count('uploaded')} uploaded"]
    parts += [f"{count} {word}" for word in ("copied", "present") if (count := states.count(word))]
    text = f"complete: {result.url}: {_objects(len(states))}, {', '.join(parts)}"
    if result.bytes_sent:
        speed = rate(result.bytes_sent / max(result.seconds, 0.001))
        text += f", {size(result.bytes_sent)} in {duration(result.seconds)} ({speed})"
    return text


def _record(result: MirrorResult, targets: Sequence[Target]) -> dict[str, Any]:
    states: list[str] = [item.state for item in result.objects]
    states = states or [item.action for item in result.planned]
    objects: list[dict[str, Any]] = [
        {"key": item.key, "path": item.path, "uri": item.uri, "size": item.size, "state": item.state}
        for item in result.objects
    ] or [
        {"key": item.planned.key, "path": item.planned.path, "uri": item.planned.uri.display, "state": item.action}
        for item in result.planned
    ]
    return {
        "url": result.url,
        "profiles": [{"id": target.id, "label": target.label} for target in targets],
        "counts": {state: states.count(state) for state in sorted(set(states))},
        "objects": objects,
        "bytes_to_fetch": result.plan.bytes_to_fetch,
        "bytes_fetched": result.bytes_fetched,
        "bytes_sent": result.bytes_sent,
        "seconds": round(result.seconds, 3),
    }


def _dry_text(result: MirrorResult) -> str:
    lines = [f"{item.action:8}  {printable(item.planned.key)}" for item in result.planned]
    actions = [item.action for item in result.planned]
    counts = ", ".join(f"{actions.count(name)} to {name}" for name in ("upload", "replace") if name in actions)
    fetch = f"; to download first: {size(result.plan.bytes_to_fetch)}" if result.plan.fetches else ""
    present = actions.count("present")
    return "\n".join([*lines, f"{result.url}: {counts or 'nothing to do'}, {present} present{fetch}"])


def _table(found: Verification, *, deep: bool) -> str:
    odd = [item for item in found.objects if item.state != "right"]
    lines = [_line(item.state, item.size, item.planned.path, item.reason) for item in odd]
    lines += [_line("foreign", item.size, item.key, "") for item in found.foreign or ()]
    how = "read and hashed" if deep else "by stored digests"
    counts = [f"{count} {name}" for name in ("missing", "wrong", "unproved") if (count := found.count(name))]
    counts += [f"{len(found.foreign)} foreign"] if found.foreign else []
    total = f"{found.url}: {found.count('right')} of {_objects(len(found.objects))} right ({how})"
    return "\n".join([*lines, ", ".join([total, *counts])])


def _line(state: str, count: int | None, name: str, reason: str) -> str:
    shown = "-" if count is None else size(count)
    return f"{state:8}  {shown:>8}  {printable(name)}" + (f"  {printable(reason)}" if reason else "")


def _verified_record(found: Verification) -> dict[str, Any]:
    return {
        "url": found.url,
        "objects": [
            {
                "key": item.planned.key,
                "path": item.planned.path,
                "uri": item.planned.uri.display,
                "state": item.state,
                "reason": item.reason or None,
                "size": item.size,
            }
            for item in found.objects
        ],
        "foreign": None if found.foreign is None else [{"key": it.key, "size": it.size} for it in found.foreign],
    }


def _verdict(found: Verification) -> NimError | None:
    """Return what decides about the exit code: wrong objects before missing ones; foreign ones do not count."""
    wrong, missing = found.count("wrong"), found.count("missing")
    if wrong:
        what = f"{_objects(wrong)} wrong" + (f" and {missing} missing" if missing else "")
        return DigestMismatchError(f"{what} in {found.url}", hint="run mirror again, which replaces wrong objects")
    if missing:
        return NotFoundError(f"{_objects(missing)} missing in {found.url}", hint="run mirror again")
    return None


def _objects(count: int) -> str:
    return f"{count} object{'' if count == 1 else 's'}"
