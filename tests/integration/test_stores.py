"""Workspaces, model stores, and starts without downloads: as a user, or an operator of a cluster, runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nim_core.testing.corpus import Corpus, sample_corpus
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HUB_TOKEN, HubServer
from nim_core.testing.manifests import manifest_for, profile_id
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer

pytest_plugins = ["nim_core.testing"]

FILES = sample_corpus(shard_size=6_000_000).files
MODEL = NgcModel(files=FILES)
HUB = HubModel(files=FILES)
SHARD = "model-00001-of-00002.safetensors"
STORE, WORKSPACE = ("create-model-store",), ("download-model",)
DISABLED = {"NIM_DISABLE_MODEL_DOWNLOAD": "1"}


@pytest.fixture(scope="module")
def filled(new_machine):
    """A machine whose cache has the model; its manifest is ``manifest.yaml``."""
    machine = new_machine()
    manifest = machine.folder / "manifest.yaml"
    manifest.write_text(manifest_for(MODEL))
    with NgcServer([MODEL]) as server:
        machine.run("--manifest-file", manifest, env=server.environment()).check()
    return machine


@pytest.fixture
def manifest(filled):
    return filled.folder / "manifest.yaml"


@pytest.fixture
def has_model(machine, filled):
    """A machine whose cache has the model; no server, no key."""
    filled.cache.copied_to(machine.cache.path, "-a")
    return machine


def differences(folder):
    ours = ("not in the corpus: checksums.blake3", "not in the corpus: .nim-workspace")
    return [line for line in Corpus(files=FILES).differences(folder) if line not in ours]


def identity(path):
    stat = path.lstat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def offline(*more):
    """Return what runs a command in a network namespace without a route."""
    done = subprocess.run(["unshare", "-rn", "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    return ("unshare", "-rn", *more)


# -------------------------------------------------------------------------------------------------------------- stores
def test_a_store_from_an_empty_cache_as_documented(machine, serve):
    served = serve(MODEL)
    machine.environment = {**served.server.environment(), "NIM_MANIFEST_PATH": str(served.manifest)}
    line = f"--model-cache-path {machine.cache.path} --model-store {machine.folder}/store --profile {served.profile}"
    ended = machine.run(*line.split(), command=STORE).check()
    assert ended.stdout == f"{served.profile}\t{machine.folder}/store\n"
    assert differences(machine.folder / "store") == []
    assert not any(path.is_symlink() for path in (machine.folder / "store").rglob("*"))


def test_a_second_run_is_nothing_and_needs_nobody(has_model, manifest):
    line = ("-p", profile_id(MODEL), "-m", has_model.folder / "store", "--manifest-file", manifest, "--use-cache")
    has_model.run(*line, command=STORE).check()
    before = {path: identity(path) for path in (has_model.folder / "store").rglob("*")}
    ended = has_model.run(*line, "--json", command=STORE).check()
    assert json.loads(ended.stdout)["kept"] == len(FILES)
    assert {path: identity(path) for path in (has_model.folder / "store").rglob("*")} == before


def test_the_checksums_are_those_of_the_files(has_model, manifest):
    line = ("-p", profile_id(MODEL), "-m", has_model.folder / "store", "--manifest-file", manifest, "--use-cache")
    has_model.run(*line, command=STORE).check()
    lines = (has_model.folder / "store/checksums.blake3").read_text(encoding="utf-8").splitlines()
    assert lines == [f"{it.digest('blake3').value}  {path}" for path, it in sorted(FILES.items())]


def test_a_store_is_a_local_model(has_model, manifest, sockets):
    store = has_model.folder / "store"
    line = ("-p", profile_id(MODEL), "-m", store, "--manifest-file", manifest, "--use-cache")
    has_model.run(*line, command=STORE).check()
    shutil.rmtree(has_model.cache.path)
    ws = has_model.folder / "ws"
    line = ("--model-uri", f"local://{store}", "--workspace-path", ws)
    has_model.run(*line, command=WORKSPACE, within=sockets.within, env=DISABLED).check()
    assert differences(ws) == []
    assert (ws / SHARD).readlink() == store / SHARD
    assert sockets.lines == []


def test_the_operators_line_with_the_store_where_the_cache_is(machine, serve):
    served = serve(MODEL)
    machine.environment = served.server.environment()
    (machine.cache.path / "lost+found").mkdir(parents=True)
    line = ("--model-repo", MODEL.uri(), "--model-store", machine.cache.path)
    machine.run(*line, command=STORE).check()
    assert {path: (machine.cache.path / path).stat().st_size for path in FILES} == {
        path: it.size for path, it in FILES.items()
    }
    machine.run(*line, command=STORE).check()
    assert set(served.bodies.values()) == {1}


def test_a_mount_point_is_a_store(has_model, manifest, mount):
    """As ``docker run -v``: the folder is another file system, and cannot be replaced."""
    store = mount(has_model.folder / "store", "-t", "tmpfs", "tmpfs")
    line = ("-p", profile_id(MODEL), "-m", store, "--manifest-file", manifest, "--use-cache", "--json")
    made = json.loads(has_model.run(*line, command=STORE).check().stdout)["made"]
    assert made == {"copy": len(FILES)}
    assert differences(store) == []
    assert [path.name for path in store.iterdir() if path.name.startswith(".")] == []


def test_a_mount_point_of_the_cache_s_disk_is_a_store(has_model, manifest, mount):
    """As a sub-path of a volume: no hard link leads from one mount to another."""
    (has_model.folder / "volume").mkdir()
    store = mount(has_model.folder / "store", "--bind", has_model.folder / "volume")
    line = ("-p", profile_id(MODEL), "-m", store, "--manifest-file", manifest, "--use-cache")
    has_model.run(*line, command=STORE).check()
    assert differences(store) == []


def test_a_volume_that_is_too_small_is_refused_before_anything_is_copied(has_model, manifest, mount):
    store = mount(has_model.folder / "store", "-t", "tmpfs", "-o", "size=1M", "tmpfs")
    line = ("-p", profile_id(MODEL), "-m", store, "--manifest-file", manifest, "--use-cache")
    ended = has_model.run(*line, command=STORE)
    assert ended.code == 61
    assert "not enough space" in ended.last
    assert list(store.iterdir()) == []


def test_a_folder_with_something_else_is_refused(has_model, manifest):
    (has_model.folder / "store").mkdir()
    (has_model.folder / "store/thesis.tex").touch()
    line = ("-p", profile_id(MODEL), "-m", has_model.folder / "store", "--manifest-file", manifest, "--use-cache")
    ended = has_model.run(*line, command=STORE)
    assert ended.code == 60
    assert "  thesis.tex: is not of this model" in ended.stderr.splitlines()


# ---------------------------------------------------------------------------------------------------------- workspaces
def test_a_workspace_from_an_empty_cache(machine, serve):
    served = serve(MODEL)
    machine.environment = {**served.server.environment(), "NIM_MODEL_PROFILE": served.profile}
    line = ("--manifest-file", served.manifest, "--workspace-path", "../ws/../ws/one")
    ended = machine.run(*line, command=WORKSPACE).check()
    assert ended.stdout == f"{served.profile}\t{machine.folder}/ws/one\n"
    assert differences(machine.folder / "ws/one") == []


def test_a_workspace_is_no_second_copy(has_model, manifest):
    before = subprocess.check_output(["du", "-s", has_model.folder], text=True).split()[0]
    line = ("--manifest-file", manifest, "--workspace-path", has_model.folder / "ws", "--use-cache")
    has_model.run(*line, command=WORKSPACE).check()
    after = subprocess.check_output(["du", "-s", has_model.folder], text=True).split()[0]
    assert int(after) - int(before) < 200


# --------------------------------------------------------------------------------------------------------- no download
EVERY_COMMAND = {
    "download-to-cache": ("download-to-cache",),
    "download-model": ("download-model", "--workspace-path", "{folder}/ws"),
    "create-model-store": ("create-model-store", "-p", profile_id(MODEL), "-m", "{folder}/store"),
}


def words(name, machine):
    command, *line = (word.format(folder=machine.folder) for word in EVERY_COMMAND[name])
    return {"command": (command,)}, line


@pytest.mark.parametrize("name", EVERY_COMMAND)
@pytest.mark.parametrize("value", ["1", "true"])
def test_from_a_cache_alone(name, value, has_model, manifest, sockets):
    command, line = words(name, has_model)
    env = {"NIM_DISABLE_MODEL_DOWNLOAD": value}
    has_model.run(*line, "--manifest-file", manifest, **command, env=env, within=sockets.within).check()
    assert sockets.lines == []


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_a_cache_that_lacks_files_is_told_which(name, has_model, manifest, serve, sockets):
    has_model.environment = serve(MODEL).server.environment()
    (has_model.cache.snapshot(MODEL) / SHARD).resolve().unlink()
    (has_model.cache.snapshot(MODEL) / "config.json").resolve().unlink()
    command, line = words(name, has_model)
    ended = has_model.run(*line, "--manifest-file", manifest, **command, env=DISABLED, within=sockets.within)
    assert ended.code == 64
    listed = [line.strip() for line in ended.stderr.splitlines() if line.startswith("  ngc://")]
    assert sorted(listed) == sorted(MODEL.uri(path) for path in (SHARD, "config.json"))
    assert "NIM_DISABLE_MODEL_DOWNLOAD is set, and 2 files cannot be found" in ended.last
    assert sockets.lines == []
    assert not (has_model.folder / "store").exists()


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_without_a_route_from_a_copied_cache(name, machine, filled, manifest):
    """No credentials, no network but a loopback that is down, another folder, times of change lost."""
    filled.cache.copied_to(machine.cache.path, "-r", "--no-dereference")
    command, line = words(name, machine)
    machine.run(*line, "--manifest-file", manifest, "--use-cache", **command, within=offline()).check()
    machine.run(*line, "--manifest-file", manifest, **command, within=offline(), env=DISABLED).check()


def test_that_really_is_no_network(machine, manifest, serve):
    served = serve(MODEL)
    machine.environment = {**served.server.environment(), "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "0"}
    ended = machine.run("--manifest-file", manifest, within=offline())
    assert ended.code == 39
    assert len(served.server.log) == 0


# --------------------------------------------------------------------------------------- whoever the container runs as
ANYBODY = 1_000_620_000
"""As OpenShift gives them out: no such user, no home; the group is 0."""

AS_ANYBODY = (
    *("setpriv", f"--reuid={ANYBODY}", "--regid=0", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"),
)


@pytest.fixture
def anybody(shared_machine, filled):
    """A machine without a home; nothing is anybody's but what group 0 may write."""
    if os.geteuid() != 0:
        pytest.skip("another user needs root")
    shared_machine.folder.joinpath("home").rmdir()
    shutil.copy(filled.folder / "manifest.yaml", shared_machine.folder)
    return shared_machine


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_anybody_with_a_cache_of_somebody_else_s(name, anybody, filled):
    filled.cache.copied_to(anybody.cache.path, "-a")
    for place in ("ws", "store"):
        (anybody.folder / place).mkdir()
        (anybody.folder / place).chmod(0o770)
    command, line = words(name, anybody)
    manifest = anybody.folder / "manifest.yaml"
    ended = anybody.run(*line, "--manifest-file", manifest, "--use-cache", **command, within=AS_ANYBODY).check()
    assert ended.stdout.startswith(profile_id(MODEL))
    for place in {"download-model": ["ws"], "create-model-store": ["store"]}.get(name, []):
        assert differences(anybody.folder / place) == []
        assert {path.lstat().st_uid for path in (anybody.folder / place).iterdir()} == {ANYBODY}


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_anybody_with_a_cache_that_nobody_may_write(name, anybody, filled, mount):
    mount(anybody.cache.path, "--bind", "-o", "ro", filled.cache.path)
    anybody.folder.chmod(0o775)
    command, line = words(name, anybody)
    manifest = anybody.folder / "manifest.yaml"
    anybody.run(*line, "--manifest-file", manifest, **command, within=AS_ANYBODY, env=DISABLED).check()
    assert name != "create-model-store" or differences(anybody.folder / "store") == []


