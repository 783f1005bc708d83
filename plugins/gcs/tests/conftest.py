"""Sources and sinks of this plugin, opened against real servers of Google Cloud Storage, and the program run."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from attrs import frozen
from google.cloud import storage  # noqa: TID253
from nim_source_gcs.plugin import nim_provide_credential, nim_register_sinks, nim_register_sources
from nim_source_gcs.sink import GcsSink
from nim_source_gcs.source import GcsSource

from nim_core.errors import TransientError
from nim_core.testing.corpus import Content, PatternContent, inline
from nim_core.testing.harness import ControlClient, source_context
from nim_core.types import CredentialRequest, HttpAnswer, HttpUpload, SinkContext, Variables

pytest_plugins = ["nim_core.testing"]

OpenSource = Callable[..., GcsSource]
OpenSink = Callable[..., GcsSink]


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


def send(upload: HttpUpload) -> HttpAnswer:
    """Send a request as core does: once, its URL to the letter, its body as a stream."""
    parts = httpx.URL(upload.url.reveal())
    target = upload.url.reveal().partition("://")[2].partition("/")[2]
    headers = {name: value.reveal() for name, value in upload.headers}
    content = None
    if upload.body is not None:
        headers["Content-Length"] = str(upload.body.size)
        content = iter(upload.body.open().readlines())
    with httpx.Client(trust_env=False, timeout=20) as client:
        extensions = {"target": f"/{target}".encode("ascii")}
        try:
            response = client.request(
                upload.method, parts, headers=headers, content=content, extensions=extensions, follow_redirects=False
            )
        except httpx.TransportError as exc:
            raise TransientError("no answer") from exc
    told = {name.lower(): value for name, value in response.headers.items()}
    return HttpAnswer(status=response.status_code, headers=told, body=response.content[: 1 << 16])


@pytest.fixture
def open_sink() -> Iterator[OpenSink]:
    """Return a function that makes a sink from variables, closed at the end of the test."""
    [spec] = nim_register_sinks()
    with ExitStack() as stack:

        def open_one(environment, *, bucket="models", clock=time.time) -> GcsSink:
            variables = Variables(spec.environment, {"NO_GCE_CHECK": "true", **environment})

            def credential(endpoint, uri):
                return nim_provide_credential(
                    CredentialRequest(source=spec.name, endpoint=endpoint, uri=uri, variables=variables)
                )

            http = stack.enter_context(ControlClient())
            context = SinkContext(bucket=bucket, http=http, variables=variables, credential=credential, send=send)
            sink = GcsSink(context, clock=clock)
            stack.callback(sink.close)
            return sink

        yield open_one


@pytest.fixture(params=["gcs_server", "gcs_emulator"])
def server(request: pytest.FixtureRequest):
    """Either server, with the bucket ``models``."""
    found = request.getfixturevalue(request.param)
    found.make_bucket("models")
    return found


@pytest.fixture
def emulator(gcs_emulator):
    """The server that knows resumable uploads, with the bucket ``models``."""
    gcs_emulator.make_bucket("models")
    return gcs_emulator


@pytest.fixture
def signed_in(key_file: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., storage.Client]:
    """Return a function that makes Google's client for a server; it finds key and server by itself."""

    def make(server) -> storage.Client:
        for name, value in {**key_file, **server.environment()}.items():
            monkeypatch.setenv(name, value)
        client = storage.Client(project="sample")
        client._bucket_metadata_cache = None
        return client

    return make


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
