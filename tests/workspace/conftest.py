"""A cache with a few files in it, as a download leaves them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import evolve, frozen

from nim_core.plan import Present
from nim_core.testing.corpus import Content, PatternContent, inline
from nim_core.types import ModelUri
from nim_core.workspace.places import EDITED_BYTES

FILES: Mapping[str, Content] = {
    "config.json": inline('{"a": 1}\n'),
    "empty.txt": inline(b""),
    "model.safetensors": PatternContent(length=EDITED_BYTES + 1, seed=1),
    "nested/deeper/données 日本.bin": PatternContent(length=70_000, seed=2),
}


@frozen
class Model:
    """A cache and what of it belongs to a model."""

    cache: Path
    contents: Mapping[str, Content]
    present: Mapping[str, Present]

    def differences(self, folder: Path) -> list[str]:
        """Return which files beneath ``folder`` are not the model's, or lack; checksums and records left out."""
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name not in {"checksums.blake3", ".nim-workspace"}
        }
        wanted = {path: content.data() for path, content in self.contents.items()}
        return sorted(path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path))

    def having(self, **contents: Content) -> Model:
        """Return a model that has these files, too, or instead."""
        return make_model(self.cache, {**self.contents, **contents})

    def lacking(self, path: str) -> Model:
        """Return a model without one of the files."""
        return make_model(self.cache, {name: it for name, it in self.contents.items() if name != path})


def make_model(cache: Path, contents: Mapping[str, Content]) -> Model:
    blobs = cache / "test/hub/models--m/blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    return Model(cache, contents, {path: _present(cache, path, content) for path, content in contents.items()})


def _present(cache: Path, path: str, content: Content) -> Present:
    blob = cache / "test/hub/models--m/blobs" / content.digest("blake3").value
    link = cache / "test/hub/models--m/snapshots/v1" / path
    if not blob.exists():
        blob.write_bytes(content.data())
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return Present(
        identity=ModelUri(scheme="test", location="m", file=path),
        blob=blob,
        link=link,
        size=content.size,
        mtime_ns=blob.stat().st_mtime_ns,
        digests=(content.digest("sha256"), content.digest("blake3")),
    )


def outside(present: Present, path: Path) -> Present:
    """Return a file that is used from where it is, of which nothing is known."""
    return evolve(present, blob=path, link=None, digests=())


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return make_model(tmp_path / "cache", FILES)
