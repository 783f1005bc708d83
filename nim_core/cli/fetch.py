"""What ``download-to-cache`` does: the user's words to targets, the download, the generated manifest, the result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from nim_core.cli.generated import check_writable, is_there, make_manifest, profile_for
from nim_core.cli.logging import HUMAN
from nim_core.cli.offers import find_offer
from nim_core.cli.render import watch
from nim_core.cli.selection import Choice, choose_profiles
from nim_core.cli.session import Session
from nim_core.cli.units import duration, rate, size
from nim_core.download import DownloadOptions, DownloadResult, TargetResult, download, plan_download
from nim_core.manifest import Manifest, Profile, dump_manifest, load_manifest
from nim_core.plan import EVERY_FILE, Patterns, Target, Wanted, model_id
from nim_core.planning import DownloadPlan
from nim_core.profiles.names import short_name
from nim_core.registry import Registry
from nim_core.settings import Settings

if TYPE_CHECKING:
    from nim_core.profiles.selection import Ranking

__all__ = ["Request", "chosen_profiles", "fetch", "plan", "profile_target", "result_as_json", "result_as_text"]


@frozen(kw_only=True)
class Request:
    """
    What the user asked ``download-to-cache`` for.

    Attributes:
        choice: Profiles of a manifest.
        model_uri: A model, as written. None for profiles.
        patterns: Which files of a model.
        manifest_file: Manifest to read; for a model, to write when it is not there.
        cache_path: Folder of the model cache. None for what the environment says.
        use_cache: As in :class:`~nim_core.download.DownloadOptions`, like the three below.
        verify: Whether digests are checked.
        force: Whether what is cached is fetched again.
        recheck: Whether what is cached is read again.
        max_connections: As in :class:`~nim_core.download.DownloadOptions`, like the next.
        limit_rate: Bytes per second.
        dry_run: Whether nothing is done or written.
    """

    choice: Choice
    model_uri: str | None = None
    patterns: Patterns = EVERY_FILE
    manifest_file: Path | None = None
    cache_path: Path | None = None
    use_cache: bool = False
    verify: bool = True
    force: bool = False
    recheck: bool = False
    max_connections: int = 32
    limit_rate: float | None = None
    dry_run: bool = False


def fetch(request: Request, session: Session) -> DownloadResult:
    """
    Download what ``request`` names, showing how it goes on.

    Raises:
        NimError: In its most fitting subclass.
    """
    style = session.start_logging()
    registry = session.load_registry()
    wish = _wish(request, registry, session)
    targets, options = wish.targets, wish.options
    _log_targets(targets, options)
    with watch(session, style) as observer:
        result = download(targets, options, registry, wish.settings, observer)
    _write_manifest(request, result)
    _log_summary(result)
    _warn_elsewhere(result, options.cache_path)
    return result


def plan(request: Request, session: Session) -> DownloadPlan:
    """
    Find out what :func:`fetch` would do, and do nothing.

    Raises:
        NimError: As :func:`fetch`, but what would end the download before its first byte is told in the plan.
    """
    style = session.start_logging()
    registry = session.load_registry()
    wish = _wish(request, registry, session)
    with watch(session, style) as observer:
        return plan_download(wish.targets, wish.options, registry, wish.settings, observer)


@frozen(kw_only=True)
class _Wish:
    """What to download, how, and in which environment."""

    targets: tuple[Target, ...]
    options: DownloadOptions
    settings: Settings


def _options(request: Request, session: Session) -> DownloadOptions:
    return DownloadOptions(
        cache_path=(request.cache_path or session.settings.cache_path).absolute(),
        use_cache=request.use_cache,
        verify=request.verify,
        force=request.force,
        recheck=request.recheck,
        max_connections=request.max_connections,
        limit_rate=request.limit_rate,
        patterns=request.patterns,
        plan_only=request.dry_run,
    )


def _wish(request: Request, registry: Registry, session: Session) -> _Wish:
    options = _options(request, session)
    if request.model_uri is not None:
        target = _model_target(request.model_uri, request, options.cache_path, registry)
        return _Wish(targets=(target,), options=options, settings=session.settings)
    offer = find_offer(request.manifest_file, options, session, registry)
    profiles = chosen_profiles(request.choice, offer.manifest, options.cache_path, session)
    return _Wish(
        targets=tuple(profile_target(profile, registry) for profile in profiles),
        options=options if offer.reached else evolve(options, use_cache=True),
        settings=offer.settings,
    )


def chosen_profiles(
    choice: Choice,
    manifest: Manifest,
    cache_path: Path,
    session: Session,
    without_gpu: Callable[[Profile], bool] = lambda _profile: False,
) -> tuple[Profile, ...]:
    """
    Return the profiles that are meant; the machine is looked at only where that decides.

    Args:
        choice: What the user said.
        manifest: Where from.
        cache_path: Folder of the model cache.
        session: The run of the command.
        without_gpu: Whether a profile can be served where there is no GPU.

    Raises:
        ProfileError: As :func:`~nim_core.cli.selection.choose_profiles`.
    """

    def ranked() -> Ranking:
        from nim_core.profiles.judging import rank_here  # a profile that is named, or the only one, needs none of it

        return rank_here(manifest, session.settings, cache_path, lora=choice.lora, without_gpu=without_gpu)

    return choose_profiles(choice, manifest, ranked, _log_choice)


def _log_choice(level: str, text: str) -> None:
    import structlog  # only after logging has been set up, see there

    structlog.get_logger().log(logging.getLevelNamesMapping()[level.upper()], "profile_choice", **{HUMAN: text})


def _model_target(text: str, request: Request, cache_path: Path, registry: Registry) -> Target:
    uri, manifest_file = registry.parse_uri(text), request.manifest_file
    if manifest_file is not None and is_there(manifest_file):
        profile = profile_for(
            uri, request.patterns, load_manifest(manifest_file, cache_dir=cache_path, keep=not request.dry_run)
        )
        return profile_target(profile, registry, label=uri.display)
    if manifest_file is not None:
        check_writable(manifest_file.absolute())
    return Target(id=model_id(uri, request.patterns), label=uri.display, uri=uri)


def profile_target(profile: Profile, registry: Registry, label: str | None = None) -> Target:
    """Return what a profile has, to be called ``label``, or by its name where that is None."""
    files = tuple(
        Wanted(path=file.path, uri=registry.parse_uri(file.uri), digest=file.digest) for file in profile.files
    )
    return Target(id=profile.id, label=label or short_name(profile.tags) or profile.id, files=files)


def _write_manifest(request: Request, result: DownloadResult) -> None:
    """Write the manifest of a model that was listed; one that was read stays as it is."""
    for item in result.targets:
        if request.manifest_file is not None and item.target.uri is not None:
            dump_manifest(
                make_manifest(item.target.uri, request.patterns, item.target.files, item.present), request.manifest_file
            )


def _log_targets(targets: tuple[Target, ...], options: DownloadOptions) -> None:
    import structlog  # only after logging has been set up, see there

    log = structlog.get_logger()
    for target in targets:
        what = f"model: {target.label}" if target.uri else f"manifest profile: {target.id} ({target.label})"
        facts = {"label": target.label, "id": target.id, "cache": str(options.cache_path)}
        log.info("downloading", **facts, **{HUMAN: f"Downloading {what} to {options.cache_path}"})


def _log_summary(result: DownloadResult) -> None:
    import structlog

    log = structlog.get_logger()
    for item in result.targets:
        facts = {"label": item.target.label, "id": item.target.id, "files": item.files, "fetched": item.fetched}
        log.info("downloaded", **facts, **{HUMAN: _summary(item, result)})


def _warn_elsewhere(result: DownloadResult, cache_path: Path) -> None:
    """Name the folders outside the cache that a source's own variables led to: a volume meant for all may lack them."""
    import structlog

    links = (present.link for item in result.targets for present in item.present.values())
    outside = {_root(link) for link in links if link is not None and not link.is_relative_to(cache_path)}
    for folder in sorted(outside):
        text = f"files are in {folder}, where a variable of their source puts them, not in {cache_path}"
        structlog.get_logger().warning("cache_elsewhere", folder=folder, cache=str(cache_path), **{HUMAN: text})


