"""Which manifest to read: the flag, then the variable, then the two places that images have it in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nim_core.errors import ManifestError

__all__ = ["DEFAULT_PATHS", "find_manifest"]

DEFAULT_PATHS: Final[tuple[Path, ...]] = (
    Path("/opt/nim/etc/default/model_manifest.yaml"),
    Path("/etc/nim/config/model_manifest.yaml"),
)
"""Where images keep their manifest: the place of schema 2 first, then that of older images."""


def find_manifest(explicit: Path | None, variable: Path | None, defaults: Sequence[Path] = DEFAULT_PATHS) -> Path:
    """
    Return the manifest file to read. That it can be read is not promised: loading says best why not.

    Args:
        explicit: Value of ``--manifest-file``. None when not given.
        variable: Value of ``NIM_MANIFEST_PATH``. None when not set.
        defaults: Where to look when neither is given, best first.

    Raises:
        ManifestError: The file that was named is not there, or nothing was named and none of ``defaults`` is there.
    """
    for named, by in ((explicit, "--manifest-file"), (variable, "NIM_MANIFEST_PATH")):
        if named is not None:
            return _named(named, by)
    for path in defaults:
        if _is_there(path):
            return path
    looked = ", ".join(map(str, defaults)) or "nowhere"
    raise ManifestError(
        f"no manifest found, looked at: {looked}",
        hint="name one by NIM_MANIFEST_PATH (or --manifest-file), or a model without one by NIM_MODEL_PATH",
    )


def _named(path: Path, by: str) -> Path:
    if _is_there(path):
        return path
    raise ManifestError(f"no manifest file at {by}: {path}", hint=f"{by} must name a file that exists")


def _is_there(path: Path) -> bool:
    """Whether something is at ``path``; where it cannot be told, reading will say why."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True
