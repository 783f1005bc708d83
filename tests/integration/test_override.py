"""``NIM_REPOSITORY_OVERRIDE``: a model from web servers and proxies, where no NGC is to be reached."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from attrs import define, evolve, field

from nim_core.testing import bad_answers
from nim_core.testing.corpus import PatternContent, inline, sample_corpus, with_flipped_byte
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response
from nim_core.testing.hub_models import HubModel
from nim_core.testing.manifests import manifest_for, profile_id
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer
from nim_core.testing.nginx import USERINFO, nginx
from nim_core.testing.ranged import serve_content, strong_etag

pytest_plugins = ["nim_core.testing"]

MEBIBYTE = 1 << 20
MODEL = NgcModel(files=sample_corpus(shard_size=3_000_000).files)
LARGE = NgcModel(files={"config.json": inline("{}\n"), "weights.bin": PatternContent(length=80 * MEBIBYTE)})
ONCE = {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1", "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "1"}
BASIC = "Basic bW9kZWxzOnBAc3M6dy9yZA=="


@pytest.fixture
def offline(machine):
    """The machine, which can reach no NGC and gives up soon."""
    nowhere = {"NGC_API_ENDPOINT": closed_port(), "NGC_AUTH_ENDPOINT": closed_port(), "NGC_API_SCHEME": "http"}
    machine.environment = {**nowhere, **ONCE}
    return machine


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def manifest(tmp_path):
    """Return a function that writes the manifest of models."""

    def write(*models):
        path = tmp_path / "manifest.yaml"
        path.write_text(manifest_for(*models))
        return path

    return write


def key(uri):
    return quote(uri.removeprefix("ngc://"), safe="")


def fill(folder, model, *, leave_out=(), damaged=(), nested=False):
    """Write a model into a folder as a mirror has it: one flat file each, or in folders where a server decoded keys."""
    for name, content in model.files.items():
        if name not in leave_out:
            path = folder / (unquote(key(model.uri(name))) if nested else key(model.uri(name)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((with_flipped_byte(content, 1) if name in damaged else content).data())
    return folder


@pytest.fixture
def web(tmp_path):
    """Return a function that starts nginx for a folder."""
    with ExitStack() as stack:

        def start(**options):
            folder = tmp_path / f"www-{len(list(tmp_path.glob('www-*')))}"
            folder.mkdir()
            try:
                server = stack.enter_context(nginx(folder, **options))
            except FileNotFoundError as exc:
                (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(exc))
            return server, folder

        yield start


def tree(cache):
    """Everything visible in a cache but receipts: links with where they lead, files with their bytes."""
    return {
        str(path.relative_to(cache.path)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in (*cache.blobs, *cache.links)
    }


def receipt(cache, model, *names):
    """The receipt of a model but for times and ``names``."""
    content = dict(cache.receipts[profile_id(model)])
    content.pop("created")
    content["files"] = [
        {name: value for name, value in file.items() if name not in {"mtime_ns", *names}} for file in content["files"]
    ]
    return content


@pytest.fixture(scope="module")
def direct(new_machine):
    """A machine that had the model from NGC itself."""
    machine = new_machine()
    path = machine.folder / "manifest.yaml"
    path.write_text(manifest_for(MODEL))
    with NgcServer([MODEL]) as server:
        machine.run("--manifest-file", path, env=server.environment()).check()
    return machine


# ---------------------------------------------------------------------------------------------------------- web servers
@pytest.mark.parametrize("secret", [None, NgcServer.nvapi_key], ids=["no NGC key", "with a key"])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_a_web_server_with_a_password_stands_in(secret, nested, offline, direct, web, manifest, certificates, sockets):
    server, folder = web(auth=True, certificates=certificates)
    fill(folder, MODEL, nested=nested)
    override = server.url.replace("://", f"://{USERINFO}")
    env = {"NIM_REPOSITORY_OVERRIDE": f"{override}/", "SSL_CERT_FILE": str(certificates.ca)}
    env |= {"NGC_API_KEY": secret} if secret else {}
    ended = offline.run("--manifest-file", manifest(MODEL), env=env).check()

    assert offline.cache.differences(MODEL) == []
    assert tree(offline.cache) == tree(direct.cache)
    assert receipt(offline.cache, MODEL, "host") == receipt(direct.cache, MODEL, "host")
    assert {file["host"] for file in receipt(offline.cache, MODEL)["files"]} == {"127.0.0.1"}
    assert {request.authorization for request in server.requests} == {BASIC}
    assert "p%40ss" not in ended.said

    offline.run("--manifest-file", manifest(MODEL), "--use-cache", within=sockets.within).check()
    assert sockets.lines == []


def test_beneath_a_folder_and_without_a_password(offline, web, manifest):
    server, folder = web()
    fill(folder / "nim" / "models", MODEL)
    offline.run("--manifest-file", manifest(MODEL), env=to(f"{server.url}/nim/models/")).check()
    assert offline.cache.differences(MODEL) == []
    assert {request.authorization for request in server.requests} == {"-"}


def to(*targets):
    return {"NIM_REPOSITORY_OVERRIDE": ",".join(targets)}


def test_a_server_of_python_s_with_folders(offline, manifest, tmp_path):
    fill(tmp_path / "www", LARGE, nested=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "www")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            offline.run("--manifest-file", manifest(LARGE), env=to(f"http://127.0.0.1:{server.server_port}")).check()
        finally:
            server.shutdown()
            thread.join()
    assert offline.cache.differences(LARGE) == []


def test_a_file_that_was_tampered_with_is_refused_and_named(offline, web, manifest):
    server, folder = web()
    fill(folder, MODEL, damaged={"config.json"})
    ended = offline.run("--manifest-file", manifest(MODEL), env=to(server.url))
    assert ended.code == 52
    assert f"wrong content of {MODEL.uri('config.json')} from 127.0.0.1" in ended.last
    assert "NIM_REPOSITORY_OVERRIDE" in ended.last
    assert not offline.cache.link(MODEL, "config.json").exists()
    assert offline.cache.receipts == {}


def test_a_file_that_is_missing_is_named_with_where_it_was_looked_for(offline, web, manifest):
    server, folder = web()
    fill(folder, MODEL, leave_out={"config.json"})
    ended = offline.run("--manifest-file", manifest(MODEL), env=to(server.url))
    assert ended.code == 31
    assert MODEL.uri("config.json") in ended.last
    assert f"{server.url}/{quote(key(MODEL.uri('config.json')), safe='')}" in ended.last


def test_of_many_files_few_are_asked_for(offline, web, manifest):
    model = NgcModel(files={f"part-{number}.bin": inline(f"{number}\n") for number in range(300)})
    first, first_folder = web()
    second, second_folder = web()
    absent = {f"part-{number}.bin" for number in range(5, 300, 50)}
    fill(first_folder, model, leave_out=absent, nested=True)
    fill(second_folder, model)
    offline.run("--manifest-file", manifest(model), env=to(first.url, second.url)).check()
    assert offline.cache.differences(model) == []
    assert [request.method for request in first.requests].count("HEAD") < 20
    assert {unquote(unquote(it.target)).rpartition("=")[2] for it in second.requests if it.status < 300} == absent


# -------------------------------------------------------------------------------------------------------------- proxies
@pytest.mark.parametrize("secret", [NgcServer.nvapi_key, NgcServer.legacy_key], ids=["nvapi", "legacy"])
def test_a_proxy_gets_the_key_and_ngc_nothing(secret, machine, direct, serve, manifest, certificates):
    served = serve(MODEL)
    with NgcServer([MODEL], certificates=certificates, prefix="/artifactory/api/nimmodel/ngc") as proxy:
        env = {
            **served.server.environment(secret),
            **to(proxy.api_url.replace("https://", "ngc://")),
            "NGC_API_SCHEME": "https",
            "SSL_CERT_FILE": str(certificates.ca),
        }
        machine.run("--manifest-file", manifest(MODEL), env=env).check()
        assert proxy.log.count(origin="api", status=200) > 0
        assert proxy.storage.leaks == []
    assert len(served.server.log) == 0
    assert tree(machine.cache) == tree(direct.cache)
    assert receipt(machine.cache, MODEL) == receipt(direct.cache, MODEL)


@pytest.mark.parametrize("uri", [MODEL.uri(), MODEL.uri().rpartition(":")[0]])
def test_a_model_uri_is_listed_by_a_proxy(uri, offline):
    with NgcServer([MODEL]) as proxy:
        env = {**to(proxy.api_url.replace("http://", "ngc://")), "NGC_API_KEY": NgcServer.nvapi_key}
        offline.run("--model-uri", uri, env=env).check()
    assert offline.cache.differences(NgcModel(files=MODEL.served_files)) == []


def test_a_proxy_refuses_another_key(offline, manifest):
    with NgcServer([MODEL]) as proxy:
        place = proxy.api_url.removeprefix("http://")
        ended = offline.run("--manifest-file", manifest(MODEL), env={**to(f"ngc://{place}"), "NGC_API_KEY": "nvapi-x"})
        assert ended.code == 32
        assert f"NGC_API_KEY for nim/meta/sample-llm:hf-1.0+chk1 at {place}" in ended.last
        assert "nvapi-x" not in ended.said


def test_no_manifest_says_where_the_key_goes(offline, tmp_path):
    """What stands for a proxied model inside of the plugin is nothing that can be written down."""
    with NgcServer([MODEL]) as other:
        uri = MODEL.uri().replace("ngc://", f"ngc://{other.api_url.removeprefix('http://')}//")
        path = tmp_path / "manifest.yaml"
        path.write_text(manifest_for(MODEL).replace(MODEL.uri(), uri))
        for arguments in (("--manifest-file", path), ("--model-uri", uri)):
            for env in ({}, to(other.api_url)):
                ended = offline.run(*arguments, env={"NGC_API_KEY": NgcServer.nvapi_key, **env})
                assert ended.code == 11
        assert len(other.log) == 0


def test_a_user_and_password_in_a_proxy_s_address(offline, manifest):
    ended = offline.run("--manifest-file", manifest(MODEL), env=to("ngc://me:hunter2@repo.example.com"))
    assert ended.code == 14
    assert "its key comes from NGC_API_KEY" in ended.last
    assert "hunter2" not in ended.said


# ------------------------------------------------------------------------------------------------------ several targets
def test_the_first_is_dead(offline, web, manifest):
    server, folder = web()
    fill(folder, MODEL)
    dead = f"http://u:hunter2@{closed_port()}/models"
    ended = offline.run("--manifest-file", manifest(MODEL), env=to(dead, server.url)).check()
    assert offline.cache.differences(MODEL) == []
    assert ended.said.count("override_given_up") == 1
    assert "hunter2" not in ended.said


def test_the_first_lacks_some_files(offline, web, manifest):
    first, first_folder = web()
    second, second_folder = web()
    missing = {"config.json", "model-00001-of-00002.safetensors"}
    fill(first_folder, MODEL, leave_out=missing)
    fill(second_folder, MODEL)
    offline.run("--manifest-file", manifest(MODEL), env=to(first.url, second.url)).check()
    assert offline.cache.differences(MODEL) == []
    gets = [unquote(unquote(it.target)) for it in second.requests if it.method == "GET"]
    assert {target.rpartition("=")[2] for target in gets} == missing


def test_the_first_has_wrong_content(offline, web, manifest):
    first, first_folder = web()
    second, second_folder = web()
    fill(first_folder, MODEL, damaged={"config.json"})
    fill(second_folder, MODEL)
    ended = offline.run("--manifest-file", manifest(MODEL), env=to(first.url, second.url)).check()
    assert offline.cache.differences(MODEL) == []
    assert "override_passed_over" in ended.said
    assert MODEL.uri("config.json") in ended.said
    gets = [unquote(unquote(it.target)) for it in second.requests if it.method == "GET"]
    assert [target.rpartition("=")[2] for target in gets] == ["config.json"]


def test_an_open_door_behind_a_closed_one(offline, web, manifest):
    """A wrong password is told, and the next target is asked."""
    first, first_folder = web(auth=True)
    second, second_folder = web()
    for folder in (first_folder, second_folder):
        fill(folder, MODEL)
    ended = offline.run("--manifest-file", manifest(MODEL), env=to(first.url, second.url)).check()
    assert offline.cache.differences(MODEL) == []
    assert ended.said.count("override_passed_over") == 1


@define
class Mirror:
    """A mirror of a model that answers nobody any more once it has sent so many bytes of weights."""

    model: NgcModel
    dies_after: int | None = None
    sent: int = 0
    lock: threading.Lock = field(factory=threading.Lock)

    def __call__(self, request):
        names = {f"/{quote(key(self.model.uri(name)), safe='')}": name for name in self.model.files}
        if request.target not in names:
            return "missing", Response(status=404)
        content = self.model.files[names[request.target]]
        answer = serve_content(request, content, etag=strong_etag(content))
        with self.lock:
            if self.dies_after is not None and self.sent >= self.dies_after:
                return "dead", bad_answers.no_answer()(answer)
            if request.method == "HEAD" or content.size < MEBIBYTE:
                return "alive", answer
            left = answer.stop if self.dies_after is None else self.dies_after - self.sent
            if answer.stop > left:
                answer = evolve(answer, cut_at=left)
            self.sent += answer.stop
            return "alive", answer


def test_the_first_dies_midway_and_the_second_goes_on_where_it_stopped(offline, manifest):
    first, second = Mirror(LARGE, dies_after=40 * MEBIBYTE), Mirror(LARGE)
    with (
        HttpOrigin("first", first, log=RequestLog()) as one,
        HttpOrigin("second", second, log=(log := RequestLog())) as two,
    ):
        ended = offline.run("--manifest-file", manifest(LARGE), env=to(one.url, two.url)).check()
    assert offline.cache.differences(LARGE) == []
    assert offline.cache.leftovers == []
    assert ended.said.count("override_given_up") == 1
    assert 40 * MEBIBYTE <= second.sent <= 48 * MEBIBYTE
    assert {exchange.request.header("Authorization") for exchange in log} == {None}


# ------------------------------------------------------------------------------------------------- what is no target
def test_a_registry_of_another_kind_is_refused_with_what_to_do(offline, manifest):
    ended = offline.run("--manifest-file", manifest(MODEL), env=to("hf://meta-llama/Llama"))
    assert ended.code == 14
    assert "hf:// cannot stand in for ngc://: NIM_REPOSITORY_OVERRIDE names hf://meta-llama/Llama" in ended.last
    assert "name its URIs in the manifest, or use --model-uri" in ended.last


def test_a_target_that_no_plugin_brings(offline, manifest):
    ended = offline.run("--manifest-file", manifest(MODEL), env=to("swift://container"))
    assert ended.code == 24
    assert "swift://" in ended.last


def test_a_web_server_cannot_list_a_model(offline):
    ended = offline.run("--model-uri", MODEL.uri(), env=to("https://models.example.com"))
    assert ended.code == 14
    assert "--manifest-file" in ended.last


def test_a_cache_that_is_complete_needs_no_target(direct, machine, sockets):
    direct.cache.copied_to(machine.cache.path, "-a")
    arguments = ("--manifest-file", direct.folder / "manifest.yaml", "--use-cache")
    env = {**to("rubbish"), "NIM_REPOSITORY_OVERRIDE_SCHEMES": "rubbish"}
    machine.run(*arguments, within=sockets.within, env=env).check()
    assert sockets.lines == []
    ended = machine.run(*arguments, "--force", env=env)
    assert ended.code == 14


# -------------------------------------------------------------------------------------------------------- other schemes
def test_other_schemes_are_left_alone_unless_they_are_named(offline, web, manifest, tmp_path):
    model = HubModel(files={"config.json": inline("{}\n"), "model.bin": PatternContent(length=70_000)})
    server, folder = web()
    for name, content in model.files.items():
        (folder / quote(model.uri(name, "v1"), safe="")).write_bytes(content.data())
    assert sorted(folder.iterdir())[0].name.startswith("hf%3A%2F%2Facme%2Fsample-llm%3Av1")
    path = manifest(model)
    path.write_text(path.read_text().replace(model.uri(), model.uri(revision="v1")))
    env = {**to(server.url), "HF_ENDPOINT": f"http://{closed_port()}", "HF_TOKEN": "hf_secret"}

    assert offline.run("--manifest-file", path, env=env).code == 39
    assert server.requests == []

    env["NIM_REPOSITORY_OVERRIDE_SCHEMES"] = "hf"
    offline.run("--manifest-file", path, env=env).check()
    snapshot: Path = offline.cache.path / "huggingface/hub/models--acme--sample-llm/snapshots/v1"
    assert {link.name: link.read_bytes() for link in snapshot.iterdir()} == {
        name: content.data() for name, content in model.files.items()
    }
    assert {request.authorization for request in server.requests} == {"-"}
    offline.run("--manifest-file", path, "--use-cache", env={"HF_ENDPOINT": f"http://{closed_port()}"}).check()


def test_a_scheme_that_nobody_brings(offline, manifest):
    env = {**to("https://models.example.com"), "NIM_REPOSITORY_OVERRIDE_SCHEMES": "ngc,ftp"}
    ended = offline.run("--manifest-file", manifest(MODEL), env=env)
    assert ended.code == 10
    assert "NIM_REPOSITORY_OVERRIDE_SCHEMES: ftp" in ended.last
    assert "installed: " in ended.last
