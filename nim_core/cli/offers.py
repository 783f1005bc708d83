"""Where the profiles come from that a command chooses among: a manifest, or a model that has none."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from nim_core.cli.logging import HUMAN
from nim_core.cli.session import Session
from nim_core.download import DownloadOptions
from nim_core.manifest import Manifest, find_manifest, load_manifest
from nim_core.registry import Registry
from nim_core.settings import Settings

__all__ = ["Offer", "find_offer"]

_TARGETS = "NIM_REPOSITORY_OVERRIDE"


@frozen(kw_only=True)
class Offer:
    """
    Profiles to choose among.

    Attributes:
        manifest: Has them.
        path: The file of the manifest.
        settings: The environment for what follows; a model without a manifest is not looked for elsewhere.
        reached: Whether the source of such a model answered; where it did not, only the cache can help.
        source: Such a model, as the user named it. None for a manifest.
    """

    manifest: Manifest
    path: Path
    settings: Settings
    reached: bool = True
    source: str | None = None


def find_offer(
    manifest_file: Path | None, options: DownloadOptions, session: Session, registry: Registry | None = None
) -> Offer:
    """
    Return the profiles to choose among.

    They are those of ``--manifest-file``, else of NIM_MANIFEST_PATH, else of a model without a manifest, else those of
    the image.

    Args:
        manifest_file: Value of ``--manifest-file``. None when not given.
        options: Of the download that follows.
        session: The run of the command.
        registry: The plugins. None: loaded when they are needed.

    Raises:
        ManifestError: There is no manifest, or it cannot be read.
        NimError: As :func:`~nim_core.model_free.runtime_manifest`.
    """
    settings = session.settings
    source = None if manifest_file or settings.manifest_path else settings.model_source
    if source is not None:
        return _without_manifest(source, options, session, registry or session.load_registry())
    path = find_manifest(manifest_file, settings.manifest_path)
    manifest = load_manifest(path, cache_dir=options.cache_path, keep=not options.plan_only)
    return Offer(manifest=manifest, path=path, settings=settings)


def _without_manifest(source: str, options: DownloadOptions, session: Session, registry: Registry) -> Offer:
    import structlog  # only after logging has been set up, see there

    from nim_core.model_free import model_uri, runtime_manifest  # most commands have a manifest

    log, settings = structlog.get_logger(), session.settings
    uri = model_uri(source, registry)
    if settings.repository_overrides:
        text = f"{uri.display} is fetched from where it is: {_TARGETS} redirects manifests, not models named by a URI"
        log.warning("not_redirected", model=uri.display, **{HUMAN: text})
        settings = settings.having({_TARGETS: ""})
    found = runtime_manifest(uri, options, registry, settings)
    count = len(found.manifest.profiles)
    text = f"{count} profile{'' if count == 1 else 's'} for {uri.display}"
    log.info("profiles_generated", model=uri.display, profiles=count, **{HUMAN: text})
    return Offer(manifest=found.manifest, path=found.path, settings=settings, reached=found.reached, source=uri.display)