def test_anybody_fills_a_cache_of_group_0_and_the_next_one_goes_on(anybody, serve):
    served = serve(MODEL)
    anybody.environment = served.server.environment()
    anybody.cache.path.mkdir()
    anybody.cache.path.chmod(0o2770)
    manifest = anybody.folder / "manifest.yaml"
    within = ("sh", "-c", 'umask 002; exec "$@"', "sh", *AS_ANYBODY)
    anybody.run("--manifest-file", manifest, within=within).check()
    (anybody.cache.snapshot(MODEL) / SHARD).resolve().unlink()
    another = [word.replace(str(ANYBODY), str(ANYBODY + 1)) for word in within]
    anybody.run("--manifest-file", manifest, within=another).check()
    assert anybody.cache.differences(MODEL) == []


def test_who_may_not_write_the_store_is_told_who_and_where(anybody, filled):
    filled.cache.copied_to(anybody.cache.path, "-a")
    manifest = anybody.folder / "manifest.yaml"
    line = ("-p", profile_id(MODEL), "-m", anybody.folder / "no/store", "--manifest-file", manifest)
    anybody.folder.chmod(0o755)
    ended = anybody.run(*line, "--use-cache", command=STORE, within=AS_ANYBODY)
    assert ended.code == 62
    assert f"not allowed for uid {ANYBODY}, gid 0: {anybody.folder / 'no'}" in ended.last


