"""
The contract of NVIDIA's Kubernetes operator, row by row: its command lines, its environment, its users, its volume.

Source: internal/controller/nimcache_controller.go, internal/nimsource/hf.go and internal/k8sutil/k8sutil.go of
NVIDIA/k8s-nim-operator at f63f74d7. Every command is run in a :mod:`container <tests.integration.container>`.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml
from attrs import evolve, frozen

from nim_core.testing.corpus import Corpus, sample_corpus
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HUB_TOKEN, HubServer
from nim_core.testing.manifests import DEFAULT_TAGS, manifest_for, profile_id
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer
from nim_core.testing.s3_server import S3Server
from nim_core.testing.squid import squid
from tests.integration.conftest import Cache
from tests.integration.container import ANYBODY, OPERATOR, Container, own_network, unavailable

pytest_plugins = ["nim_core.testing"]

FILES = sample_corpus().files
LORA_TAGS = {**DEFAULT_TAGS, "feat_lora": "true"}
MODEL = NgcModel(files=FILES)
LORA = NgcModel(files=sample_corpus(seed=7).files, version="lora-1")
UNIVERSAL = NgcModel(files=FILES, org="nvidia", team="nemo", name="llama-3_2-1b-instruct", version="2.0")
HUB = HubModel(files=FILES, repository="meta-llama/Llama-3.2-1B-Instruct", revisions=("main", "v2"))
DATASET = HubModel(files=FILES, repository="default/questions", dataset=True)
GATED = evolve(HUB, gated=True)

PROFILE, LORA_PROFILE = profile_id(MODEL), profile_id(LORA, LORA_TAGS)
MANIFEST = "/opt/nim/etc/default/model_manifest.yaml"
OLD_MANIFEST = "/etc/nim/config/model_manifest.yaml"
ONCE = {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1", "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "1"}


def both_profiles():
    """Return the text of a manifest with a profile of each model, the second for LoRA."""
    whole = yaml.safe_load(manifest_for(MODEL))
    whole["profiles"] += yaml.safe_load(manifest_for(LORA, tags=[LORA_TAGS]))["profiles"]
    return yaml.safe_dump(whole, sort_keys=False)


@pytest.fixture(scope="module", autouse=True)
def _possible():
    why = unavailable()
    if why is not None:
        pytest.skip(why)


@pytest.fixture(autouse=True)
def _network(_possible):
    """Nothing can be reached but the servers of the test."""
    with own_network():
        yield


@pytest.fixture(params=[OPERATOR, ANYBODY], ids=["uid 1000", "any uid"])
def who(request):
    """The operator's user, and one as OpenShift gives out."""
    return request.param


@pytest.fixture
def pod(who):
    """A container of an image without a manifest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield Container.new(folder, who)


@pytest.fixture
def ngc(pod):
    """NGC, known to the pod as the operator makes it known: NIM_CACHE_PATH and the keys of a secret."""
    with NgcServer([MODEL, LORA, UNIVERSAL]) as server:
        pod.files[MANIFEST] = both_profiles()
        pod.environment |= {"NIM_CACHE_PATH": "/model-store", **server.environment(), **ONCE}
        yield server
    assert server.storage.leaks == []


def hub_environment(url):
    """Return what the operator tells jobs for the Hub and for a DataStore."""
    return {
        "HF_ENDPOINT": url,
        "HF_HUB_OFFLINE": "0",
        "NIM_CACHE_PATH": "/model-store",
        "HF_HOME": "/model-store/huggingface/hub",
        "HF_TOKEN": HUB_TOKEN,
        **ONCE,
    }


@pytest.fixture
def hub(pod):
    """The Hub, known to the pod as the operator makes it known."""
    with HubServer([GATED, DATASET]) as server:
        pod.environment |= hub_environment(server.url)
        yield server
    assert server.storage.leaks == []


def job(pod, line, env=None):
    """Run the ``command`` and ``args`` of a job."""
    return pod.run(*shlex.split(line), env=env)


def plain_differences(folder):
    """Return how the plain files of a folder differ from the model's."""
    assert not [path for path in FILES if (folder / path).is_symlink()]
    return [line for line in Corpus(files=FILES).differences(folder) if not line.startswith("not in the corpus")]


def bodies(server):
    """Return how often bytes were sent by the storage."""
    return len(server.log.select(origin="storage"))


# ------------------------------------------------------------------------------------------- 9.1 manifest probe pod
PROBE = (
    "if [ -f /opt/nim/etc/default/model_manifest.yaml ]; then cat /opt/nim/etc/default/model_manifest.yaml; "
    "elif [ -f /etc/nim/config/model_manifest.yaml ]; then cat /etc/nim/config/model_manifest.yaml; "
    'else echo "model_manifest.yaml not found"; fi; sleep infinity'
)


