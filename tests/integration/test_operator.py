"""
The contract of NVIDIA's Kubernetes operator, row by row: its command lines, its environment, its users, its volume.

Source: internal/controller/nimcache_controller.go, internal/nimsource/hf.go and internal/k8sutil/k8sutil.go of
NVIDIA/k8s-nim-operator at f63f74d7. Every command is run in a :mod:`container <tests.integration.container>`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import yaml
from attrs import evolve, frozen

from nim_core.testing.corpus import Corpus, sample_corpus
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HUB_TOKEN, HubServer
from nim_core.testing.manifests import DEFAULT_TAGS, manifest_for, profile_id
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer
from nim_core.testing.ranged import serve_content
from nim_core.testing.squid import squid
from nim_core.testing.tiny_model import ANSWER, QUESTION, tiny_corpus
from tests.integration.conftest import Cache
from tests.integration.container import ANYBODY, OPERATOR, Container, own_network, unavailable

pytest_plugins = ["nim_core.testing"]

FILES = sample_corpus().files
LORA_TAGS = {**DEFAULT_TAGS, "feat_lora": "true"}
MODEL = NgcModel(files=FILES)
LORA = NgcModel(files=sample_corpus(seed=7).files, version="lora-1")
BOTH = (MODEL, LORA)
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
    assert [cache.differences(model) for model in row.brings] == [[]] * len(row.brings)
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
@pytest.mark.parametrize("home", [None, "/", "/root"])
def test_any_home(home, pod, ngc):
    pod.environment.pop("HOME")
    job(pod, "download-to-cache --all", env={} if home is None else {"HOME": home}).check()
    assert sorted(path.name for path in pod.volume.iterdir()) == ["manifests", "ngc", "receipts", "tmp"]


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
    pod.volume.chmod(0o700)
    ended = job(pod, "download-to-cache --all")
    assert ended.code == 62
    assert "/model-store" in ended.last
    assert f"{pod.who.uid}" in ended.last


def test_the_log_s_last_line_is_the_termination_message(pod, hub):
    ended = job(pod, "huggingface-cli download meta-llama/nope --local-dir /model-store --repo-type model")
    assert ended.code == 31
    assert "meta-llama/nope" in ended.said.splitlines()[-1]


# ------------------------------------------------------------------------------------------ who shares the volume
NEIGHBOUR = evolve(OPERATOR, uid=1001)


@pytest.fixture
def shared():
    """A pod of the operator's user; ``as_user`` makes others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = Container.new(folder, OPERATOR)
        made.files[MANIFEST] = both_profiles()
        made.environment["NIM_CACHE_PATH"] = "/model-store"
        yield made


def test_another_user_of_the_group_goes_on(shared):
    """Even where nobody gives the files to the group again: ``fsGroupChangePolicy: OnRootMismatch``, and NFS."""
    with NgcServer([MODEL, LORA]) as server:
        shared.environment |= {**server.environment(), **ONCE}
        job(shared, f"download-to-cache --profiles {PROFILE}").check()
        job(shared.as_user(NEIGHBOUR), "download-to-cache --all").check()
        job(shared, "download-to-cache --all").check()
    folders = [path for path in shared.volume.rglob("*") if path.is_dir() and path.name != "manifests"]
    assert {path.stat().st_mode & 0o2070 for path in folders} == {0o2070}
    assert [Cache(shared.volume).differences(model) for model in (MODEL, LORA)] == [[], []]


def test_a_umask_that_keeps_the_group_out_is_respected(shared):
    with NgcServer([MODEL, LORA]) as server:
        shared.environment |= {**server.environment(), **ONCE}
        shared.run("download-to-cache", "--all", umask=0o077).check()
    assert {path.stat().st_mode & 0o077 for path in shared.volume.iterdir() if path.name != "manifests"} == {0}


