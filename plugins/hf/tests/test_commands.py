"""The installed commands, as a user runs them."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from nim_core.testing.corpus import Corpus, inline, with_flipped_byte
from nim_core.testing.faults import answer_with
from nim_core.testing.http_server import Response
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer

LARGE = "model-00001-of-00002.safetensors"


@pytest.fixture
def model(corpus):
    """The model of the ``hub_server`` fixture."""
    return HubModel(files=corpus.files)


def snapshot(user, model, root="cache/huggingface/hub"):
    return user.folder / root / "models--acme--sample-llm" / "snapshots" / model.commit


def test_whole_repository(user, hub_server, model):
    user.download("hf://acme/sample-llm")
    assert Corpus(files=model.files).differences(snapshot(user, model)) == []
    repo = snapshot(user, model).parents[1]
    assert {blob.name for blob in (repo / "blobs").iterdir()} == {model.etag(path) for path in model.files}
    assert (repo / "refs/main").read_text() == model.commit
    [receipt] = user.cache.glob("receipts/*.json")
    digests = {file["path"]: file["digests"] for file in json.loads(receipt.read_text())["files"]}
    assert digests[LARGE]["sha256"] == model.etag(LARGE)
    assert digests["config.json"]["sha1-git"] == model.etag("config.json")


def test_one_file(user, model):
    user.download(f"hf://acme/sample-llm:{model.commit}?file=trtllm_engine/rank0.engine")
    wanted = {"trtllm_engine/rank0.engine": model.files["trtllm_engine/rank0.engine"]}
    assert Corpus(files=wanted).differences(snapshot(user, model)) == []


def test_a_manifest_with_a_file_of_the_hub(user, model):
    manifest = user.folder / "model.yaml"
    user.download("hf://acme/sample-llm", "--manifest-file", str(manifest))
    user.run(
        "download-to-cache", "--manifest-file", str(manifest), "--use-cache", env={"HF_ENDPOINT": "http://[::1]:9"}
    )


def test_again_nothing_is_fetched_and_with_use_cache_nobody_is_asked(user, hub_server):
    user.download("hf://acme/sample-llm")
    hub_server.log.clear()
    assert "nothing to fetch" in user.download("hf://acme/sample-llm")
    assert hub_server.log.count(route="resolve") == 0
    hub_server.log.clear()
    user.download("hf://acme/sample-llm", "--use-cache", env={"HF_HUB_OFFLINE": "1"})
    assert len(hub_server.log) == 0


def test_a_branch_that_moved(user, hub_server, model):
    user.download("hf://acme/sample-llm")
    newer = evolve(model, files={**model.files, "config.json": inline("{}\n")})
    hub_server.add(newer)
    hub_server.log.clear()
    user.download("hf://acme/sample-llm")
    assert Corpus(files=newer.files).differences(snapshot(user, newer)) == []
    fetched = [exchange.request.path for exchange in hub_server.log.select(route="resolve")]
    assert fetched == [f"/acme/sample-llm/resolve/{newer.commit}/config.json"]


@pytest.mark.parametrize(
    ("variables", "root"),
    [({"HF_HOME": "hf"}, "hf/hub"), ({"HF_HOME": "hf", "HF_HUB_CACHE": "elsewhere"}, "elsewhere")],
)
def test_the_cache_of_the_variables(user, model, variables, root):
    said = user.download(
        "hf://acme/sample-llm", env={name: str(user.folder / text) for name, text in variables.items()}
    )
    assert f"files are in {user.folder / root}, where a variable of their source puts them, not in {user.cache}" in said
    assert Corpus(files=model.files).differences(snapshot(user, model, root)) == []


def test_offline_without_a_complete_download(user, hub_server):
    said = user.download("hf://acme/sample-llm", code=64, env={"HF_HUB_OFFLINE": "1"})
    assert "HF_HUB_OFFLINE is set" in said.splitlines()[-1]
    assert len(hub_server.log) == 0


def test_some_files(user, hub_server, model):
    chosen = ("--include", "*.json", "trtllm_engine/", "--exclude", "tokenizer*")
    user.download("hf://acme/sample-llm", *chosen)
    names = ("config.json", "model.safetensors.index.json", "trtllm_engine/rank0.engine")
    assert Corpus(files={name: model.files[name] for name in names}).differences(snapshot(user, model)) == []
    hub_server.log.clear()
    user.download("hf://acme/sample-llm", *chosen, "--use-cache")
    assert len(hub_server.log) == 0
    user.download("hf://acme/sample-llm", "--use-cache")
    assert Corpus(files=model.files).differences(snapshot(user, model)) == []
    assert "--include *.gguf" in user.download("hf://acme/sample-llm", "--include", "*.gguf", code=31)


@pytest.mark.parametrize("path", [LARGE, "config.json"])
def test_wrong_content(user, hub_server, model, path):
    wrong = with_flipped_byte(model.files[path], 50)
    if model.is_large(path):
        hub_server.storage.flip(model.storage_path(path), 50)
    else:
        hub_server.faults.add(answer_with(Response(body=wrong)), route="file", path=f"*/{path}")
    said = user.download("hf://acme/sample-llm", code=52)
    algorithm = "sha256" if model.is_large(path) else "sha1-git"
    assert f"expected {algorithm}:{model.etag(path)}" in said.splitlines()[-1]
    assert not (snapshot(user, model) / path).exists()


def test_tls_with_a_private_authority(user, corpus, certificates):
    with HubServer([HubModel(files=corpus.files)], certificates=certificates) as server:
        user.download("hf://acme/sample-llm", env={**server.environment(), "SSL_CERT_FILE": str(certificates.ca)})
        said = user.download("hf://acme/sample-llm", "--force", code=30, env=server.environment())
    assert "SSL_CERT_FILE" in said.splitlines()[-1]


def test_only_xet_can_serve_it(user, corpus):
    model = HubModel(files=corpus.files, xet_only=frozenset({LARGE}))
    with HubServer([model]) as server:
        said = user.download("hf://acme/sample-llm", code=40, env=server.environment())
        assert server.log.count(origin="xet") == 0
    assert f"only Xet storage has acme/sample-llm:main?file={LARGE}" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("facts", "who", "code", "words"),
    [
        ({"gated": True}, "stranger", 33, "is gated and the token from HF_TOKEN has no access"),
        ({"gated": True}, "nobody", 32, "is gated and nobody is signed in"),
        ({"private": True}, "stranger", 31, "no such model, or a private one"),
        ({"private": True}, "nobody", 31, "no such model, or a private one"),
        ({"disabled": True}, "member", 33, "has been disabled"),
    ],
)
def test_no_access(user, corpus, facts, who, code, words):
    with HubServer([HubModel(files=corpus.files, **facts)]) as server:
        token = {"member": server.token, "stranger": server.strangers_token, "nobody": ""}[who]
        environment = {**server.environment(), "HF_TOKEN": token}
        last = user.download("hf://acme/sample-llm", code=code, env=environment).splitlines()[-1]
        assert words in last
        assert "https://huggingface.co/acme/sample-llm" in last
        assert not token or token not in last


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("hf://acme/nothing", 31),
        ("hf://acme/sample-llm:v9", 31),
        ("hf://acme/sample-llm?file=no", 31),
        ("hf://a/b/c", 11),
    ],
)
def test_not_there(user, uri, code):
    user.download(uri, code=code)


def test_the_stored_token(user, hub_server, model):
    (user.folder / "hf").mkdir()
    (user.folder / "hf/token").write_text(hub_server.token)
    user.download("hf://acme/sample-llm", env={"HF_TOKEN": "", "HF_HOME": str(user.folder / "hf")})
    asked = {exchange.request.header("Authorization") for exchange in hub_server.log.select(origin="hub")}
    assert f"Bearer {hub_server.token}" in asked