def probe(pod):
    """Return all that the probe pod has in its log by the time that the operator reads it."""
    ended = pod.run("timeout", "1", "sh", "-c", PROBE)
    assert ended.code == 124
    return ended.said


@pytest.mark.parametrize("place", [MANIFEST, OLD_MANIFEST])
def test_manifest_probe(place, pod):
    pod.files[place] = both_profiles()
    manifest = yaml.safe_load(probe(pod))
    assert re.search(r"2\.*\.*", manifest["schema_version"])
    assert [profile["id"] for profile in manifest["profiles"]] == [PROFILE, LORA_PROFILE]
    assert manifest["profiles"][0]["tags"] == DEFAULT_TAGS


def test_manifest_probe_of_an_image_without_one(pod):
    assert probe(pod) == "model_manifest.yaml not found\n"


@pytest.mark.parametrize("place", [MANIFEST, OLD_MANIFEST])
def test_profiles_are_listed_where_no_gpu_is(place, pod):
    pod.files[place] = both_profiles()
    ended = job(pod, "list-model-profiles").check()
    assert "- Free GPUs: <None>" in ended.stdout
    assert set(re.findall(r"- ([0-9a-f]{64}) \(", ended.stdout)) == {PROFILE, LORA_PROFILE}


# ------------------------------------------------------------------------------------------------- 9.4 caching jobs
@frozen(kw_only=True)
class NgcRow:
    """A job for NGC, optimised: its line, and the models that it brings."""

    line: str
    brings: tuple[NgcModel, ...]


NGC_ROWS = {
    "all": NgcRow(line="download-to-cache --all", brings=(MODEL, LORA)),
    "one profile": NgcRow(line=f"download-to-cache --profiles {PROFILE}", brings=(MODEL,)),
    "profiles": NgcRow(line=f"download-to-cache --profiles {PROFILE} {LORA_PROFILE}", brings=(MODEL, LORA)),
    "lora": NgcRow(line="download-to-cache --lora", brings=(LORA,)),
    "all, use cache": NgcRow(line="download-to-cache --all --use-cache", brings=(MODEL, LORA)),
    "manifest named": NgcRow(line=f"download-to-cache --manifest-file {MANIFEST} --all", brings=(MODEL, LORA)),
    "abbreviated": NgcRow(line=f"download-to-cache --profile {PROFILE}", brings=(MODEL,)),
    "cache path": NgcRow(line="download-to-cache --all --model-cache-path /model-store", brings=(MODEL, LORA)),
}


@pytest.mark.parametrize("row", NGC_ROWS.values(), ids=NGC_ROWS)
def test_ngc_job(row, pod, ngc):
    job(pod, row.line).check()
    cache = Cache(pod.volume)
    assert {model: cache.differences(model) for model in row.brings} == {model: [] for model in row.brings}
    assert len(cache.receipts) == len(row.brings)
    assert all(not link.readlink().is_absolute() for link in cache.links)
    sent = bodies(ngc)
    job(pod, row.line).check()
    assert bodies(ngc) == sent


STORE_ROWS = {
    "model repo": f"create-model-store --model-repo {UNIVERSAL.uri()} --model-store /model-store",
    "model repo, short": f"create-model-store --model-repo {UNIVERSAL.uri()} -m /model-store",
    "profile": f"create-model-store --profile {PROFILE} --model-store /model-store",
    "profile, elsewhere": f"create-model-store -p {PROFILE} -m /model-store/store --use-cache",
}


@pytest.mark.parametrize("row", STORE_ROWS)
def test_store_job(row, pod, ngc):
    line = STORE_ROWS[row]
    job(pod, line).check()
    store = pod.volume / "store" if row == "profile, elsewhere" else pod.volume
    assert plain_differences(store) == []
    assert (store / "checksums.blake3").exists()
    sent = bodies(ngc)
    job(pod, line).check()
    assert bodies(ngc) == sent


def test_model_repo_of_the_hub(pod, hub):
    job(pod, f"create-model-store --model-repo {HUB.uri()} --model-store /model-store").check()
    assert plain_differences(pod.volume) == []


def test_model_repo_that_is_no_uri_is_told_the_form(pod, ngc):
    ended = job(pod, "create-model-store --model-repo nvidia/nemo/llama:2.0 --model-store /model-store")
    assert ended.code == 11
    assert "://" in ended.last


HUB_ROWS = {
    "model": (HUB, ""),
    "model at a revision": (HUB, "--revision v2"),
    "model at a commit": (HUB, f"--revision {HUB.commit}"),
    "dataset": (DATASET, ""),
}


