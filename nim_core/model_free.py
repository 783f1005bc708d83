"""
Models without a manifest: NIM_MODEL_PATH names one, and a manifest is generated from what its source lists.

Of the model itself only ``config.json`` and the index of the weights are fetched, into the cache like any download. The
manifest is kept in the cache, so that a start that may not ask, or cannot, has it::

    <cache path>/
      nim_runtime_manifest.yaml          that of the model generated last, for eyes
      nim_runtime_manifest.<key>.yaml    that of each model; the key is of its URI

A folder of this machine is always looked at; nothing of it is copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from attrs import evolve, frozen

from nim_core.cache.index import ReceiptIndex
from nim_core.cache.layout import Layout, make_folder
from nim_core.cache.space import check_answers
from nim_core.download import DownloadOptions, download
from nim_core.errors import (
    CacheError,
    CacheIncompleteError,
    InvalidUriError,
    ManifestError,
    NotFoundError,
    SourceError,
    UnsupportedError,
)
from nim_core.manifest import Manifest, dump_manifest, load_manifest
from nim_core.plan import Patterns, Plan, Target, model_id
from nim_core.profiles.generate import MODEL_URI_TAG, generate_manifest
from nim_core.profiles.model import INDEX_NAME
from nim_core.registry import Registry
from nim_core.settings import Settings
from nim_core.types import Digest, ModelUri, RemoteFile, TransferEvent, UriStyle
from nim_core.workspace.store import CHECKSUMS, listed_checksums

__all__ = ["MANIFEST_NAME", "RuntimeManifest", "model_uri", "runtime_manifest"]

MANIFEST_NAME: Final = "nim_runtime_manifest.yaml"

_CONFIG: Final = "config.json"
_FACTS: Final = Patterns(include=(_CONFIG, INDEX_NAME), may_be_none=True)
_DISABLED: Final = "NIM_DISABLE_MODEL_DOWNLOAD"
_RETRIES: Final = "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT"
_RETRIES_WITH_ANOTHER_WAY: Final = 1
_AT_THE_TOP: Final = frozenset({"receipts", "manifests", "tmp", "workspaces"})
_BENEATH: Final = frozenset({"blobs", "snapshots", "refs"})
"""Folders that a cache has."""

_log = structlog.get_logger(__name__)


@frozen(kw_only=True)
class RuntimeManifest:
    """
    A generated manifest.

    Attributes:
        manifest: The manifest.
        path: Where it is kept; it may not be there when the cache cannot be written.
        reached: Whether its source answered; where it did not, the model has to come from the cache as well.
    """

    manifest: Manifest
    path: Path
    reached: bool = True


def model_uri(source: str, registry: Registry) -> ModelUri:
    """
    Return the URI of a model that is named by a URI or an absolute path.

    Raises:
        InvalidUriError: It is neither.
        NoPluginForSchemeError: No installed plugin brings its scheme.
    """
    if source.startswith("/"):
        return registry.parse_uri(f"local://{os.path.normpath(source)}")
    if "://" not in source:
        raise InvalidUriError(
            f"neither a model URI nor an absolute path: {source}",
            hint="NIM_MODEL_PATH is such as scheme://org/model:revision, or /absolute/path of a folder",
        )
    return registry.parse_uri(source)


def runtime_manifest(
    uri: ModelUri, options: DownloadOptions, registry: Registry, settings: Settings
) -> RuntimeManifest:
    """
    Return the manifest of a model that has none.

    Args:
        uri: The model.
        options: Of the download that follows: whether the cache is trusted, and whether nothing may be written.
        registry: The plugins.
        settings: The environment.

    Raises:
        CacheIncompleteError: Downloads are disabled, and the cache knows nothing of the model.
        UnsupportedError: The URI names a single file.
        NotFoundError: There is nothing, or no model.
        NimError: What asking the source leads to, where the cache has no manifest to go on with.
    """
    check_answers(Layout(options.cache_path), settings.cache_probe_seconds)
    if uri.file is not None:
        raise UnsupportedError(
            f"names a single file, not a model: {uri.display}", uri=uri.display, hint="leave out ?file="
        )
    kept = _Kept(options.cache_path, uri)
    earlier = kept.read()
    if uri.style is UriStyle.PATH:
        return _asked(kept, earlier, options, registry, settings.having({_DISABLED: "0"}))
    if (options.use_cache or options.recheck or settings.downloads_disabled) and not options.force:
        known = earlier or _from_receipt(uri, options.cache_path)
        if known is not None:
            return RuntimeManifest(manifest=known, path=kept.path)
        if settings.downloads_disabled:
            raise CacheIncompleteError(
                f"{_DISABLED} is set, and the cache {options.cache_path} has no manifest of {uri.display}",
                hint=f"unset {_DISABLED}, or let one process that has it unset fill this cache first",
            )
    return _asked(kept, earlier, options, registry, settings)


def _asked(
    kept: _Kept, earlier: Manifest | None, options: DownloadOptions, registry: Registry, settings: Settings
) -> RuntimeManifest:
    """Generate the manifest and keep it; where its source does not answer, take the one that was kept."""
    if earlier is not None:
        retries = min(settings.variables.number(_RETRIES) or 0, _RETRIES_WITH_ANOTHER_WAY)
        settings = settings.having({_RETRIES: str(int(retries))})
    try:
        manifest = _generated(kept.uri, options, registry, settings)
    except SourceError as exc:
        if not exc.retryable or kept.uri.style is UriStyle.PATH:
            raise
        if earlier is None:
            told = f"the cache {options.cache_path} has no manifest of {kept.uri.display} to go on with, either"
            exc.hint = f"{exc.hint}; {told}" if exc.hint else told
            raise
        _log.warning("manifest_reused", model=kept.uri.display, manifest=str(kept.path), reason=exc.message)
        return RuntimeManifest(manifest=earlier, path=kept.path, reached=False)
    if manifest != earlier and not options.plan_only:
        kept.write(manifest)
    return RuntimeManifest(manifest=evolve(manifest, origin=str(kept.path)), path=kept.path)


class _Kept:
    """The manifest of a model in the cache."""

    def __init__(self, cache_path: Path, uri: ModelUri) -> None:
        self.uri = uri
        key = hashlib.sha256(uri.identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self._cache_path = cache_path
        self.path = (cache_path / MANIFEST_NAME).with_suffix(f".{key}.yaml")

    def read(self) -> Manifest | None:
        """Return it. None when there is none that can be read."""
        try:
            manifest = load_manifest(self.path, keep=False)
        except ManifestError:
            return None
        ours = all(profile.tags.get(MODEL_URI_TAG) == self.uri.display for profile in manifest.profiles)
        return manifest if ours and manifest.profiles else None

    def write(self, manifest: Manifest) -> None:
        """Keep it, where that is possible; without it, only a start that cannot ask its source is not."""
        try:
            make_folder(self._cache_path, "")
            for path in (self.path, self._cache_path / MANIFEST_NAME):
                dump_manifest(manifest, path)
        except (CacheError, ManifestError) as exc:
            _log.warning("manifest_not_kept", model=self.uri.display, reason=exc.message)


def _from_receipt(uri: ModelUri, cache_path: Path) -> Manifest | None:
    """Return the manifest of a model that was downloaded by its URI. None when it was not, or not as a model."""
    layout = Layout(cache_path)
    found = {file.path: file for file in ReceiptIndex(layout).files_of(model_id(uri)).values()}
    if not found:
        return None
    files = [RemoteFile(path=file.path, size=file.size, digests=file.digests) for file in found.values()]
    contents = {path: layout.path / found[path].blob for path in _FACTS.include if path in found}
    try:
        return _made(uri, files, contents)
    except SourceError:
        return None


# ---------------------------------------------------------------------------------------------------- asking its source
def _generated(uri: ModelUri, options: DownloadOptions, registry: Registry, settings: Settings) -> Manifest:
    """List the model, fetch what describes it, and make its manifest of that."""
    target = Target(id=model_id(uri, _FACTS), label=uri.display, uri=uri)
    with _cache_for(options) as cache_path:
        facts = DownloadOptions(cache_path=cache_path, patterns=_FACTS, limit_rate=options.limit_rate)
        result = download((target,), facts, registry, settings, _Quiet())
        files = _of_store(uri, _without_cache(uri, result.listings[uri].files, options.cache_path))
        present = result.targets[0].present
        return _made(uri, files, {path: item.blob for path, item in present.items()})


@contextlib.contextmanager
def _cache_for(options: DownloadOptions) -> Iterator[Path]:
    """Yield the cache, or a folder that goes away again where nothing may be written."""
    if not options.plan_only:
        yield options.cache_path
        return
    with tempfile.TemporaryDirectory(prefix="nim-plan-") as folder:
        yield Path(folder)


def _made(uri: ModelUri, files: Sequence[RemoteFile], contents: Mapping[str, Path]) -> Manifest:
    config, index = (_read(uri, contents.get(path), path) for path in _FACTS.include)
    return generate_manifest(uri, files, config, index)


def _read(uri: ModelUri, path: Path | None, name: str) -> Mapping[str, Any] | None:
    """Return the content of a JSON file. None where it is not there; raises SourceError where it is something else."""
    if path is None:
        return None
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise SourceError(f"cannot read {name} of {uri.display}: {exc}", uri=uri.display) from exc
    if not isinstance(value, dict):
        raise SourceError(f"{name} of {uri.display} is not a JSON object", uri=uri.display)
    return value


def _without_cache(uri: ModelUri, files: Sequence[RemoteFile], cache_path: Path) -> list[RemoteFile]:
    """Leave out what belongs to the cache, which may be in the model's folder, or be that folder."""
    if uri.style is not UriStyle.PATH or not cache_path.is_relative_to(uri.location):
        return list(files)
    inside = cache_path.relative_to(uri.location).as_posix()
    if inside != ".":
        return [file for file in files if not file.path.startswith(f"{inside}/")]
    return [file for file in files if not _is_of_cache(file.path)]


