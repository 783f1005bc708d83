"""From a file to a manifest."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

from nim_core.errors import ManifestError
from nim_core.manifest.checks import ManifestRows, as_map
from nim_core.manifest.faults import FaultError, Place
from nim_core.manifest.parsed import ParsedForm, as_manifest
from nim_core.manifest.records import Manifest
from nim_core.manifest.schema_1 import read_schema_1
from nim_core.manifest.schema_2 import read_schema_2
from nim_core.manifest.tree import read_tree

__all__ = ["MAX_BYTES", "load_manifest", "read_rows"]

MAX_BYTES: Final = 64 * 1024 * 1024
"""Size of the largest manifest that is read; the largest one seen has 5 MiB."""

_WORTH_KEEPING: Final = 4 * 1024
"""Size in bytes from which reading a manifest takes noticeably longer than reading its parsed form."""


def load_manifest(path: Path, *, cache_dir: Path | None = None, keep: bool = True) -> Manifest:
    """
    Read a manifest, YAML or JSON, of schema 1 or 2.

    What was read is kept in a parsed form (:mod:`nim_core.manifest.parsed`), so that the next time takes milliseconds.

    Args:
        path: The manifest.
        cache_dir: Folder that may hold parsed forms, in ``manifests/``, where none can be kept beside the manifest.
        keep: Whether a parsed form is written where there is none.

    Raises:
        ManifestError: The file cannot be read or is no manifest, or asks for something unsafe. The message has file
            and line, and the profile where it is about one.
    """
    data, mode = _read_bytes(path)
    if len(data) < _WORTH_KEEPING:
        return as_manifest(read_rows(path, data), str(path))
    parsed = ParsedForm.of(path, data, mode, cache_dir)
    manifest = parsed.read()
    if manifest is None:
        rows = read_rows(path, data)
        if keep:
            parsed.write(rows)
        manifest = as_manifest(rows, str(path))
    return manifest


def read_rows(path: Path, data: bytes) -> ManifestRows:
    """
    Read and check the content of the manifest at ``path``.

    Raises:
        ManifestError: As :func:`load_manifest`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        lines_before = data.count(b"\n", 0, exc.start)
        raise ManifestError(f"{path}:{lines_before + 1}: not UTF-8", hint="manifests are UTF-8 text") from exc
    try:
        return _read_text(text, strict_json=path.suffix == ".json")
    except FaultError as exc:
        line = "" if exc.line is None else f":{exc.line}"
        profile = "" if exc.place is None or exc.place.profile is None else f"profile {exc.place.profile}: "
        raise ManifestError(f"{path}{line}: {profile}{exc.message}", hint=exc.hint) from exc


def _read_text(text: str, *, strict_json: bool) -> ManifestRows:
    tree = read_tree(text, strict_json=strict_json)
    try:
        return _read_document(tree.value)
    except FaultError as exc:
        if exc.place is not None:
            exc.line = tree.line_of(exc.place.path)
        raise


def _read_document(value: Any) -> ManifestRows:
    if value is None:
        raise FaultError("manifest is empty")
    top = as_map(value, Place(), "manifest")
    if not top:
        raise FaultError("manifest is empty")
    if "schema_version" in top:
        return read_schema_2(top)
    if "profiles" in top:
        raise Place().fault("missing schema_version", "schema 2 starts with schema_version: 2.0.0")
    return read_schema_1(top)


def _read_bytes(path: Path) -> tuple[bytes, int]:
    """Return the file's content and permissions."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ManifestError(f"manifest is not a regular file: {path}")
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ManifestError(f"cannot read manifest: {path} ({reason})") from exc
    if len(data) > MAX_BYTES:
        raise ManifestError(f"manifest is larger than {MAX_BYTES // 1024**2} MiB: {path}")
    return data, mode


def _open_at_once(path: str, flags: int) -> int:
    # otherwise a pipe that nobody writes to would never open
    return os.open(path, flags | os.O_NONBLOCK)
