"""
Receipts: what a profile or URI consists of, where each file is, and which digests it was seen to have.

A receipt is written when all its files are verified and visible, so a complete one needs neither network nor hashing:
size and time of last change of each blob tell whether it is still the file that was hashed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from nim_core.cache.layout import Layout, folder_error, make_folder, sync_folder
from nim_core.errors import ConfigError
from nim_core.types import Digest

__all__ = ["Receipt", "ReceiptFile", "read_receipt", "receipt_path", "receipts_of", "write_receipt"]

_FORMAT: Final = 1
_NOT_A_RECEIPT: Final = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, ConfigError)


@frozen(kw_only=True)
class ReceiptFile:
    """
    One file of a receipt.

    Attributes:
        path: Path inside the workspace.
        uri: What it is known by: ``ModelUri.identity``.
        blob: Its bytes, relative to the cache; absolute for a file used from where it is.
        link: Its place in a snapshot, relative to the cache. None for a file used from where it is.
        size: Bytes.
        mtime_ns: Time of last change of the bytes, in nanoseconds, when they were verified.
        digests: Digests they were seen to have.
        host: Where they came from. None when not from a network, or not known any more.
    """

    path: str
    uri: str
    blob: str
    link: str | None
    size: int
    mtime_ns: int
    digests: tuple[Digest, ...]
    host: str | None = None


@frozen(kw_only=True)
class Receipt:
    """
    What was put into the cache under one id.

    Attributes:
        id: Profile id, or digest of a model URI.
        label: What it was called towards the user.
        created: ISO 8601, UTC.
        plugins: Name and version of the plugins that were used.
        files: All its files.
    """

    id: str
    label: str
    created: str
    plugins: Mapping[str, str]
    files: tuple[ReceiptFile, ...]


def receipt_path(layout: Layout, receipt_id: str) -> Path:
    """Return the file of the receipt ``receipt_id``."""
    if not re.fullmatch(r"[0-9A-Za-z._-]{1,128}", receipt_id):
        raise ConfigError(f"not a receipt id: {receipt_id!r}")
    return layout.receipts / f"{receipt_id}.json"


def read_receipt(path: Path) -> Receipt | None:
    """Return the receipt in ``path``. None when there is none, or none that this version understands."""
    try:
        return _receipt(json.loads(path.read_bytes()))
    except _NOT_A_RECEIPT:
        return None


def receipts_of(layout: Layout) -> Iterator[Receipt]:
    """Yield every readable receipt, in order of their names."""
    try:
        paths = sorted(layout.receipts.glob("*.json"))
    except PermissionError:  # whoever may not look into the cache is told so when it is written
        return
    for path in paths:
        receipt = read_receipt(path)
        if receipt is not None:
            yield receipt


def write_receipt(layout: Layout, receipt: Receipt) -> Path:
    """Write a receipt, atomically and durably, and return its file. Raises CacheError when that is not possible."""
    folder = make_folder(layout.path, "receipts")
    path = receipt_path(layout, receipt.id)
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    text = _as_text(receipt)
    try:
        with temporary.open("xb") as file:
            file.write(text.encode("utf-8", "surrogatepass"))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(folder)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise folder_error(exc, path) from exc
    return path


def _as_text(receipt: Receipt) -> str:
    """Return a receipt as JSON, each file on a line: indented further, thousands of files take a second."""
    head = {
        "format": _FORMAT,
        "id": receipt.id,
        "label": receipt.label,
        "created": receipt.created,
        "plugins": dict(receipt.plugins),
    }
    encode = json.JSONEncoder(ensure_ascii=False).encode
    fields = "".join(f" {encode(name)}: {encode(value)},\n" for name, value in head.items())
    files = ",\n".join(f"  {encode(_file_as_json(file))}" for file in receipt.files)
    return f'{{\n{fields} "files": [\n{files}\n ]\n}}\n'


def _file_as_json(file: ReceiptFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "uri": file.uri,
        "blob": file.blob,
        "link": file.link,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "digests": {digest.algorithm: digest.value for digest in file.digests},
        "host": file.host,
    }


def _receipt(value: dict[str, Any]) -> Receipt:
    if value["format"] != _FORMAT:
        raise ValueError(f"unknown receipt format: {value['format']!r}")
    return Receipt(
        id=str(value["id"]),
        label=str(value["label"]),
        created=str(value["created"]),
        plugins={str(name): str(version) for name, version in value["plugins"].items()},
        files=tuple(_file(item) for item in value["files"]),
    )


def _file(value: dict[str, Any]) -> ReceiptFile:
    return ReceiptFile(
        path=str(value["path"]),
        uri=str(value["uri"]),
        blob=str(value["blob"]),
        link=None if value["link"] is None else str(value["link"]),
        size=int(value["size"]),
        mtime_ns=int(value["mtime_ns"]),
        digests=tuple(Digest(algorithm, text) for algorithm, text in value["digests"].items()),
        host=None if value["host"] is None else str(value["host"]),
    )