def _root(link: Path) -> str:
    """Return the folder of all repositories that the link of a file is in: ``<root>/<repo>/snapshots/...``."""
    return str(next(folder.parents[1] for folder in link.parents if folder.name == "snapshots"))


def _summary(item: TargetResult, result: DownloadResult) -> str:
    """Return the line for one target; the bytes are those of the whole download, so only a lone one tells them."""
    text = f"complete: {item.target.label}: {item.files} file{'' if item.files == 1 else 's'}, {item.fetched} fetched"
    if len(result.targets) > 1 or not result.bytes_fetched:
        return text
    speed = rate(result.bytes_fetched / max(result.seconds, 0.001))
    return f"{text}, {size(result.bytes_fetched)} in {duration(result.seconds)} ({speed})"


def result_as_text(result: DownloadResult) -> str:
    """Return one line per target: its id and, after a tab, its receipt; ``-`` where there is none."""
    return "\n".join(f"{item.target.id}\t{item.receipt or '-'}" for item in result.targets)


def result_as_json(result: DownloadResult) -> Mapping[str, Any]:
    """Return the result as it is printed with ``--json``."""
    targets = [
        {
            "id": item.target.id,
            "label": item.target.label,
            "receipt": None if item.receipt is None else str(item.receipt),
            "files": item.files,
            "fetched": item.fetched,
        }
        for item in result.targets
    ]
    return {
        "targets": targets,
        "bytes_fetched": result.bytes_fetched,
        "seconds": round(result.seconds, 3),
        "damaged": list(result.damaged),
    }