MULTI_NODE = {
    "NIM_MULTI_NODE": "1",
    "NIM_NUM_COMPUTE_NODES": "2",
    "NIM_TENSOR_PARALLEL_SIZE": "8",
    "NIM_PIPELINE_PARALLEL_SIZE": "2",
    "NIM_NODE_RANK": "1",
    "NIM_LEADER_ROLE": "0",
}
SERVING = {
    "NIM_SERVER_PORT": "8000",
    "NIM_HTTP_API_PORT": "8000",
    "NIM_JSONL_LOGGING": "1",
    "NIM_LOG_LEVEL": "INFO",
    "OUTLINES_CACHE_DIR": "/tmp/outlines",
    "NIM_MODEL_PROFILE": PROFILE,
}


@pytest.mark.parametrize("disabled", ["1", "true"])
@pytest.mark.parametrize("user", [OPERATOR, NEIGHBOUR, ANYBODY], ids=["same uid", "another uid", "any uid"])
def test_a_worker_of_several_nodes_does_not_download(user, disabled, shared):
    """No server runs any more, no key is known; links lead into the volume."""
    with NgcServer([MODEL, LORA]) as server:
        job(shared, "download-to-cache --all", env={**server.environment(), **ONCE}).check()
    worker = shared.as_user(user)
    env = {**MULTI_NODE, **SERVING, "NIM_DISABLE_MODEL_DOWNLOAD": disabled}
    ended = job(worker, "download-model --workspace-path /scratch/workspace", env=env).check()
    assert ended.stdout == f"{PROFILE}\t/scratch/workspace\n"
    assert all(json.loads(line)["level"] for line in ended.stderr.splitlines())
    assert str((shared.folder / "scratch/workspace/config.json").readlink()).startswith("/model-store/ngc/hub/")


def test_a_worker_whose_volume_lacks_files_lists_them(shared):
    env = {**MULTI_NODE, "NIM_DISABLE_MODEL_DOWNLOAD": "1", "NIM_MODEL_PROFILE": PROFILE}
    ended = job(shared, "download-model --workspace-path /scratch/workspace", env=env)
    assert ended.code == 64
    assert f"  {MODEL.uri('config.json')}" in ended.stderr.splitlines()


def test_a_workspace_without_a_place_for_it(shared):
    with NgcServer([MODEL, LORA]) as server:
        ended = job(shared, f"download-model -p {PROFILE}", env={**server.environment(), **ONCE})
        assert ended.code == 60
        assert "--workspace-path" in ended.last
        env = {**server.environment(), "TMPDIR": "/scratch"}
        assert "/scratch/nim-workspace-" in job(shared, f"download-model -p {PROFILE}", env=env).check().stdout


def test_a_copy_that_keeps_links(pod, ngc):
    """As jobs of others copy a cache to a bucket or disk."""
    job(pod, "download-to-cache --all").check()
    copied = Cache(pod.volume).copied_to(pod.folder / "copied", "--recursive", "--no-dereference")
    assert [copied.differences(model) for model in (MODEL, LORA)] == [[], []]


# -------------------------------------------------------------------------------------------- 8 proxies, authorities
@pytest.fixture
def etc_ssl(tmp_path, certificates):
    """What the operator's init container leaves of a ConfigMap with an authority: /etc/ssl/certs alone."""
    local, made = tmp_path / "local", tmp_path / "certs"
    for folder in (local, made, tmp_path / "hooks"):
        folder.mkdir()
    (local / "company-pem.crt").write_bytes(certificates.ca.read_bytes())
    places = ("--etccertsdir", made, "--localcertsdir", local, "--hooksdir", tmp_path / "hooks")
    command = ["update-ca-certificates", *places]
    subprocess.run(command, check=True, capture_output=True)
    mounted = tmp_path / "ssl"
    mounted.mkdir()
    subprocess.run(["cp", "-r", f"{made}/", mounted / "certs"], check=True)
    return mounted


TRUST = {
    "mounted": {"NIM_SDK_USE_NATIVE_TLS": "1"},
    "mounted, another file named": {"NIM_SDK_USE_NATIVE_TLS": "1", "SSL_CERT_FILE": "/etc/hosts"},
    "mounted, not asked for": {},
    "SSL_CERT_FILE": {"SSL_CERT_FILE": "/certificates/ca.pem"},
    "REQUESTS_CA_BUNDLE": {"REQUESTS_CA_BUNDLE": "/certificates/ca.pem"},
}


