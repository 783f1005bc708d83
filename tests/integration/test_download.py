"""What a user sees of ``download-to-cache`` when all goes well, and when the cache has been meddled with."""

import json
import os
import re
import shutil
import socket
from importlib.metadata import version

import pytest
import yaml

from nim_core.testing.corpus import PatternContent, inline, sample_corpus
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.manifests import DEFAULT_TAGS, manifest_for, profile_id
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer
from nim_core.testing.ranged import serve_content

pytest_plugins = ["nim_core.testing"]

MODEL = NgcModel(files=sample_corpus(shard_size=3_000_000).files)
SMALL = NgcModel(files={"config.json": inline("{}\n"), "weights.bin": PatternContent(length=70_000)})
SHARD = "model-00001-of-00002.safetensors"
KEYS = {"nvapi": NgcServer.nvapi_key, "legacy": NgcServer.legacy_key}


@pytest.fixture(scope="module")
def filled(new_machine):
    """A machine whose cache has the model, to be copied; its manifest is ``manifest.yaml``."""
    machine = new_machine()
    manifest = machine.folder / "manifest.yaml"
    manifest.write_text(manifest_for(MODEL))
    with NgcServer([MODEL]) as server:
        machine.run("--manifest-file", manifest, env=server.environment()).check()
    return machine


@pytest.fixture
def has_model(machine, filled):
    """A machine whose cache has the model, and a manifest; no server, no key."""
    filled.cache.copied_to(machine.cache.path, "-a")
    manifest = machine.folder / "manifest.yaml"
    shutil.copy(filled.folder / "manifest.yaml", manifest)
    return machine, manifest


# ------------------------------------------------------------------------------------------------------ the first time
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_a_profile_arrives_whole_and_verified(key, machine, serve):
    served = serve(MODEL, page_size=2)
    machine.environment = served.server.environment(key)
    debug = {"NIM_LOG_LEVEL": "DEBUG"}
    ended = machine.run("--manifest-file", served.manifest, "--profiles", served.profile, env=debug).check()

    assert machine.cache.differences(MODEL) == []
    for name in MODEL.files:
        link = machine.cache.link(MODEL, name)
        assert not link.readlink().is_absolute()
        assert link.resolve() == machine.cache.blob(MODEL, name).resolve(strict=True)
    assert len(machine.cache.blobs) == len({content.digest("blake3") for content in MODEL.files.values()})
    assert machine.cache.leftovers == []
    assert all(sent == 1 for sent in served.bodies.values())

    receipt = machine.cache.receipts[served.profile]
    assert ended.stdout == f"{served.profile}\t{machine.cache.path}/receipts/{served.profile}.json\n"
    assert receipt["label"] == "vllm-bf16-tp1-pp1"
    assert receipt["plugins"] == {"nim-source-ngc": version("nim-source-ngc")}
    files = {file["path"]: file for file in receipt["files"]}
    assert files.keys() == MODEL.files.keys()
    for name, content in MODEL.files.items():
        assert files[name]["uri"] == MODEL.uri(name)
        assert files[name]["size"] == content.size
        assert files[name]["host"] == "127.0.0.1"
        assert machine.cache.path / files[name]["link"] == machine.cache.link(MODEL, name)
        assert machine.cache.path / files[name]["blob"] == machine.cache.blob(MODEL, name)
        assert "blake3" in files[name]["digests"]
        for algorithm, value in files[name]["digests"].items():
            assert value == content.digest(algorithm).value

    texts = [ended.said, *(path.read_text() for path in machine.cache.path.glob("receipts/*"))]
    secrets = re.compile("|".join([*map(re.escape, KEYS.values()), "Signature=[0-9a-f]", "Bearer [^*]"]))
    assert [found for text in texts for found in secrets.findall(text)] == []


