from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nim_core.cache.layout import Layout
from nim_core.cache.receipts import Receipt, ReceiptFile, write_receipt
from nim_core.manifest import ManifestFile, Profile
from nim_core.profiles.facts import CachedModels
from nim_core.profiles.model import INDEX_NAME, Model, shape_of
from tests.profiles.conftest import CONFIGS

CONFIG = CONFIGS["Llama-3.1-8B"][1]
SHAPE = shape_of(CONFIG)
INDEX = {"metadata": {"total_size": 90}}
SHARD = "model-00001-of-00001.safetensors"
FILES = {"config.json": CONFIG, INDEX_NAME: INDEX, SHARD: None}


def uri(path: str) -> str:
    return f"store://org/model:v1?file={path}"


def profile(number: int, *paths: str) -> Profile:
    return Profile(id=f"{number:064x}", files=tuple(ManifestFile(path=path, uri=uri(path)) for path in paths or FILES))


def cached(cache: Path, files: dict[str, Any], *, id_: str = profile(1).id) -> CachedModels:
    """Put ``files`` into a cache: JSON where they have content, 100 bytes said of those that have none."""
    entries = []
    for path, content in files.items():
        blob = cache / "blobs" / path
        blob.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            blob.write_text(content if isinstance(content, str) else json.dumps(content))
        facts = {"blob": f"blobs/{path}", "link": None, "mtime_ns": 0, "digests": ()}
        entries.append(ReceiptFile(path=path, uri=uri(path), size=100, **facts))
    receipt = Receipt(id=id_, label="", created="", plugins={}, files=tuple(entries))
    write_receipt(Layout(cache), receipt)
    return CachedModels(cache)


def test_a_profile_that_was_downloaded(tmp_path: Path) -> None:
    assert cached(tmp_path, FILES).model_of(profile(1)) == Model(weights=90, shape=SHAPE)


def test_a_profile_of_the_same_files_as_one_that_was(tmp_path: Path) -> None:
    models = cached(tmp_path, FILES)
    assert models.model_of(profile(2)) == Model(weights=90, shape=SHAPE)
    assert models.model_of(profile(3, *FILES, "other.safetensors")) is None
    assert models.model_of(Profile(id="4" * 64)) is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({SHARD: None}, Model(weights=100)),
        ({SHARD: None, "config.json": "no JSON"}, Model(weights=100)),
        ({SHARD: None, "config.json": "[]"}, Model(weights=100)),
        ({SHARD: None, "config.json": None}, Model(weights=100)),
        ({SHARD: None, "config.json": CONFIG, INDEX_NAME: "{"}, Model(weights=100, shape=SHAPE)),
        ({"config.json": CONFIG}, None),
    ],
)
def test_what_is_missing_or_damaged(files: dict[str, Any], expected: Model | None, tmp_path: Path) -> None:
    assert cached(tmp_path, files).model_of(profile(1)) == expected


def test_no_cache(tmp_path: Path) -> None:
    assert CachedModels(tmp_path / "none").model_of(profile(1)) is None
