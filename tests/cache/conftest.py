"""A cache in a folder of its own, and files that the engine has just verified."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import define, evolve, field

from nim_core.cache.layout import Layout
from nim_core.plan import Fetch
from nim_core.testing.corpus import inline
from nim_core.transfer.jobs import Job, Verified
from nim_core.types import CacheKey, HttpObject, ModelUri, RemoteFile

KEY = CacheKey(root="test/hub", repo="models--org--name", snapshot="v1")


@define
class Cache:
    """A cache, and what is to be put into it."""

    layout: Layout
    made: int = field(default=0, init=False)

    def fetch(self, path: str = "model.bin", *, blob_name: str | None = None, **key: object) -> Fetch:
        uri = ModelUri(scheme="test", location="org/name", revision="v1")
        return Fetch(
            identity=evolve(uri, file=path),
            uri=uri,
            file=RemoteFile(path=path, blob_name=blob_name),
            key=evolve(KEY, **key),
        )

    def verified(self, fetch: Fetch, data: bytes, *, outside: Path | None = None) -> Verified:
        """Return a file as the engine hands it over: below ``tmp``, or somebody else's."""
        self.made += 1
        path = outside or self.layout.partials / f"partial.{self.made}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        content = inline(data)
        return Verified(
            job=Job(
                id=str(self.made),
                identity=fetch.identity,
                file=fetch.file,
                locate=lambda: HttpObject(url="http://127.0.0.1/f"),
            ),
            path=path,
            size=len(data),
            digests=(content.digest("blake3"), content.digest("sha256")),
            host="example.com",
            outside=outside is not None,
        )

    def blob_of(self, data: bytes) -> Path:
        return self.layout.blob(KEY, inline(data).digest("blake3").value)

    def names(self) -> list[str]:
        """Return every name below the cache, folders left out, links as such."""
        found = (path for path in self.layout.path.rglob("*") if path.is_symlink() or not path.is_dir())
        return sorted(path.relative_to(self.layout.path).as_posix() for path in found)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(Layout(tmp_path / "cache"))