@pytest.mark.parametrize("trust", TRUST)
def test_an_authority_of_the_company(trust, shared, certificates, etc_ssl):
    if trust.startswith("mounted"):
        shared.etc_ssl = etc_ssl
    shared.files["/certificates/ca.pem"] = certificates.ca.read_text()
    with NgcServer([MODEL, LORA], certificates=certificates) as server:
        env = {**server.environment(), **ONCE}
        job(shared, "download-to-cache --all", env={**env, **TRUST[trust]}).check()


def test_an_authority_that_nobody_mounted(shared, certificates):
    with NgcServer([MODEL, LORA], certificates=certificates) as server:
        ended = job(shared, "download-to-cache --all", env={**server.environment(), **ONCE})
    assert ended.code != 0
    assert "SSL_CERT_FILE" in ended.stderr


PROXIED = {
    "ngc": "download-to-cache --all",
    "model free": f"download-to-cache --model-uri {HUB.uri()} --manifest-file /model-store/model_manifest.json",
    "hub": f"huggingface-cli download {HUB.repository} --local-dir /model-store --repo-type model",
}


@pytest.mark.parametrize("source", PROXIED)
def test_a_proxy(source, shared, certificates, etc_ssl):
    """All six variables are set, those empty that the resource does not name."""
    shared.etc_ssl = etc_ssl
    with (
        NgcServer([MODEL, LORA], certificates=certificates) as ngc,
        HubServer([HUB], certificates=certificates) as hub,
        squid() as proxy,
    ):
        variables = {"https_proxy": f"http://{proxy.host_port}", "http_proxy": "", "no_proxy": ""}
        both = variables | {name.upper(): value for name, value in variables.items()}
        env = {"NIM_SDK_USE_NATIVE_TLS": "1", **ngc.environment(), **hub_environment(hub.url), **both}
        job(shared, PROXIED[source], env=env).check()
        asked = {"ngc": (ngc.api_url, ngc.storage_url)}.get(source, (hub.url, hub.storage_url))
        assert all(proxy.saw(f"CONNECT {url.partition('://')[2]}") for url in asked)


# ------------------------------------------------------------------------------------------------ 9.9 mirrors
def test_mirror_https(shared, certificates):
    """As the sample, and no key of NGC; ``s3://`` is run in test_mirror.py."""
    objects = {quote(it.uri(path).partition("://")[2], safe=""): it.files[path] for it in BOTH for path in it.files}

    def answer(request):
        content = objects.get(unquote(request.raw_path.removeprefix("/")))
        return "object", Response(status=404) if content is None else serve_content(request, content, etag='"1"')

    shared.files["/certificates/ca.pem"] = certificates.ca.read_text()
    with HttpOrigin("mirror", answer, log=RequestLog(), certificates=certificates) as mirror:
        env = {"NIM_REPOSITORY_OVERRIDE": f"{mirror.url}/", "SSL_CERT_FILE": "/certificates/ca.pem", **ONCE}
        job(shared, "download-to-cache --all", env=env).check()
    assert [Cache(shared.volume).differences(model) for model in BOTH] == [[], []]


def test_mirror_jfrog_is_refused_by_its_name(shared):
    """It is in a sample of the operator and in no list of release 2."""
    ended = job(shared, "download-to-cache --all", env={"NIM_REPOSITORY_OVERRIDE": "jfrog://server:8081/"})
    assert ended.code == 24
    assert "jfrog://" in ended.last


# ----------------------------------------------------------------------------------------- models without a manifest
def test_serving_a_model_of_the_hub_names_its_uri_and_its_folder(shared):
    with HubServer([HUB]) as server:
        env = {**hub_environment(server.url), "NIM_MODEL_NAME": "/model-store", "NIM_MODEL_PATH": HUB.uri()}
        job(shared, "download-model --workspace-path /scratch/workspace", env=env).check()
    assert plain_names(shared.folder / "scratch/workspace") == set(FILES)


