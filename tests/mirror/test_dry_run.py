"""``mirror --dry-run`` carries the plan of the download that it would take, which is then what happens."""

from __future__ import annotations

import io
import json

import pytest

from nim_core.cli.app import command
from nim_core.cli.errors import run
from nim_core.cli.session import Session
from nim_core.registry import Registry
from nim_core.registry.info import PluginInfo
from nim_core.registry.loading import make_manager
from nim_core.settings import Settings
from nim_core.types import Listing, RemoteFile, SinkSpec, SourceSpec, StreamObject, UriStyle
from tests.mirror.shelf import Shelf

FILES = {"config.json": b"{}\n", "weights.bin": b"w" * 1000}


class Source:
    def __init__(self, _context):
        """Take nothing from the context."""

    def list_files(self, uri):
        files = tuple(RemoteFile(path=path, size=len(data)) for path, data in FILES.items())
        return Listing(uri=uri, files=files, pinned="1")

    def locate(self, uri, file):
        return StreamObject(open=lambda: io.BytesIO(FILES[file.path]))

    def close(self):
        """Nothing is held open."""


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def mirror(tmp_path, shelf, monkeypatch, capsys):
    """Run ``mirror`` with ``--json``; return its exit code and what it printed."""
    source = SourceSpec(name="x", schemes=("x",), uri_style=UriStyle.REPOSITORY, summary="", factory=Source)
    sink = SinkSpec(name="shelf", summary="", scheme="shelf", factory=lambda _context: shelf)
    plugin = PluginInfo(name="x", distribution="nim-x", version="1", sources=(source,), sinks=(sink,))
    monkeypatch.setattr(Session, "load_registry", lambda _session: Registry(Settings({}), (plugin,), make_manager()))
    files = {name: {"uri": f"x://org/model:1?file={name}"} for name in FILES}
    manifest = tmp_path / "manifest.json"
    profiles = [{"id": "a" * 64, "tags": {}, "workspace": {"files": files}}]
    manifest.write_text(json.dumps({"schema_version": "2.0.0", "profiles": profiles}))

    def call(*options):
        arguments = ["mirror", "shelf", "-b", "bucket", "--manifest-file", str(manifest), "--json", *options]
        code = run(command(), arguments, "nim-llm", Session(Settings({"NIM_CACHE_PATH": str(tmp_path / "cache")})))
        return code, json.loads(capsys.readouterr().out)

    return call


def test_the_plan_is_what_happens(mirror, shelf, tmp_path):
    code, planned = mirror("--dry-run")
    assert code == 0
    assert (shelf.objects, (tmp_path / "cache").exists()) == ({}, False)
    assert planned["download"]["files_to_fetch"] == len(FILES)
    _, happened = mirror()
    assert planned["download"]["bytes_to_fetch"] == happened["bytes_fetched"] == sum(map(len, FILES.values()))
    assert len(shelf.objects) == len(FILES)
    assert mirror("--dry-run")[1]["download"]["files_to_fetch"] == 0


def test_a_disk_that_is_too_small(mirror, monkeypatch):
    monkeypatch.setattr(Source, "list_files", lambda _source, uri: huge(uri))
    code, planned = mirror("--dry-run")
    assert code == planned["download"]["error"]["exit_code"] == 61


def huge(uri):
    return Listing(uri=uri, files=tuple(RemoteFile(path=path, size=1 << 60) for path in FILES), pinned="1")