# -------------------------------------------------------------------------------------------- the Hub's own command
@pytest.fixture
def installed(machine):
    """A folder with every command."""
    folder = machine.folder / "bin"
    machine.run("install-commands", folder, command=("nim-llm",)).check()
    return folder


def test_the_operators_hub_line_word_for_word(machine, installed):
    cache = machine.cache.path
    with HubServer([HUB]) as server:
        env = {
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": HUB_TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": f"{cache}/huggingface/hub",
        }
        line = f"huggingface-cli download {HUB.repository} --local-dir {cache} --repo-type model --revision main"
        shell = ("env", f"PATH={installed}:/usr/bin:/bin", *line.split())
        for _ in range(2):
            done = subprocess.run(
                shell,
                env={"NIM_CACHE_PATH": str(cache), **env},
                cwd=machine.folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout == f"{cache}\n"
        assert len([it for it in server.log.select(origin="storage") if it.request.path.endswith(HUB.etag(SHARD))]) == 1
    for path, content in FILES.items():
        assert (cache / path).read_bytes() == content.data()
        assert not (cache / path).is_symlink()
    assert (cache / "huggingface/hub/hub" / "models--acme--sample-llm/refs/main").exists()


def test_some_files_with_a_token_from_the_line(machine):
    gated = HubModel(files=FILES, gated=True)
    with HubServer([gated]) as server:
        machine.environment = {"HF_ENDPOINT": server.url}
        line = ("huggingface-cli", "download", gated.repository, "config.json", "--local-dir", machine.folder / "d")
        assert machine.run(*line, command=("nim-llm",)).code != 0
        ended = machine.run(*line, "--token", HUB_TOKEN, "--quiet", command=("nim-llm",)).check()
        assert (ended.stdout, ended.stderr) == (f"{machine.folder}/d\n", "")
        assert [path.name for path in (machine.folder / "d").iterdir()] == ["config.json"]
        absent = machine.run(*line[:3], "nope.txt", "config.json", "--token", HUB_TOKEN, command=("nim-llm",))
        assert (absent.code, HUB_TOKEN in absent.said) == (31, False)
        assert "has no file of this name: nope.txt" in absent.last


def test_without_a_folder_the_snapshot_is_named(machine):
    with HubServer([HUB]) as server:
        machine.environment = {"HF_ENDPOINT": server.url}
        ended = machine.run("huggingface-cli", "download", HUB.repository, "--quiet", command=("nim-llm",)).check()
    assert differences(Path(ended.stdout.strip())) == []


def test_from_the_cache_alone(machine):
    line = ("huggingface-cli", "download", HUB.repository, "--local-dir", machine.folder / "d")
    with HubServer([HUB]) as server:
        machine.run(*line, command=("nim-llm",), env={"HF_ENDPOINT": server.url}).check()
    shutil.rmtree(machine.folder / "d")
    machine.run(*line, command=("nim-llm",), env=DISABLED, within=offline()).check()
    assert differences(machine.folder / "d") == []