def _is_of_cache(path: str) -> bool:
    folders = path.split("/")[:-1]
    kept = path.lstrip(".").startswith(MANIFEST_NAME.removesuffix(".yaml"))
    return kept or not _AT_THE_TOP.isdisjoint(folders[:1]) or not _BENEATH.isdisjoint(folders)


def _of_store(uri: ModelUri, files: Sequence[RemoteFile]) -> Sequence[RemoteFile]:
    """
    Return the files of a model store with the checksums that it has of them, and those of any other folder as they are.

    Raises:
        NotFoundError: A store lacks a file.
    """
    sums = listed_checksums(Path(uri.location)) if uri.style is UriStyle.PATH else {}
    if not sums:
        return files
    there = {file.path: file for file in files}
    missing = sorted(sums.keys() - there.keys())
    if missing:
        raise NotFoundError(
            f"model store lacks {len(missing)} of the files in its {CHECKSUMS}: {missing[0]}: {uri.display}",
            uri=uri.display,
            hint="make it again with create-model-store, or copy all of it",
        )
    return [
        evolve(file, digests=(Digest("blake3", sums[path]),) if path in sums else ())
        for path, file in there.items()
        if path in sums or path == CHECKSUMS
    ]


class _Quiet:
    """Hears how small files are fetched, and tells nobody."""

    def phase(self, name: str) -> None:
        """Do nothing, like all the others."""

    def planned(self, plan: Plan) -> None:
        """Do nothing."""

    def event(self, event: TransferEvent) -> None:
        """Do nothing."""

    def damaged(self, path: str, reason: str) -> None:
        """Do nothing."""
