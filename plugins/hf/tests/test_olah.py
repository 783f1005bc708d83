"""A real Olah between us and the stand-in for the Hub: what the documented local proxy makes of everything."""

from __future__ import annotations

import os
import socket
import subprocess
import time

import pytest

from nim_core.testing.corpus import Corpus, sample_corpus
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer

VARIABLE = "NIM_TEST_OLAH"
LARGE = "model-00001-of-00002.safetensors"

pytestmark = pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} names no olah-cli")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("olah does not answer")


@pytest.fixture
def hub():
    """A hub with a large file of several ranges, announced as Xet's, and a listing of several pages."""
    corpus = sample_corpus(shard_size=80_000_000)
    files = {path: content for path, content in corpus.files.items() if "#" not in path}  # olah loses these
    with HubServer([HubModel(files=files, xet=True)], page_size=5) as server:
        yield server, HubModel(files=files, xet=True)
    assert server.storage.leaks == []


@pytest.fixture
def olah(hub, tmp_path):
    """The URL of an Olah before the hub."""
    server, _ = hub
    folder, port, upstream = tmp_path / "olah", free_port(), server.url.partition("://")[2]
    folder.mkdir()
    options = {"host": "127.0.0.1", "port": port, "hf-scheme": "http", "hf-netloc": upstream, "hf-lfs-netloc": upstream}
    options |= {"repos-path": folder / "repos", "log-path": folder / "log"}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with (folder / "out").open("w") as out:
        process = subprocess.Popen([os.environ[VARIABLE], *arguments], cwd=folder, stdout=out, stderr=out)
        try:
            wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def test_through_olah(user, hub, olah):
    server, model = hub
    environment = {"HF_ENDPOINT": olah}
    user.download("hf://acme/sample-llm", env=environment)
    [snapshot] = user.cache.glob("huggingface/hub/*/snapshots/*")
    assert (snapshot.name, Corpus(files=model.files).differences(snapshot)) == (model.commit, [])
    assert server.log.count(origin="xet") + server.log.count(route="xet-token") == 0
    assert {exchange.request.header("User-Agent").startswith("nim-core/") for exchange in server.log} == {False}
    server.log.clear()
    user.download("hf://acme/sample-llm", "--force", env=environment)
    assert server.log.count(origin="storage") == 0
    last = user.download("hf://acme/nothing", code=31, env=environment).splitlines()[-1]
    assert "no such model, or a private one: acme/nothing" in last


def test_one_file_through_olah(user, hub, olah):
    _, model = hub
    user.download(f"hf://acme/sample-llm?file={LARGE}", env={"HF_ENDPOINT": olah})
    [snapshot] = user.cache.glob("huggingface/hub/*/snapshots/*")
    assert Corpus(files={LARGE: model.files[LARGE]}).differences(snapshot) == []