def test_the_key_of_an_outsider_reaches_the_api_and_nothing_else(machine, serve):
    """It gets neither sizes nor presigned URLs: digests come from a file, and the API redirects to the storage."""
    served = serve(SMALL)
    for route in ("listing", "manifest"):
        served.server.refuse(401, route=route)
    machine.environment = served.server.environment()
    machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(SMALL) == []
    headers = {
        origin: {exchange.request.header("Authorization") for exchange in served.server.log.select(origin=origin)}
        for origin in ("api", "storage")
    }
    assert headers == {"api": {f"Bearer {NgcServer.nvapi_key}"}, "storage": {None}}


def test_a_model_open_to_guests_needs_no_key(machine, serve):
    served = serve(NgcModel(files=SMALL.files, guest=True))
    machine.environment = served.server.environment(key=None)
    machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(SMALL) == []


def test_profiles_that_share_files_fetch_each_once(machine, serve):
    other = NgcModel(files={"config.json": inline('{"other": 1}\n')}, version="hf-2.0")
    served = serve(SMALL, other, tags=(DEFAULT_TAGS, {**DEFAULT_TAGS, "tp": "2"}))
    machine.environment = served.server.environment()
    ended = machine.run("--manifest-file", served.manifest, "--all", "--json").check()
    assert set(served.bodies.values()) == {1}
    assert len(served.bodies) == len(SMALL.files) + len(other.files)
    assert machine.cache.differences(SMALL) == machine.cache.differences(other) == []
    result = json.loads(ended.stdout)
    ids = [profile_id(model, tags) for model in (SMALL, other) for tags in (DEFAULT_TAGS, {**DEFAULT_TAGS, "tp": "2"})]
    assert {item["id"] for item in result["targets"]} == set(ids) == machine.cache.receipts.keys()
    assert result["bytes_fetched"] == sum(content.size for model in (SMALL, other) for content in model.files.values())


@pytest.mark.parametrize("name", ["model_manifest.yaml", "model_manifest.json"])
def test_a_model_uri_leaves_a_manifest_that_works_offline(name, machine, serve, sockets):
    served = serve(SMALL)
    listed = NgcModel(files=SMALL.served_files)
    model, manifest = ("--model-uri", SMALL.uri()), ("--manifest-file", machine.folder / name)
    machine.run(*model, *manifest, env=served.server.environment()).check()
    assert machine.cache.differences(listed) == []

    is_json = name.endswith("json")
    [profile] = (json.loads if is_json else yaml.safe_load)(manifest[1].read_text())["profiles"]
    assert {path: entry["checksum"] for path, entry in profile["workspace"]["files"].items()} == {
        path: str(content.digest("blake3")) for path, content in listed.files.items()
    }

    again = manifest if is_json else (*model, *manifest)
    ended = machine.run(*again, "--use-cache", within=sockets.within).check()
    assert sockets.lines == []
    assert ended.stdout.startswith(f"{profile['id']}\t")
    assert f"{len(listed.files)} files, 0 fetched" in ended.stderr
    assert profile["id"] in machine.cache.receipts


def test_a_model_uri_without_a_version_gets_the_latest(machine, serve):
    newer = NgcModel(files={"config.json": inline('{"newer": true}\n')}, version="hf-2.0")
    served = serve(SMALL, newer)
    machine.environment = served.server.environment()
    machine.run("--model-uri", "ngc://nim/meta/sample-llm").check()
    assert (machine.cache.snapshot(newer) / "config.json").read_bytes() == newer.files["config.json"].data()
    assert not machine.cache.snapshot(SMALL).exists()


# -------------------------------------------------------------------------------------------------------- once more
def test_a_second_run_asks_the_source_and_fetches_nothing(has_model, serve):
    machine, manifest = has_model
    served = serve(MODEL)
    machine.environment = served.server.environment()
    before = contents(machine.cache)
    machine.run("--manifest-file", manifest).check()
    assert served.server.log.count(route="listing") == 1
    assert served.bodies == {}
    assert contents(machine.cache) == before


