"""NVIDIA's own client, ngcsdk, against the stand-in for NGC: what satisfies it is what the plugin is tested with."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from nim_core.testing.corpus import Corpus, sample_corpus
from nim_core.testing.ngc_auth import LEGACY_KEY, NVAPI_KEY
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer

pytest_plugins = ["nim_core.testing"]

VARIABLE = "NIM_TEST_NGCSDK_PYTHON"
SCRIPT = Path(__file__).with_name("ngcsdk_download.py")

pytestmark = pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} names no Python that has ngcsdk")


def ngcsdk(server: NgcServer, model: NgcModel, key: str, home: Path, ca: Path, *patterns: str) -> dict:
    """List and download with ngcsdk, in a home of its own; it reads its variables when it is imported."""
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "NGC_CLI_API_URL": server.api_url,
        "NGC_CLI_AUTH_URL": server.auth_url,
        "NGC_CLI_PROGRESS_BAR_STYLE": "NONE",
        "REQUESTS_CA_BUNDLE": str(ca),
    }
    target = model.uri().removeprefix("ngc://")
    command = [os.environ[VARIABLE], str(SCRIPT), target, model.org, key, str(home), *patterns]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("page_size", [5, 6, 500], ids=lambda size: f"pages of {size}")
@pytest.mark.parametrize("key", [NVAPI_KEY, LEGACY_KEY], ids=["nvapi key", "legacy key"])
def test_ngcsdk_lists_and_downloads_everything(tmp_path, corpus, certificates, key, page_size):
    model = NgcModel(files=corpus.files)
    with NgcServer([model], certificates=certificates, page_size=page_size) as server:
        found = ngcsdk(server, model, key, tmp_path / "home", certificates.ca)
    assert found["listed"] == {path: content.size for path, content in model.served_files.items()}
    assert (found["status"], found["bytes"]) == ("Completed", sum(found["listed"].values()))
    assert Corpus(files=model.served_files).differences(Path(found["path"])) == []
    assert server.storage.leaks == []
    empty = server.log.select(route="storage", path="*/empty.txt")
    assert [exchange.request.header("Range") for exchange in empty] == ["bytes=0--1"]


def test_ngcsdk_downloads_a_model_without_team_and_a_large_file(tmp_path, certificates):
    model = NgcModel(files=sample_corpus(shard_size=64 << 20).files, team=None)
    with NgcServer([model], certificates=certificates) as server:
        found = ngcsdk(server, model, NVAPI_KEY, tmp_path / "home", certificates.ca)
    assert Corpus(files=model.served_files).differences(Path(found["path"])) == []


@pytest.mark.parametrize("team", ["meta", None])
def test_ngcsdk_downloads_as_a_guest(tmp_path, corpus, certificates, team):
    model = NgcModel(files=corpus.files, team=team, guest=True)
    with NgcServer([model], certificates=certificates, page_size=5) as server:
        found = ngcsdk(server, model, "", tmp_path / "home", certificates.ca)
    assert Corpus(files=model.served_files).differences(Path(found["path"])) == []
    assert server.log.select(status=401) == []


def test_ngcsdk_asks_for_picked_files_one_by_one(tmp_path, corpus, certificates):
    model = NgcModel(files=corpus.files)
    with NgcServer([model], certificates=certificates) as server:
        found = ngcsdk(server, model, NVAPI_KEY, tmp_path / "home", certificates.ca, "*.txt")
        asked = {exchange.request.parameter("path") for exchange in server.log.select(route="manifest")}
    picked = {path: content for path, content in corpus.files.items() if path.endswith(".txt")}
    assert asked == set(picked)
    assert Corpus(files=picked).differences(Path(found["path"])) == []
