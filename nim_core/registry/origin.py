"""Where an installed plugin came from, found without importing it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from nim_core.registry.info import PluginInfo

if TYPE_CHECKING:
    from importlib.metadata import Distribution

__all__ = ["Origin", "find_origin"]


@frozen(kw_only=True)
class Origin:
    """
    Where a plugin came from.

    Attributes:
        folder: Where its package, or its only module, is. None when that cannot be found.
        editable: Whether the distribution is used from the folder it is developed in (PEP 610).
        installer: What installed it, such as ``pip`` or ``uv`` (the file ``INSTALLER``). None when it does not say.
    """

    folder: Path | None = None
    editable: bool = False
    installer: str | None = None


def find_origin(plugin: PluginInfo) -> Origin:
    """Return where ``plugin`` came from; what its installation does not tell is absent."""
    import importlib.metadata  # slow, and --help does without

    try:
        distribution = importlib.metadata.distribution(plugin.distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return Origin(folder=_folder(plugin.module))
    installer = (_text(distribution, "INSTALLER") or "").strip()
    return Origin(folder=_folder(plugin.module), editable=_is_editable(distribution), installer=installer or None)


def _folder(module: str) -> Path | None:
    """Return where the outermost package of ``module`` is; asking for more of it would import that package."""
    package = module.partition(":")[0].partition(".")[0]
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin).parent if spec.origin and spec.has_location else None


def _is_editable(distribution: Distribution) -> bool:
    try:
        direct = json.loads(_text(distribution, "direct_url.json") or "{}")
        return bool(direct["dir_info"]["editable"])
    except (ValueError, KeyError, TypeError):
        return False


def _text(distribution: Distribution, name: str) -> str | None:
    try:
        return distribution.read_text(name)
    except (OSError, UnicodeError):
        return None