@pytest.mark.parametrize("prefix", ["", "/v1/hf", "/v1/hf/"], ids=["hub", "datastore", "datastore with slash"])
@pytest.mark.parametrize("row", HUB_ROWS)
def test_hub_job(row, prefix, pod):
    repository, more = HUB_ROWS[row]
    with HubServer([GATED, DATASET], prefix=prefix.rstrip("/")) as server:
        pod.environment |= hub_environment(server.url + ("/" if prefix.endswith("/") else ""))
        kind = "dataset" if repository.dataset else "model"
        line = f"huggingface-cli download {repository.repository} --local-dir /model-store --repo-type {kind} {more}"
        ended = job(pod, line).check()
        assert ended.stdout == "/model-store\n"
        assert plain_differences(pod.volume) == []
        assert [path.name for path in (pod.volume / "huggingface/hub/hub").iterdir()] == [
            f"{kind}s--{repository.repository.replace('/', '--')}"
        ]
        sent = bodies(server)
        job(pod, line).check()
        assert bodies(server) == sent
    assert server.storage.leaks == []


def test_model_free_job(pod, hub):
    line = f"download-to-cache --model-uri {HUB.uri()} --manifest-file /model-store/model_manifest.json"
    job(pod, line).check()
    manifest = json.loads((pod.volume / "model_manifest.json").read_text(encoding="utf-8"))
    assert re.search(r"2\.*\.*", manifest["schema_version"])
    [profile] = manifest["profiles"]
    assert re.fullmatch("[0-9a-f]{64}", profile["id"])
    assert set(profile["workspace"]["files"]) == set(FILES)
    [snapshot] = (pod.volume / "huggingface/hub/hub").glob("models--*/snapshots/*")
    assert Corpus(files=FILES).differences(snapshot) == []
    sent = bodies(hub)
    job(pod, line).check()
    assert bodies(hub) == sent


# ------------------------------------------------------------------------------------------------- what jobs run with
@pytest.mark.parametrize("home", [None, "", "/", "/root", "/nonexistent"])
def test_any_home(home, pod, ngc):
    del pod.environment["HOME"]
    job(pod, "download-to-cache --all", env={} if home is None else {"HOME": home}).check()
    job(pod, f"create-model-store -p {PROFILE} -m /model-store/store", env={"HOME": home} if home else {}).check()
    assert sorted(path.name for path in pod.volume.iterdir()) == ["CACHEDIR.TAG", "ngc", "receipts", "store", "tmp"]


SECRETS = {
    "NGC_API_KEY": {"NGC_API_KEY": NgcServer.nvapi_key},
    "NGC_CLI_API_KEY": {"NGC_CLI_API_KEY": NgcServer.nvapi_key},
    "more than one needs": {
        "NGC_API_KEY": NgcServer.nvapi_key,
        "NGC_CLI_API_KEY": NgcServer.nvapi_key,
        "HF_TOKEN": HUB_TOKEN,
        "password": "correct horse",
    },
}


@pytest.mark.parametrize("names", SECRETS)
def test_every_key_of_a_secret_is_in_the_environment_and_nowhere_else(names, pod, ngc):
    del pod.environment["NGC_API_KEY"]
    ended = job(pod, "download-to-cache --all", env={**SECRETS[names], "NIM_LOG_LEVEL": "DEBUG"}).check()
    written = b"".join(path.read_bytes() for path in pod.volume.rglob("*") if path.is_file())
    for secret in set(SECRETS[names].values()) - {"correct horse"}:
        assert secret not in ended.said
        assert secret.encode() not in written


def test_what_the_job_writes_is_the_users_and_its_groups(pod, ngc):
    job(pod, "download-to-cache --all").check()
    for path in pod.volume.rglob("*"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (pod.who.uid, pod.who.groups[0])
    assert list((pod.folder / "scratch").iterdir()) == []


# --------------------------------------------------------------------------------------------------- what goes wrong
def test_a_profile_that_is_not_there(pod, ngc):
    ended = job(pod, f"download-to-cache --profiles {'0' * 64}")
    assert ended.code == 13
    assert f"Unknown profiles provided: {'0' * 64}" in ended.said
    assert PROFILE in ended.said


def test_no_key(pod, ngc):
    ended = job(pod, "download-to-cache --all", env={"NGC_API_KEY": ""})
    assert ended.code == 32
    assert "NGC_API_KEY" in ended.last


def test_a_volume_that_is_somebody_else_s(pod, ngc):
    pod.volume.chmod(0o755)
    pod.volume.chmod(0o700)
    ended = job(pod, "download-to-cache --all")
    assert ended.code == 62
    assert "/model-store" in ended.last
    assert f"{pod.who.uid}" in ended.last


def test_the_log_s_last_line_is_the_termination_message(pod, hub):
    ended = job(pod, "huggingface-cli download meta-llama/nope --local-dir /model-store --repo-type model")
    assert ended.code == 31
    assert "meta-llama/nope" in ended.said.splitlines()[-1]


def test_the_lines_that_only_other_images_answer(pod):
    """Such as ``datastore-tools`` of older operators: the shell's word for it, and no traceback."""
    assert job(pod, "datastore-tools checkpoint download").code == 127