def test_serving_a_universal_model_names_its_folder(shared):
    with NgcServer([UNIVERSAL]) as server:
        line = f"create-model-store --model-repo {UNIVERSAL.uri()} --model-store /model-store"
        job(shared, line, env={**server.environment(), **ONCE}).check()
    env = {"NIM_MODEL_NAME": "/model-store", "NIM_DISABLE_MODEL_DOWNLOAD": "1"}
    job(shared, "download-model --workspace-path /scratch/workspace", env=env).check()
    assert plain_names(shared.folder / "scratch/workspace") >= set(FILES)


def plain_names(folder):
    """Return the paths of a workspace's files."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()}


# ------------------------------------------------------------------------------------------------- 9.5, 9.6 serving
SERVICE = {
    "NIM_CACHE_PATH": "/model-store",
    "NIM_SERVER_PORT": "8000",
    "NIM_HTTP_API_PORT": "8000",
    "NIM_JSONL_LOGGING": "1",
    "NIM_LOG_LEVEL": "INFO",
    "OUTLINES_CACHE_DIR": "/tmp/outlines",
}
TINY = tiny_corpus("gguf").files
TINY_TAGS = {**DEFAULT_TAGS, "llm_engine": "llamacpp"}


def answer(path, content=None):
    """Ask the service as a probe or a client does; status and JSON."""
    request = Request(f"http://127.0.0.1:8000{path}", content and json.dumps(content).encode())
    request.add_header("Content-Type", "application/json")
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=20) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        return error.code, json.load(error)


def end_pod(started):
    """Do what kubelet does: SIGTERM to the container's first process."""
    (first,) = Path(f"/proc/{started.process.pid}/task/{started.process.pid}/children").read_text().split()
    os.kill(int(first), signal.SIGTERM)
    return started.end()


def serves(pod, env, name):
    """Start a pod of a NIMService, ask it, end it, and return what it logged."""
    started = pod.start("nim-serve", env={**SERVICE, **env})
    try:
        seen = set()
        while 200 not in seen:
            assert started.process.poll() is None, started.end().stderr
            with suppress(URLError):
                assert answer("/v1/health/live")[0] == 200
                status, _body = answer("/v1/health/ready")
                seen.add(status)
            time.sleep(0.02)
        messages = [{"role": "user", "content": QUESTION}]
        status, body = answer("/v1/chat/completions", {"model": name, "messages": messages, "temperature": 0})
        assert (status, body["choices"][0]["message"]["content"]) == (200, ANSWER), body
        ended = end_pod(started)
    finally:
        started.process.kill()
    assert seen <= {503, 200}
    assert ended.check().stdout == ""
    return [json.loads(line) for line in ended.stderr.splitlines()]


def test_a_service_of_a_cached_profile(pod):
    """The cache is filled by a job with a key; the service has none, and there is no NGC any more."""
    model = NgcModel(files=TINY, name="nim-tiny")
    pod.files[MANIFEST] = manifest_for(model, tags=[TINY_TAGS])
    profile = profile_id(model, TINY_TAGS)
    with NgcServer([model]) as server:
        env = {"NIM_CACHE_PATH": "/model-store", **server.environment(), **ONCE}
        job(pod, f"download-to-cache --profiles {profile}", env=env).check()
    log = serves(pod, {"NIM_MODEL_PROFILE": profile}, "meta/nim-tiny")
    assert any(profile in record["message"] or record.get("id") == profile for record in log)


def test_a_service_of_a_model_of_the_hub(pod):
    """Both variables are set: the path wins over the name, which is that of a folder."""
    model = HubModel(files=TINY, repository="nim/tiny")
    with HubServer([model]) as server:
        env = hub_environment(server.url)
        uri = model.uri()
        manifest = "/model-store/model_manifest.json"
        job(pod, f"download-to-cache --model-uri {uri} --manifest-file {manifest}", env=env).check()
    serves(pod, {**env, "NIM_MODEL_NAME": "/model-store", "NIM_MODEL_PATH": uri}, "nim/tiny")


def test_what_is_not_covered_is_documented():
    page = (Path(__file__).parents[2] / "docs/kubernetes.md").read_text(encoding="utf-8")
    for what in ["NIMBuild", "jfrog://"]:
        assert what in page.partition("## Not answered yet")[2]
