"""``download-to-cache`` from ModelScope, as a user runs it; its own client is asked in the plugin's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from nim_core.testing.corpus import Corpus, PatternContent, sample_corpus
from nim_core.testing.faults import cut, html_error
from nim_core.testing.modelscope_models import CODES, ModelScopeModel
from nim_core.testing.modelscope_server import MODELSCOPE_TOKEN, STRANGERS_TOKEN, ModelScopeServer
from tests.integration.test_proxy import USERINFO, squid

pytest_plugins = ["nim_core.testing"]

LARGE = 40_000_000
SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def model():
    """A model with a shard that is fetched in parts."""
    return ModelScopeModel(files=sample_corpus(shard_size=LARGE).files, revisions=("master", "v1.0"))


@pytest.fixture
def server(model):
    """A server that has it; fails the test when the token reached the storage."""
    with ModelScopeServer([model]) as running:
        yield running
    assert running.storage.leaks == []


def download(machine, server, uri, *arguments, token=MODELSCOPE_TOKEN, **options):
    env = {**server.environment(token), **options.pop("env", {})}
    return machine.run("--model-uri", uri, *arguments, env=env, **options)


def snapshot(machine, model, revision="master"):
    return machine.cache.path / "modelscope/models" / f"{model.org}--{model.name}" / "snapshots" / revision


def differences(machine, model, revision="master"):
    return Corpus(files=model.files).differences(snapshot(machine, model, revision))


def test_a_model_is_downloaded_verified_and_found_again_without_a_network(machine, server, model):
    download(machine, server, model.uri()).check()
    assert differences(machine, model) == []
    server.log.clear()
    download(machine, server, model.uri(), "--use-cache", token=None).check()
    assert len(server.log) == 0


def test_a_model_of_another_revision_stands_beside_the_first(machine, server, model):
    for revision in ("master", "v1.0", model.commit):
        download(machine, server, model.uri(revision=revision)).check()
        assert differences(machine, model, revision) == []


def test_one_file(machine, server, model):
    download(machine, server, model.uri("données/日本語 ü.txt", revision="v1.0")).check()
    only = {"données/日本語 ü.txt": model.files["données/日本語 ü.txt"]}
    assert Corpus(files=only).differences(snapshot(machine, model, "v1.0")) == []


def test_modelscope_cache_moves_the_files(machine, server, model, tmp_path):
    download(machine, server, model.uri(), env={"MODELSCOPE_CACHE": str(tmp_path / "ms")}).check()
    found = tmp_path / "ms/models" / f"{model.org}--{model.name}" / "snapshots/master"
    assert Corpus(files=model.files).differences(found) == []
    assert not (machine.cache.path / "modelscope").exists()


def test_a_branch_that_moves_brings_the_files_that_changed(machine, model):
    newer = evolve(model, files={**model.files, "config.json": model.files["LICENSE"]})
    with ModelScopeServer([model]) as server:
        download(machine, server, model.uri()).check()
    with ModelScopeServer([newer]) as server:
        download(machine, server, model.uri()).check()
        assert [exchange.request.parameter("FilePath") for exchange in server.log.select(route="file")] == [
            "config.json"
        ]
    assert differences(machine, newer) == []


def test_files_of_git_are_never_asked_for_by_range_and_start_again_when_cut(machine, model):
    plain = evolve(model, lfs_from=LARGE * 2)
    with ModelScopeServer([plain]) as server:
        server.faults.add(cut(LARGE // 2), route="file", path="*", times=1)
        download(machine, server, plain.uri(SHARD)).check()
        asked = server.log.select(route="file", method="GET")
    assert [exchange.request.header("Range") for exchange in asked] == [None, None]
    assert Corpus(files={SHARD: plain.files[SHARD]}).differences(snapshot(machine, plain)) == []


def test_lfs_files_go_on_where_they_were_cut(machine, server, model):
    server.faults.add(cut(LARGE // 2), route="storage", times=1)
    download(machine, server, model.uri(SHARD)).check()
    sent = sum(exchange.sent for exchange in server.log.select(route="storage"))
    assert sent <= LARGE * 3 / 2
    assert Corpus(files={SHARD: model.files[SHARD]}).differences(snapshot(machine, model)) == []


def test_a_signed_url_that_is_refused_is_asked_for_anew(machine, server, model):
    server.faults.add(html_error(403), route="storage", times=1)
    download(machine, server, model.uri(SHARD)).check()
    assert Corpus(files={SHARD: model.files[SHARD]}).differences(snapshot(machine, model)) == []


def test_a_file_that_is_refused_once_is_asked_for_again(machine, server, model):
    server.refuse(403, "access denied", route="file", times=1)
    download(machine, server, model.uri("config.json")).check()


def test_wrong_bytes_do_not_become_visible(machine, server, model):
    server.storage.flip(model.storage_path(SHARD), LARGE // 3)
    ended = download(machine, server, model.uri(SHARD))
    assert ended.code == 52, ended.stderr
    assert not (snapshot(machine, model) / SHARD).exists()


def test_no_model_is_no_file_of_the_cache(machine, server, model):
    ended = download(machine, server, model.uri(revision="v9"))
    assert (ended.code, "its revisions are master, v1.0" in ended.stderr) == (31, True), ended.stderr
    assert machine.cache.receipts == {}


@pytest.mark.parametrize(("token", "code"), [(None, 32), (STRANGERS_TOKEN, 33)])
def test_who_may_not_is_told_the_page_to_visit(machine, model, token, code):
    gated = evolve(model, access="gated")
    with ModelScopeServer([gated]) as server:
        ended = download(machine, server, gated.uri(), token=token)
    assert ended.code == code, ended.stderr
    assert f"apply for access at https://modelscope.cn/models/{gated.org}/{gated.name}" in ended.stderr
    assert str(token) not in ended.said


def test_files_that_are_gated_though_listed_are_told_so_too(machine, server, model):
    server.refuse(404, "no access", code=CODES["no access"], route="file")
    ended = download(machine, server, model.uri("config.json"))
    assert (ended.code, "apply for access at" in ended.stderr) == (33, True), ended.stderr
    assert MODELSCOPE_TOKEN not in ended.said


@pytest.mark.parametrize("auth", [False, True], ids=["open proxy", "proxy with password"])
def test_through_a_proxy_and_a_private_authority_and_no_way_around(machine, certificates, sockets, model, auth):
    with ModelScopeServer([model], certificates=certificates) as server, squid(auth=auth) as proxy:
        through = {
            "HTTPS_PROXY": f"http://{USERINFO if auth else ''}{proxy.host_port}",
            "SSL_CERT_FILE": str(certificates.ca),
        }
        download(machine, server, model.uri(), env=through, within=sockets.within).check()
        for url in (server.url, server.storage_url):
            assert proxy.saw(f"CONNECT {url.partition('://')[2]}")
        assert sockets.ports == {int(proxy.host_port.rpartition(":")[2])}
    assert differences(machine, model) == []
    assert server.storage.leaks == []


def test_an_authority_that_is_not_trusted_is_an_error(machine, certificates, model):
    with ModelScopeServer([model], certificates=certificates) as server:
        ended = download(machine, server, model.uri())
        assert ended.code != 0
        assert "SSL_CERT_FILE" in ended.stderr
        assert len(server.log) == 0


def test_large_files_of_both_kinds_are_whole(machine):
    files = {"git.bin": PatternContent(length=LARGE // 2 - 1), "lfs.bin": PatternContent(length=LARGE, seed=3)}
    model = ModelScopeModel(files=files, lfs_from=LARGE)
    with ModelScopeServer([model]) as server:
        download(machine, server, model.uri()).check()
    assert differences(machine, model) == []


def test_help_needs_no_vendors_library(machine):
    code = "import sys; sys.argv = ['nim-llm', '--help']; from nim_core.cli.app import main\n"
    code += "try: main()\nfinally: assert not {'modelscope_hub', 'requests'} & set(sys.modules)"
    script = Path(machine.folder, "help.py")
    script.write_text(code, encoding="utf-8")
    machine.run(script, command=("python",)).check()