def contents(cache):
    """Name, inode and time of last change of all files: what was written anew shows."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in cache.visible}


def flip_a_byte(cache, name):
    """Damage a blob as a disk does: neither size nor times show it."""
    blob = cache.blob(MODEL, name)
    before = blob.stat()
    with blob.open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 0xFF]))
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(cache, name):
    os.truncate(cache.blob(MODEL, name), 10)


def delete_blob(cache, name):
    cache.blob(MODEL, name).unlink()


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, delete_blob])
def test_only_the_damaged_file_is_fetched_again(damage, has_model, serve):
    machine, manifest = has_model
    served = serve(MODEL)
    machine.environment = served.server.environment()
    damage(machine.cache, SHARD)
    assert machine.cache.differences(MODEL) != []
    machine.run("--manifest-file", manifest).check()
    assert served.bodies == {MODEL.storage_path(SHARD): 1}
    assert machine.cache.differences(MODEL) == []
    assert machine.cache.leftovers == []


def test_a_deleted_link_is_made_again_without_fetching(has_model, serve):
    machine, manifest = has_model
    served = serve(MODEL)
    machine.environment = served.server.environment()
    machine.cache.link(MODEL, "trtllm_engine/rank0.engine").unlink()
    machine.cache.link(MODEL, "trtllm_engine/rank0.engine").parent.rmdir()
    machine.run("--manifest-file", manifest).check()
    assert served.bodies == {}
    assert machine.cache.differences(MODEL) == []
    assert machine.cache.link(MODEL, "trtllm_engine/rank0.engine").is_symlink()


def test_force_fetches_everything_again(has_model, serve):
    machine, manifest = has_model
    served = serve(MODEL)
    machine.environment = served.server.environment()
    machine.run("--manifest-file", manifest, "--force", "--use-cache").check()
    assert served.bodies == {MODEL.storage_path(name): 1 for name, content in MODEL.files.items() if content.size}
    assert machine.cache.differences(MODEL) == []


def test_use_cache_fetches_what_is_missing(has_model, serve):
    machine, manifest = has_model
    served = serve(MODEL)
    machine.environment = served.server.environment()
    delete_blob(machine.cache, SHARD)
    machine.run("--manifest-file", manifest, "--use-cache").check()
    assert served.bodies == {MODEL.storage_path(SHARD): 1}
    assert machine.cache.differences(MODEL) == []


# -------------------------------------------------------------------------------------------------------- no network
@pytest.mark.parametrize("options", ["-a", "-r --no-dereference", "-rL"])
def test_a_copied_cache_works_without_network_or_key(options, filled, machine, sockets):
    """``cp -a`` keeps times of change, ``cp -r`` does not, ``cp -rL`` makes files of links."""
    filled.cache.copied_to(machine.cache.path, *options.split())
    arguments = ("--manifest-file", filled.folder / "manifest.yaml", "--use-cache")
    ended = machine.run(*arguments, within=sockets.within).check()
    assert sockets.lines == []
    assert "0 fetched" in ended.stderr
    assert machine.cache.differences(MODEL) == []


def test_a_read_only_cache_works_without_network_or_key(filled, machine, mount, sockets):
    mount(machine.cache.path, "--bind", "-o", "ro", filled.cache.path)
    machine.run("--manifest-file", filled.folder / "manifest.yaml", "--use-cache", within=sockets.within).check()
    assert sockets.lines == []


def test_verify_needs_no_network_where_all_is_right(has_model, sockets):
    machine, manifest = has_model
    ended = machine.run("--manifest-file", manifest, "--verify", within=sockets.within).check()
    assert sockets.lines == []
    assert "0 fetched" in ended.stderr


def test_verify_finds_what_neither_size_nor_time_shows_and_mends_it(has_model, serve):
    machine, manifest = has_model
    served = serve(MODEL)
    machine.environment = served.server.environment()
    flip_a_byte(machine.cache, SHARD)
    machine.run("--manifest-file", manifest, "--use-cache").check()
    assert machine.cache.differences(MODEL) != []
    ended = machine.run("--manifest-file", manifest, "--verify", "--json").check()
    assert json.loads(ended.stdout)["damaged"] == [SHARD]
    assert served.bodies == {MODEL.storage_path(SHARD): 1}
    assert machine.cache.differences(MODEL) == []
    assert f"file={SHARD}" in next(line for line in ended.stderr.splitlines() if "damaged" in line)


def test_verify_lists_what_is_damaged_in_a_cache_that_cannot_be_written(has_model, mount, sockets):
    machine, manifest = has_model
    for name in (SHARD, "config.json"):
        flip_a_byte(machine.cache, name)
    mount(machine.cache.path, "--bind", "-o", "ro", machine.cache.path)
    ended = machine.run("--manifest-file", manifest, "--verify", within=sockets.within)
    assert ended.code == 52
    assert "2 damaged files in the cache, cannot be removed: read-only file system" in ended.last
    assert {line.partition(":")[0].strip() for line in ended.stderr.splitlines()[-3:-1]} == {SHARD, "config.json"}
    assert sockets.lines == []
    assert machine.cache.link(MODEL, SHARD).exists()


def test_another_users_cache_works_without_network_or_key(filled, shared_machine, other_user, sockets):
    machine = shared_machine
    machine.folder.joinpath("home").rmdir()  # as in containers started with any user id
    filled.cache.copied_to(machine.cache.path, "-a")
    manifest = machine.folder / "manifest.yaml"
    shutil.copy(filled.folder / "manifest.yaml", manifest)
    ended = machine.run("--manifest-file", manifest, "--use-cache", within=[*sockets.within, *other_user]).check()
    assert sockets.lines == []
    assert ended.stdout.startswith(profile_id(MODEL))


def test_use_cache_without_the_model_and_without_network_says_so(machine, filled):
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"http://127.0.0.1:{server.getsockname()[1]}"
    machine.environment = {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "0", "NGC_API_ENDPOINT": nobody}
    ended = machine.run("--manifest-file", filled.folder / "manifest.yaml", "--use-cache")
    assert ended.code == 39
    assert nobody in ended.last


# ---------------------------------------------------------------------------------------------- how it may be written
SPELLINGS = {
    "prefixes": "--profile {id} --manifest {manifest}",
    "short, by name": "-p vllm-bf16-tp1-pp1 --manifest-file={manifest}",
}


@pytest.mark.parametrize("line", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_spellings(line, has_model):
    machine, manifest = has_model
    arguments = line.format(id=profile_id(MODEL), manifest=manifest).split()
    ended = machine.run(*arguments, "--use-cache").check()
    assert ended.stdout.startswith(profile_id(MODEL))


def test_several_profiles_after_one_option(machine, serve):
    tags = tuple({**DEFAULT_TAGS, "tp": size} for size in ("1", "2", "4"))
    served = serve(SMALL, tags=tags)
    machine.environment = served.server.environment()
    ids = [profile_id(SMALL, entry) for entry in tags]
    machine.run("--profiles", ids[0], "vllm-bf16-tp4-pp1", "--manifest-file", served.manifest).check()
    assert machine.cache.receipts.keys() == {ids[0], ids[2]}


def test_everything_from_the_environment_as_the_operator_does(has_model):
    machine, manifest = has_model
    variables = {"NIM_MANIFEST_PATH": str(manifest), "NIM_MODEL_PROFILE": profile_id(MODEL)}
    ended = machine.run("--use-cache", command=("nim-llm", "download-to-cache"), env=variables).check()
    assert ended.stdout.startswith(profile_id(MODEL))


@pytest.mark.parametrize(
    "arguments",
    ["--all --lora", "--all --profiles x", "--lora -p x", "--model-uri ngc://a/b:c --all", "--model-uri", "--no-such"],
)
def test_options_that_make_no_sense_end_with_2(arguments, machine):
    ended = machine.run(*arguments.split())
    assert ended.code == 2
    assert ended.stdout == ""
    assert ended.last.startswith("error: ")
    assert arguments.split()[0] in ended.last
    assert "download-to-cache --help" in ended.last
    assert not machine.cache.path.exists()


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_shows_every_option(option, machine):
    ended = machine.run(option).check()
    for name in (
        "--all",
        "--profiles",
        "--lora",
        "--model-uri",
        "--manifest-file",
        "--model-cache-path",
        "--use-cache",
    ):
        assert name in ended.stdout
    assert ended.stderr == ""


def test_an_unknown_profile_is_named_beside_those_there_are(machine, serve):
    tags = tuple({**DEFAULT_TAGS, "tp": size} for size in ("4", "2"))
    served = serve(SMALL, tags=tags)
    ended = machine.run("--manifest-file", served.manifest, "--profiles", "default", "nonsense")
    assert ended.code == 13
    assert "Unknown profiles provided: default, nonsense" in ended.last
    lines = [line.split() for line in ended.stderr.splitlines() if line.startswith("  ")]
    assert lines == [
        [profile_id(SMALL, tags[1]), "vllm-bf16-tp2-pp1"],
        [profile_id(SMALL, tags[0]), "vllm-bf16-tp4-pp1"],
    ]
    assert len(served.server.log) == 0


def test_no_profile_given_and_several_there(machine, serve):
    served = serve(SMALL, NgcModel(files=SMALL.files, name="another-llm"))
    ended = machine.run("--manifest-file", served.manifest, env={"CUDA_VISIBLE_DEVICES": "none"})
    assert ended.code == 13
    assert "no profile given, and there are 2 to choose from" in ended.last
    for way_out in ("--profiles", "NIM_MODEL_PROFILE", "--all"):
        assert way_out in ended.last
    assert profile_id(served.models[1]) in ended.stderr


def test_no_profile_given_and_all_have_the_same_files(machine, serve):
    tags = tuple({**DEFAULT_TAGS, "tp": size} for size in ("1", "2"))
    served = serve(SMALL, tags=tags)
    env = {"CUDA_VISIBLE_DEVICES": "none", **served.server.environment()}
    ended = machine.run("--manifest-file", served.manifest, env=env).check()
    assert ended.stdout.startswith(profile_id(SMALL, tags[0]))
    assert "taking the first" in ended.stderr


def test_no_manifest_anywhere(machine):
    ended = machine.run()
    assert ended.code == 12
    assert "--manifest-file" in ended.last
    assert "NIM_MANIFEST_PATH" in ended.last


def test_of_many_files_with_digests_each_is_asked_for_once(machine):
    """No request learns what a manifest promises or the answer that brings the file tells."""
    files = {f"f{number:03}.bin": inline(f"content {number}") for number in range(600)}
    log = RequestLog()

    def answer(request):
        return "file", serve_content(request, files[request.target[1:]], etag=f'"{request.target}"')

    with HttpOrigin("origin", answer, log=log) as origin:
        entries = {
            name: {"uri": f"{origin.url}/{name}", "checksum": str(content.digest("blake3"))}
            for name, content in files.items()
        }
        profile = {"id": "a" * 64, "tags": {}, "workspace": {"files": entries}}
        manifest = machine.folder / "manifest.json"
        manifest.write_text(json.dumps({"schema_version": "2.0.0", "profiles": [profile]}))
        machine.run("--manifest-file", manifest).check()
    asked = sorted((exchange.request.method, exchange.request.target) for exchange in log)
    assert asked == [("GET", f"/{name}") for name in files]
    (receipt,) = machine.cache.receipts.values()
    assert [file["size"] for file in receipt["files"]] == [content.size for content in files.values()]
