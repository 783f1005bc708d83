"""A source as small as can be: files that a server lists in ``/index.json`` and serves beneath ``/files``."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from nim_core.hookspecs import hookimpl
from nim_core.registry import Registry, load_registry
from nim_core.settings import Settings
from nim_core.testing.corpus import Content, inline
from nim_core.testing.http_server import Request, Response
from nim_core.testing.misbehaving import MisbehavingFiles, Script, well_behaved
from nim_core.types import (
    Capabilities,
    Digest,
    EnvVar,
    HttpObject,
    Listing,
    ModelUri,
    RemoteFile,
    SourceContext,
    SourceSpec,
    UriStyle,
)

__all__ = ["REVISION", "URI", "Shelf", "ShelfSource", "install", "registry_of", "snapshot_of"]

URI = "shelf://model:main"
REVISION = "abc123"


class ShelfSource:
    """Asks the server anew each time; each URL it hands out is another."""

    def __init__(self, context: SourceContext) -> None:
        self._http = context.http
        self._url = context.variables.text("SHELF_URL")
        self._tickets = itertools.count()

    def list_files(self, uri: ModelUri) -> Listing:
        index = self._http.get(f"{self._url}/index.json").json()
        files = (
            RemoteFile(path=path, size=file["size"], digests=(Digest.parse(file["digest"]),))
            for path, file in index["files"].items()
        )
        return Listing(uri=uri, pinned=REVISION, files=tuple(files))

    def locate(self, uri: ModelUri, file: RemoteFile) -> HttpObject:
        index = self._http.get(f"{self._url}/index.json").json()
        url = f"{index['url'] or self._url}/files/{quote(file.path)}?ticket={next(self._tickets)}"
        return HttpObject(url=url, ranges=index["ranges"])

    def close(self) -> None:
        pass


@hookimpl
def nim_register_sources() -> list[SourceSpec]:
    return [
        SourceSpec(
            name="shelf",
            schemes=("shelf",),
            uri_style=UriStyle.REPOSITORY,
            summary="what a test serves",
            factory=ShelfSource,
            capabilities=Capabilities(pins_revisions=True),
            environment=(EnvVar(name="SHELF_URL", kind="url", summary="where"),),
        )
    ]


class Shelf:
    """
    The server's side: a handler for an origin.

    Args:
        files: Contents by path.
        script: Which request for a file gets which fault.
        ranges: What the source says about ranges: False makes every file come as one stream.
        sizes: Whether the index has them.
        url: Where files are, when not at the origin that has the index.
    """

    def __init__(
        self,
        files: Mapping[str, Content],
        script: Script = well_behaved,
        *,
        ranges: bool | None = None,
        sizes: bool = True,
        url: str | None = None,
    ) -> None:
        self.files = files
        self.served = MisbehavingFiles({f"/files/{path}": content for path, content in files.items()}, script)
        listed = {
            path: {"size": content.size if sizes else None, "digest": str(content.digest("blake3"))}
            for path, content in files.items()
        }
        self._index = inline(json.dumps({"files": listed, "ranges": ranges, "url": url}))

    def __call__(self, request: Request) -> tuple[str, Response]:
        if request.path == "/index.json":
            return "index", Response(body=self._index)
        return self.served(request)


def install(folder: Path) -> Path:
    """Write what makes this module an installed plugin, once ``folder`` is on the path, and return ``folder``."""
    info = folder / "nim_test_shelf-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: nim-test-shelf\nVersion: 1.0\n" + _REQUIRES)
    info.joinpath("entry_points.txt").write_text(f"[nim_core.plugins]\nshelf = {__name__}\n")
    return folder


_REQUIRES = "Requires-Dist: nim-core>=1.0.0.dev0\n"


def registry_of(installed: Path, settings: Settings) -> Registry:
    """Return a registry that knows this source alone."""
    return load_registry(settings, distributions=importlib.metadata.distributions(path=[str(installed)]))


def snapshot_of(cache: Path) -> Path:
    """Return where the files of :data:`URI` have to be."""
    return cache / "shelf/hub/models--model/snapshots" / REVISION
