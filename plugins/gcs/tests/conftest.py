"""Sources of this plugin, opened against a real server of Google Cloud Storage, and the program run against it."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import frozen
from nim_source_gcs.plugin import nim_provide_credential, nim_register_sources
from nim_source_gcs.source import GcsSource

from nim_core.testing.corpus import Content, PatternContent, inline
from nim_core.testing.harness import source_context

pytest_plugins = ["nim_core.testing"]

OpenSource = Callable[..., GcsSource]


@pytest.fixture(autouse=True)
def nobody_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No credentials of the person who runs the tests are found."""
    for name in list(os.environ):
        if name.startswith(("GOOGLE_", "GCE_", "CLOUDSDK_", "STORAGE_EMULATOR", "API_ENDPOINT")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def files() -> dict[str, Content]:
    """The files of a model."""
    return {
        "config.json": inline("{}\n"),
        "a folder/ü & co+.bin": PatternContent(length=70_000),
        "nim%2Fmeta%2Fllama%3Ahf%3Ffile%3Dconfig.json": inline("flat"),
        "weights.bin": PatternContent(length=3_000_000, seed=1),
        "empty": inline(b""),
    }


@pytest.fixture
def model(gcs_server, files):
    """The server with that model below ``gs://models/llama/``."""
    for path, content in files.items():
        gcs_server.put("models", f"llama/{path}", content)
    gcs_server.put("models", "llama/a folder/", inline(b""))
    gcs_server.put("models", "llama-2/config.json", inline("another model"))
    return gcs_server


@pytest.fixture
def key_file(google_auth, tmp_path) -> dict[str, str]:
    """The variable that names a service account's key file."""
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(google_auth.service_account_file(tmp_path))}


@pytest.fixture
def open_source() -> Iterator[OpenSource]:
    """Return a function that makes a source from variables, closed at the end of the test."""
    [spec] = nim_register_sources()
    with ExitStack() as stack:

        def open_one(environment, *, provide=nim_provide_credential, clock=time.time, trust=None) -> GcsSource:
            context = stack.enter_context(
                source_context(spec, {"NO_GCE_CHECK": "true", **environment}, provide=provide, trust=trust)
            )
            source = GcsSource(context, clock=clock)
            stack.callback(source.close)
            return source

        yield open_one


@pytest.fixture
def source(open_source, gcs_server, key_file) -> GcsSource:
    """A source that signs in with a service account's key."""
    return open_source({**gcs_server.environment(), **key_file})


@frozen
class Ended:
    """How the program ended, and what it left in its cache."""

    code: int
    said: str
    cache: Path

    @property
    def files(self) -> dict[str, bytes]:
        """What the receipt lists, by path."""
        [receipt] = [json.loads(file.read_text(encoding="utf-8")) for file in self.cache.glob("receipts/*.json")]
        return {entry["path"]: (self.cache / entry["blob"]).read_bytes() for entry in receipt["files"]}


@pytest.fixture
def download(tmp_path: Path) -> Callable[..., Ended]:
    """Return a function that runs ``download-to-cache --model-uri`` on an empty machine."""

    def run(uri: str, *environments: dict[str, str], timeout: float = 100) -> Ended:
        (tmp_path / "home").mkdir(exist_ok=True)
        environment = {"PATH": os.defpath, "HOME": str(tmp_path / "home"), "NIM_CACHE_PATH": str(tmp_path / "cache")}
        environment |= {"NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "1", "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "2"}
        for more in environments:
            environment |= more
        command = [Path(sysconfig.get_path("scripts"), "download-to-cache"), "--model-uri", uri]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
        return Ended(code=done.returncode, said=done.stdout + done.stderr, cache=tmp_path / "cache")

    return run
