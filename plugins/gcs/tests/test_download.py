"""Whole downloads by the installed program: this machine's credentials, expiry on the way, wrong content."""

from __future__ import annotations

import gzip

import pytest
from attrs import evolve

from nim_core.testing.corpus import PatternContent, inline, with_flipped_byte
from nim_core.testing.faults import answer_with
from nim_core.testing.gcs_server import GcsServer, api_refusal
from nim_core.testing.http_server import Response

LARGE = PatternContent(length=40_000_000)


def data(files):
    return {path: content.data() for path, content in files.items()}


def metadata(google_auth):
    return {"GCE_METADATA_HOST": google_auth.metadata_host}


def test_a_model_by_a_service_account(download, model, files, key_file, google_auth):
    ended = download("gs://models/llama/", model.environment(), key_file)
    assert ended.code == 0, ended.said
    assert ended.files == data(files)
    assert google_auth.holders == ["service account"]
    assert [exchange.route for exchange in model.log if exchange.route != "media"] == ["list"]


def test_a_second_run_fetches_nothing(download, model, files, key_file):
    download("gs://models/llama/", model.environment(), key_file)
    model.log.clear()
    ended = download("gs://models/llama/", model.environment(), key_file)
    assert (ended.code, ended.files) == (0, data(files))
    assert model.log.count(route="media") == 0


def test_a_machine_signs_in_by_its_metadata_server(download, model, files, google_auth):
    ended = download("gs://models/llama", model.environment(), metadata(google_auth))
    assert ended.code == 0, ended.said
    assert ended.files == data(files)
    assert google_auth.holders == ["machine"]
    assert {exchange.request.header("Metadata-Flavor") for exchange in google_auth.log} == {"Google"}


def test_a_metadata_server_is_found_without_being_named_as_googles_library_does(download, gcs_server, google_auth):
    gcs_server.put("models", "x", inline("x"))
    environment = {"GCE_METADATA_IP": google_auth.metadata_host, "GCE_METADATA_ROOT": google_auth.metadata_host}
    ended = download("gs://models/x", gcs_server.environment(), environment)
    assert (ended.code, google_auth.holders) == (0, ["machine"]), ended.said


def test_a_machine_without_an_account(download, model, google_auth):
    google_auth.faults.add(answer_with(api_refusal(404)), path="*/service-accounts/*")
    ended = download("gs://models/llama/", model.environment(), metadata(google_auth))
    assert ended.code == 32, ended.said
    assert "no token for the credentials from the metadata server" in ended.said
    assert "give this machine or workload a service account" in ended.said


def test_no_credentials_at_all(download, model):
    ended = download("gs://models/llama/", model.environment(), {"NO_GCE_CHECK": "true"})
    assert ended.code == 32, ended.said
    assert "none were found" in ended.said


def test_a_token_that_expires_on_the_way(download, gcs_server, key_file, google_auth):
    gcs_server.put("models", "large.bin", LARGE)
    gcs_server.faults.add(lambda _: _expired(google_auth), route="media", times=1)
    ended = download("gs://models/large.bin", gcs_server.environment(), key_file)
    assert ended.code == 0, ended.said
    assert ended.files == {"large.bin": LARGE.data()}
    assert google_auth.holders == ["service account"] * 2
    assert gcs_server.log.count(route="object") == 2


def _expired(google_auth):
    google_auth.expire_tokens()
    return api_refusal(401, "Invalid Credentials")


def test_access_that_is_withdrawn_on_the_way(download, gcs_server, key_file):
    gcs_server.put("models", "large.bin", LARGE)
    gcs_server.refuse(403, route="media")
    ended = download("gs://models/large.bin", gcs_server.environment(), key_file)
    assert ended.code == 33, ended.said


def test_an_object_that_is_deleted_on_the_way(download, gcs_server, key_file):
    gcs_server.put("models", "large.bin", LARGE)

    def deleted(_):
        gcs_server.delete("models", "large.bin")
        return api_refusal(404)

    gcs_server.faults.add(deleted, route="media", times=1)
    ended = download("gs://models/large.bin", gcs_server.environment(), key_file)
    assert ended.code == 53, ended.said
    assert "deleted or replaced while it was being fetched: gs://models/large.bin" in ended.said


@pytest.mark.parametrize("composed", [False, True])
def test_wrong_bytes_are_never_published(download, gcs_server, key_file, composed):
    if composed:
        gcs_server.compose("models", "x.bin", [LARGE.read(0, 100_000), LARGE.read(100_000, 300_000)])
    else:
        gcs_server.put("models", "x.bin", PatternContent(length=300_000))
    gcs_server.faults.add(lambda answer: evolve(answer, body=with_flipped_byte(answer.body, 7)), route="media")
    ended = download("gs://models/x.bin", gcs_server.environment(), key_file)
    assert ended.code == 52, ended.said
    assert list(ended.cache.glob("**/blobs/*")) == []


def test_what_is_stored_compressed_comes_unpacked(download, gcs_server, key_file):

    gcs_server.put("models", "x.json", inline(gzip.compress(b'{"a": 1}')), encoding="gzip")
    ended = download("gs://models/x.json", gcs_server.environment(), key_file)
    assert ended.code == 0, ended.said
    assert ended.files == {"x.json": b'{"a": 1}'}


def test_an_emulator(download, files):
    with GcsServer() as server:
        for path, content in files.items():
            server.put("models", f"llama/{path}", content)
        ended = download("gs://models/llama/", {"STORAGE_EMULATOR_HOST": server.url})
    assert (ended.code, ended.files) == (0, data(files)), ended.said


def test_a_private_authority(download, files, google_auth, certificates, key_file):
    with GcsServer(auth=google_auth, certificates=certificates) as server:
        server.put("models", "x", inline("x"))
        trusted = {"SSL_CERT_FILE": str(certificates.ca)}
        ended = download("gs://models/x", server.environment(), key_file)
        assert ended.code == 30, ended.said
        assert "certificate not trusted" in ended.said
        ended = download("gs://models/x", server.environment(), key_file, trusted)
    assert (ended.code, ended.files) == (0, {"x": b"x"}), ended.said


def test_nothing_secret_is_written(download, model, key_file, google_auth):
    ended = download("gs://models/llama/", model.environment(), key_file, {"NIM_LOG_LEVEL": "DEBUG"})
    written = ended.said + "".join(file.read_text() for file in ended.cache.glob("receipts/*"))
    assert ended.code == 0, ended.said
    assert [token for token in google_auth.tokens if token in written] == []
    assert "PRIVATE KEY" not in written


@pytest.mark.parametrize("failure", [Response(raw=b""), api_refusal(503)], ids=["cut", "status"])
def test_a_token_service_that_fails_for_a_moment(download, gcs_server, key_file, google_auth, failure):
    gcs_server.put("models", "large.bin", LARGE)

    def expired(_):
        google_auth.faults.add(answer_with(failure), route="token", times=1)
        return _expired(google_auth)

    google_auth.faults.add(answer_with(failure), route="token", times=1)
    gcs_server.faults.add(expired, route="media", times=1)
    ended = download("gs://models/large.bin", gcs_server.environment(), key_file)
    assert ended.code == 0, ended.said
    assert ended.files == {"large.bin": LARGE.data()}
    assert google_auth.log.count(route="token") == 4
