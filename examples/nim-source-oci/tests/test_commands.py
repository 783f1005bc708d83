"""The installed commands, as a user runs them."""

from __future__ import annotations

import base64
import json

import pytest
from real_registry import PASSWORD, USER

from nim_core.testing.corpus import Corpus, PatternContent
from nim_core.testing.faults import cut

LARGE = "model.safetensors"
ENGINE = "trtllm_engine/rank0.engine"


@pytest.fixture
def large():
    return Corpus(files={LARGE: PatternContent(length=40 << 20)})


def test_a_workspace_of_an_artifact(user, registry, corpus):
    registry.push("team/model", "v1", corpus.files)
    user.run("download-model", "--model-uri", f"oci://{registry.host}/team/model:v1", "--workspace-path", "workspace")
    assert corpus.differences(user.folder / "workspace") == ["not in the corpus: .nim-workspace"]


def test_one_file_by_digest(user, registry, corpus):
    digest = registry.push("team/model", "v1", corpus.files)
    user.download(f"oci://{registry.host}/team/model@{digest}/{ENGINE}")
    [snapshot] = user.folder.glob("cache/oci/hub/*/snapshots/*")
    assert snapshot.name == digest.replace(":", "-")
    assert Corpus(files={ENGINE: corpus.files[ENGINE]}).differences(snapshot) == []


def test_a_model_store_of_an_artifact(user, registry, corpus):
    registry.push("team/model", "v1", corpus.files)
    uri = f"oci://{registry.host}/team/model:v1"
    user.run("create-model-store", "--model-repo", uri, "--model-store", "store")
    found = {path for path in (user.folder / "store").rglob("*") if path.is_file()}
    assert {user.folder / "store" / path for path in corpus.files} <= found


def test_again_nothing_is_fetched_and_with_use_cache_nobody_is_asked(user, registry, corpus):
    registry.push("team/model", "v1", corpus.files)
    uri = f"oci://{registry.host}/team/model:v1"
    user.download(uri)
    assert "nothing to fetch" in user.download(uri)
    user.download(uri, "--use-cache", env={"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""})


def test_a_tag_that_moved_leads_to_another_snapshot(user, registry, corpus):
    first = registry.push("team/model", "v1", corpus.files)
    uri = f"oci://{registry.host}/team/model:v1"
    user.download(uri)
    second = registry.push("team/model", "v1", {ENGINE: corpus.files[ENGINE]})
    user.download(uri)
    [repository] = user.folder.glob("cache/oci/hub/*")
    snapshots = {path.name for path in (repository / "snapshots").iterdir()}
    assert snapshots == {first.replace(":", "-"), second.replace(":", "-")}
    assert (repository / "refs/v1").read_text() == second.replace(":", "-")


def test_a_download_that_was_cut_goes_on_where_it_stopped(user, redirecting_registry, storage, large):
    redirecting_registry.push("team/model", "v1", large.files)
    uri, env = f"oci://{redirecting_registry.host}/team/model:v1", redirecting_registry.variables()
    storage.faults.add(cut(3 << 20))
    user.download(uri, code=39, env={**env, "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1"})
    storage.faults.clear()
    storage.log.clear()
    user.download(uri, env=env)
    [snapshot] = user.folder.glob("cache/oci/hub/*/snapshots/*")
    assert large.differences(snapshot) == []
    assert 0 < sum(exchange.sent for exchange in storage.log) < large.size


def test_storage_elsewhere_never_sees_a_credential(user, redirecting_registry, storage, tokens, corpus):
    redirecting_registry.push("team/model", "v1", corpus.files)
    user.download(f"oci://{redirecting_registry.host}/team/model:v1", env=redirecting_registry.variables())
    assert storage.log.count(method="GET") >= len(corpus.files) - 1  # nothing is fetched of an empty file
    assert [exchange for exchange in storage.log if exchange.request.header("Authorization")] == []


def test_what_docker_login_stored(user, closed_registry, corpus):
    closed_registry.push("team/model", "v1", corpus.files)
    (user.folder / ".docker").mkdir()
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (user.folder / ".docker/config.json").write_text(json.dumps({"auths": {closed_registry.host: {"auth": auth}}}))
    user.download(f"oci://{closed_registry.host}/team/model:v1")


def test_a_wrong_password_says_where_it_came_from_and_not_what_it_is(user, token_registry, corpus):
    token_registry.push("team/model", "v1", corpus.files)
    said = user.download(
        f"oci://{token_registry.host}/team/model:v1", code=32, env=token_registry.variables("hunter2-hunter2")
    )
    assert "the credential from OCI_USERNAME and OCI_PASSWORD" in said
    assert "hunter2" not in said


def test_no_credential_says_how_to_give_one(user, closed_registry, corpus):
    closed_registry.push("team/model", "v1", corpus.files)
    said = user.download(f"oci://{closed_registry.host}/team/model:v1", code=32)
    assert "no credential was found" in said
    assert "docker login" in said


def test_a_missing_tag(user, registry, corpus):
    registry.push("team/model", "v1", corpus.files)
    said = user.download(f"oci://{registry.host}/team/model:v2", code=31)
    assert "MANIFEST_UNKNOWN" in said


def test_a_missing_file_names_those_there_are(user, registry, corpus):
    registry.push("team/model", "v1", {"config.json": corpus.files["config.json"]})
    assert "config.json" in user.download(f"oci://{registry.host}/team/model:v1/nothing.json", code=31)


def test_a_blob_that_rotted_in_the_registry_is_refused(user, redirecting_registry, storage, corpus):
    redirecting_registry.push("team/model", "v1", corpus.files)
    stored = redirecting_registry.blob_file(corpus.files[ENGINE])
    data = bytearray(stored.read_bytes())
    data[5] ^= 1
    stored.write_bytes(data)
    said = user.download(
        f"oci://{redirecting_registry.host}/team/model:v1", code=52, env=redirecting_registry.variables()
    )
    assert ENGINE in said


def test_a_uri_without_tag_is_refused_with_the_form(user):
    assert "NAME:TAG" in user.download("oci://127.0.0.1:1/team/model", code=11)
