"""The kit's servers, asked by Google's own libraries as they come: what these accept is what they accept of Google."""

from __future__ import annotations

import io
import subprocess
import sys

import google.auth  # noqa: TID253
import google.auth.transport.requests  # noqa: TID253
import pytest
from google.auth.exceptions import RefreshError  # noqa: TID253
from google.cloud.exceptions import Forbidden, NotFound, TooManyRequests  # noqa: TID253

from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.gcs_server import GcsServer
from nim_core.testing.harness import ControlClient
from nim_core.types import ModelUri, UriStyle

SCOPES = ["https://www.googleapis.com/auth/devstorage.read_only"]


@pytest.fixture
def official(gcs_server, signed_in):
    """Google's client, which finds the key and the server by itself."""
    return signed_in(gcs_server)


def test_googles_client_reads_objects(official, model, files):
    blobs = {blob.name.removeprefix("llama/"): blob for blob in official.list_blobs("models", prefix="llama/")}
    assert {path: blobs[path].download_as_bytes() for path in files} == {
        path: content.data() for path, content in files.items()
    }
    assert blobs["weights.bin"].download_as_bytes(start=10, end=19) == files["weights.bin"].read(10, 20)


def test_this_plugin_sees_what_googles_client_sees(official, source, model):
    ours = source.list_files(ModelUri(scheme="gs", location="models/llama/", style=UriStyle.OBJECT)).files
    theirs = [blob for blob in official.list_blobs("models", prefix="llama/") if not blob.name.endswith("/")]
    assert [(f"llama/{file.path}", file.size) for file in ours] == [(blob.name, blob.size) for blob in theirs]


def test_googles_client_follows_pages(official, gcs_server):
    gcs_server.page_size = 2
    for name in "abcde":
        gcs_server.put("models", name, inline(name))
    assert [blob.name for blob in official.list_blobs("models")] == list("abcde")
    assert gcs_server.log.count(route="list") == 3


def test_composed_objects_have_no_md5(official, gcs_server):
    content = PatternContent(length=1000)
    gcs_server.compose("models", "whole", [content.read(0, 400), content.read(400, 1000)])
    blob = official.bucket("models").get_blob("whole")
    assert (blob.md5_hash, blob.size, blob.download_as_bytes()) == (None, 1000, content.data())


@pytest.mark.parametrize(("status", "kind"), [(403, Forbidden), (404, NotFound), (429, TooManyRequests)])
def test_refusals_are_googles(official, model, status, kind):
    model.refuse(status, "why", route="object")
    with pytest.raises(kind, match="why") as caught:
        official.bucket("models").get_blob("llama/config.json", retry=None) or official.get_bucket("models")
    assert caught.value.errors[0]["message"] == "why"


@pytest.mark.parametrize("authorization", [None, "Bearer ya29.made-up", "Basic eDp5"])
def test_tokens_are_checked(gcs_server, authorization):
    gcs_server.put("models", "x", inline("x"))
    with ControlClient() as client:
        headers = {"Authorization": authorization} if authorization else {}
        response = client.get(f"{gcs_server.url}/storage/v1/b/models/o/x", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (401, 401)


@pytest.mark.parametrize(
    ("holder", "write"),
    [
        ("service account", lambda auth, folder: auth.service_account_file(folder)),
        ("workload", lambda auth, folder: auth.workload_file(folder)),
        ("impersonated", lambda auth, folder: auth.workload_file(folder, impersonate=True)),
    ],
)
def test_googles_library_gets_tokens(google_auth, tmp_path, monkeypatch, holder, write):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(write(google_auth, tmp_path)))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "sample")
    credentials, _ = google.auth.default(SCOPES)
    credentials.refresh(google.auth.transport.requests.Request())
    assert google_auth.knows(f"Bearer {credentials.token}")
    assert google_auth.holders[-1] == holder


def test_googles_library_refuses_with_the_services_words(google_auth, tmp_path, monkeypatch):
    file = google_auth.service_account_file(tmp_path, forged=True)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    credentials, _ = google.auth.default(SCOPES)
    with pytest.raises(RefreshError, match="Invalid JWT Signature"):
        credentials.refresh(google.auth.transport.requests.Request())


def test_googles_library_finds_the_metadata_server(google_auth, monkeypatch):
    code = (
        "import google.auth, google.auth.transport.requests as transport\n"
        "credentials, project = google.auth.default()\n"
        "credentials.refresh(transport.Request())\n"
        "print(type(credentials).__module__, project, credentials.universe_domain, credentials.token)"
    )
    monkeypatch.setenv("GCE_METADATA_HOST", google_auth.metadata_host)
    monkeypatch.setenv("GCE_METADATA_IP", google_auth.metadata_host)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    module, project, universe, token = done.stdout.split()
    assert module.startswith("google.auth.compute_engine")
    assert (project, universe) == ("sample", "googleapis.com")
    assert google_auth.knows(f"Bearer {token}")


def test_the_server_is_gone_when_it_is_left():
    with GcsServer() as server:
        process = server._process
    assert process.poll() is not None


def test_googles_client_uploads_in_chunks(gcs_emulator, signed_in):
    gcs_emulator.make_bucket("models")
    content = PatternContent(length=1_200_000)
    blob = signed_in(gcs_emulator).bucket("models").blob("x", chunk_size=1 << 18)
    blob.upload_from_file(io.BytesIO(content.data()), checksum="crc32c")
    assert [exchange.status for exchange in gcs_emulator.log.select(route="upload")] == [200, 308, 308, 308, 308, 200]
    assert blob.download_as_bytes() == content.data()
