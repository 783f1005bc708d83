"""Models without a manifest, from every kind of source, as a user names them in NIM_MODEL_PATH."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from nim_core.testing.corpus import Corpus, PatternContent, inline, sample_corpus
from nim_core.testing.gcs_server import GcsServer
from nim_core.testing.google_auth import GoogleAuth
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer
from nim_core.testing.modelscope_models import ModelScopeModel
from nim_core.testing.modelscope_server import ModelScopeServer
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer

pytest_plugins = ["nim_core.testing"]

CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 2048,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 8,
    "vocab_size": 1000,
}
FILES = {
    "config.json": inline(json.dumps(CONFIG)),
    **{path: file for path, file in sample_corpus(shard_size=3_000_000).files.items() if path != "config.json"},
}
SHARD = "model-00001-of-00002.safetensors"
LIST, PLAN, STORE, WORKSPACE = (
    ("list-model-profiles",),
    ("nim-llm", "plan"),
    ("create-model-store",),
    ("download-model",),
)
DISABLED = {"NIM_DISABLE_MODEL_DOWNLOAD": "1"}
RUNTIME = "nim_runtime_manifest.yaml"
IN_A_HURRY = {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "0"}


@contextmanager
def hub(files, folder):
    with HubServer([model := HubModel(files=files)]) as server:
        yield model.uri(), server.environment()


@contextmanager
def ngc(files, folder):
    with NgcServer([model := NgcModel(files=files)]) as server:
        yield model.uri(), server.environment()


@contextmanager
def modelscope(files, folder):
    with ModelScopeServer([model := ModelScopeModel(files=files)]) as server:
        yield model.uri(), server.environment()


@contextmanager
def gcs(files, folder):
    with GoogleAuth() as auth, GcsServer(auth=auth) as server:
        for path, content in files.items():
            server.put("models", f"llama/{path}", content)
        key = auth.service_account_file(folder)
        yield "gs://models/llama", {**server.environment(), "GOOGLE_APPLICATION_CREDENTIALS": str(key)}


@contextmanager
def local(files, folder):
    Corpus(files=files).write_to(folder / "model")
    yield str(folder / "model"), {}


SOURCES = {"hf": hub, "ngc": ngc, "modelscope": modelscope, "gcs": gcs, "local": local}
REMOTE = ["hf", "ngc", "modelscope", "gcs"]


@pytest.fixture
def named(machine):
    """Return a function that starts a source with a model, which NIM_MODEL_PATH names from then on."""
    with ExitStack() as stack:

        def start(kind, files=FILES):
            server = stack.enter_context(SOURCES[kind](files, machine.folder))
            machine.environment = {"NIM_MODEL_PATH": server[0], **server[1]}
            return server[0]

        yield start


def ids(ended):
    return re.findall(r"^ +- ([0-9a-f]{64}) ", ended.stdout.partition("SELECTION")[0], re.MULTILINE)


def paths(receipt):
    return {it["path"] for it in json.loads(Path(receipt).read_bytes())["files"]}


def sizes(folder):
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", SOURCES)
def test_profiles_are_listed_and_only_what_describes_the_model_is_fetched(machine, named, kind):
    named(kind)
    first = machine.run("--explain", command=LIST).check()
    assert len(ids(first)) == 12
    assert re.search(r"\(vllm-tp8-pp1-feat_lora-\d+\.\d\) \[requires >=\d+ GB/gpu\]", first.stdout)
    assert "SELECTION" in first.stdout
    names = {path.name for path in machine.cache.path.glob("*/*/*/snapshots/*/*")}
    assert names == (set() if kind == "local" else {"config.json", "model.safetensors.index.json"})
    assert (machine.cache.path / RUNTIME).is_file()
    assert machine.run("--explain", command=LIST).check().stdout == first.stdout


@pytest.mark.parametrize("kind", REMOTE)
def test_it_is_downloaded_whole_and_started_from_the_cache_alone(machine, named, kind, sockets):
    named(kind)
    profile, _, receipt = machine.run().check().stdout.strip().partition("\t")
    assert {*FILES} <= paths(receipt)
    ended = machine.run(
        "--workspace-path", machine.folder / "ws", command=WORKSPACE, env=DISABLED, within=sockets.within
    )
    assert ended.check().stdout.startswith(profile)
    assert sockets.lines == []
    found = sizes(machine.folder / "ws")
    assert {path: found[path] for path in FILES} == {path: file.size for path, file in FILES.items()}


@pytest.mark.parametrize("kind", REMOTE)
def test_when_its_source_cannot_be_reached_the_cache_will_do(machine, named, kind):
    with SOURCES[kind](FILES, machine.folder) as (uri, environment):
        machine.environment = {"NIM_MODEL_PATH": uri, **environment}
        listed = machine.run(command=LIST).check()
        downloaded = machine.run().check()
    again = machine.run(command=LIST).check()
    assert again.stdout == listed.stdout
    assert "manifest_reused" in again.stderr
    assert machine.run().check().stdout == downloaded.stdout


def test_without_source_and_cache_both_are_named(machine, named):
    with hub(FILES, machine.folder) as (uri, environment):
        pass
    machine.environment = {"NIM_MODEL_PATH": uri, **environment, **IN_A_HURRY}
    ended = machine.run(command=LIST)
    assert ended.code != 0
    assert environment["HF_ENDPOINT"].partition("://")[2] in ended.last
    assert f"the cache {machine.cache.path} has no manifest of {uri}" in ended.last
    ended = machine.run(command=LIST, env=DISABLED)
    assert ended.code == 64
    assert str(machine.cache.path) in ended.last


def test_a_model_that_was_downloaded_by_its_uri_needs_nobody_either(machine, named):
    uri = named("hf")
    listed = ids(machine.run(command=LIST).check())
    shutil.rmtree(machine.cache.path)
    machine.run("--model-uri", uri).check()
    assert ids(machine.run(command=LIST, env=DISABLED).check()) == listed
    assert machine.run(env=DISABLED).check().stdout[:64] in listed


def test_a_new_listing_refreshes_the_manifest_and_keeps_the_ids(machine):
    model = HubModel(files=FILES)
    with HubServer([model]) as server:
        machine.environment = {"NIM_MODEL_PATH": model.uri(), **server.environment()}
        before = ids(machine.run(command=LIST).check())
        server.add(HubModel(files={**FILES, "README.md": inline("new")}))
        assert ids(machine.run(command=LIST).check()) == before
        assert "README.md" in (machine.cache.path / RUNTIME).read_text(encoding="utf-8")


def test_two_models_share_a_cache(machine):
    models = [HubModel(files=FILES, repository=name) for name in ("org/one", "org/two")]
    with HubServer(models) as server:
        machine.environment = server.environment()
        listed = [ids(machine.run(command=LIST, env={"NIM_MODEL_PATH": it.uri()}).check()) for it in models]
    for model, expected in zip(models, listed, strict=True):
        ended = machine.run(command=LIST, env={"NIM_MODEL_PATH": model.uri(), **DISABLED}).check()
        assert ids(ended) == expected
    assert listed[0] != listed[1]


def test_a_plan_leaves_the_cache_as_it_is(machine, named):
    named("hf")
    ended = machine.run("--json", command=PLAN).check()
    assert len(json.loads(ended.stdout)["files"]) == len(FILES)
    assert not machine.cache.path.exists()


def test_the_override_is_for_manifests(machine, named):
    named("ngc")
    ended = machine.run(env={"NIM_REPOSITORY_OVERRIDE": "http://127.0.0.1:9/mirror"}).check()
    assert "is fetched from where it is" in ended.stderr


def test_a_manifest_that_is_named_wins(machine, named, serve):
    named("local")
    served = serve(NgcModel(files=FILES))
    listed = machine.run("-m", served.manifest, command=LIST).check()
    assert ids(listed) == [served.profile]
    assert ids(machine.run(command=LIST, env={"NIM_MANIFEST_PATH": str(served.manifest)}).check()) == [served.profile]


def test_the_path_wins_over_the_name(machine, named):
    uri = named("hf")
    elsewhere = {"NIM_MODEL_NAME": str(machine.cache.path)}
    listed = ids(machine.run(command=LIST, env=elsewhere).check())
    assert ids(machine.run(command=LIST, env={"NIM_MODEL_PATH": "", "NIM_MODEL_NAME": uri}).check()) == listed


def test_what_it_is_called_towards_clients(machine, named):
    uri = named("hf")
    record = json.loads(machine.run("--json", command=LIST).check().stdout)
    assert record["served_model_name"] == uri.partition("://")[2].partition(":")[0]
    record = json.loads(machine.run("--json", command=LIST, env={"NIM_SERVED_MODEL_NAME": "mine"}).check().stdout)
    assert record["served_model_name"] == "mine"


# ---------------------------------------------------------------------------------------------------------- the machine
def test_a_folder_is_used_from_where_it_is(machine, named, sockets):
    source = named("local")
    ws = machine.folder / "ws"
    machine.run("--workspace-path", ws, command=WORKSPACE, env=DISABLED, within=sockets.within).check()
    assert sockets.lines == []
    assert machine.cache.blobs == []
    assert str((ws / SHARD).readlink()) == f"{source}/{SHARD}"


def test_links_are_followed(machine, named):
    source = named("local")
    snapshot = machine.folder / "snapshot"
    snapshot.mkdir()
    for path in FILES:
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).symlink_to(f"{source}/{path}")
    machine.run(env={"NIM_MODEL_PATH": str(snapshot)}).check()


def test_a_cache_in_the_folder_is_no_part_of_the_model(machine, named):
    source = named("local")
    inside = {"NIM_CACHE_PATH": source}
    for _ in range(2):
        receipt = machine.run(env=inside).check().stdout.strip().partition("\t")[2]
        assert paths(receipt) == {*FILES}


@pytest.fixture
def store(machine, named):
    """A model store, which NIM_MODEL_PATH names."""
    named("hf")
    profile = ids(machine.run(command=LIST).check())[0]
    machine.run("-p", profile, "-m", machine.folder / "store", "--copy", command=STORE).check()
    machine.environment = {"NIM_MODEL_PATH": str(machine.folder / "store")}
    shutil.rmtree(machine.cache.path)
    return machine.folder / "store"


def test_a_store_is_verified(machine, store):
    machine.run().check()
    shutil.rmtree(machine.cache.path)
    with (store / SHARD).open("r+b") as file:
        file.write(b"changed")
    ended = machine.run()
    assert ended.code == 52
    assert SHARD in ended.last
    machine.run("--no-verify-checksums").check()


def test_a_store_that_lacks_a_file_is_no_model(machine, store):
    (store / SHARD).unlink()
    ended = machine.run(command=LIST)
    assert ended.code == 31
    assert SHARD in ended.last


# --------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("files", "code", "message"),
    [
        ({"README.md": inline("x")}, 31, "no weights of a model"),
        ({SHARD: PatternContent(length=10)}, 31, "Missing HuggingFace configuration file named config.json"),
        ({SHARD: PatternContent(length=10), "config.json": inline("[]")}, 30, "config.json of"),
        ({SHARD: PatternContent(length=10), "config.json": inline("{")}, 30, "cannot read config.json of"),
    ],
)
@pytest.mark.parametrize("kind", ["hf", "local"])
def test_what_is_no_model(machine, named, kind, files, code, message):
    uri = named(kind, files)
    ended = machine.run(command=LIST)
    assert ended.code == code
    assert message in ended.last
    assert uri in ended.last


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("hf://org/model?file=model.safetensors", 40, "names a single file"),
        ("models/llama", 11, "neither a model URI nor an absolute path: models/llama"),
        ("/nowhere", 31, "/nowhere"),
        ("nope://a/b", 24, "nope://"),
    ],
)
def test_what_names_no_model(machine, source, code, message):
    ended = machine.run(command=LIST, env={"NIM_MODEL_PATH": source})
    assert ended.code == code
    assert message in ended.last
