"""
ModelScope's own client: what satisfies it is what the plugin is tested with, and our cache is what it finds.

It runs in a process and a home of its own, as it reads its variables when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nim_core.testing.corpus import Corpus, PatternContent, inline
from nim_core.testing.modelscope_models import CODES, ModelScopeModel
from nim_core.testing.modelscope_server import MODELSCOPE_TOKEN, STRANGERS_TOKEN, ModelScopeServer

DOWNLOAD = """
import sys
from modelscope_hub import HubApi
from modelscope_hub.errors import HubError
repo, revision, offline, *file = sys.argv[1:]
fetch = HubApi().download_file if file else HubApi().download_repo
try:
    found = fetch(repo, "model", *file, revision=revision or None, local_files_only=bool(offline))
except HubError as error:
    sys.exit(type(error).__name__)
print(found)
"""
SNAPSHOT = """
import sys
from modelscope_hub.compat import snapshot_download
print(snapshot_download(sys.argv[1], local_files_only=True))
"""
LIST = """
import sys
from modelscope_hub import HubApi
print(sum(entry["Type"] != "tree" for entry in HubApi().legacy.list_repo_files(sys.argv[1], "model")))
"""


class Client:
    """Runs the client; ``cache`` is its MODELSCOPE_CACHE."""

    def __init__(self, home: Path, server: ModelScopeServer):
        self.server = server
        self.cache = home / "cache"
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "MODELSCOPE_CACHE": str(self.cache)}

    def run(self, model, *file, revision="", offline=False, **environment):
        """Return where the client says that the model, or the file, is, or the name of its error."""
        repo = f"{model.org}/{model.name}"
        said = self.script(DOWNLOAD, repo, revision, "yes" if offline else "", *file, **environment)
        return Path(said) if said.startswith("/") else said

    def script(self, code, *arguments, token=MODELSCOPE_TOKEN, **environment):
        """Return the last line of what a script says."""
        variables = {**self.environment, **self.server.environment(token), **environment}
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
        return (done.stderr if done.returncode else done.stdout).splitlines()[-1]

    def ours(self, uri, **environment):
        """Download with this project's command, into a cache of its own but for MODELSCOPE_CACHE."""
        variables = {**self.environment, **self.server.environment(), "NIM_CACHE_PATH": f"{self.cache}-of-ours"}
        command = [Path(sys.executable).with_name("download-to-cache"), "--model-uri", uri]
        done = subprocess.run(
            command, env={**variables, **environment}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr


@pytest.fixture
def client(tmp_path, modelscope_server):
    """The client, directed to the server of the ``modelscope_server`` fixture."""
    return Client(tmp_path, modelscope_server)


@pytest.fixture
def model(corpus):
    """The model of the ``modelscope_server`` fixture."""
    return ModelScopeModel(files=corpus.files)


# --------------------------------------------------------------------------------------- the stand-in is as it expects
def test_downloads_everything(client, corpus, model):
    assert corpus.differences(client.run(model)) == []
    sent = client.server.log.select(origin="api", route="listing")[0].request
    assert (sent.header("Authorization"), sent.header("Cookie")) == (
        f"Bearer {MODELSCOPE_TOKEN}",
        f"m_session_id={MODELSCOPE_TOKEN}",
    )
    assert client.server.log.count(route="storage") == 3


def test_downloads_a_public_model_without_token_and_one_file_by_commit(client, corpus, model):
    assert corpus.differences(client.run(model, token=None)) == []
    found = client.run(model, "config.json", revision=model.commit)
    assert found.read_bytes() == model.files["config.json"].data()


def test_reads_lfs_files_by_ranges_each_of_them_redirected(tmp_path):
    files = {"model.bin": PatternContent(length=400_000_000)}
    model = ModelScopeModel(files=files)
    with ModelScopeServer([model]) as server:
        client = Client(tmp_path, server)
        parallel = {"MODELSCOPE_DOWNLOAD_PARALLEL_WORKERS": "2", "MODELSCOPE_DOWNLOAD_PARALLEL_THRESHOLD_MB": "100"}
        assert Corpus(files=files).differences(client.run(model, **parallel)) == []
        ranged = [exchange.status for exchange in server.log.select(origin="storage")]
    assert len(ranged) > 1
    assert set(ranged) == {206}


def test_is_told_apart_who_may_not(tmp_path, corpus):
    private = ModelScopeModel(files=corpus.files, name="private", access="private")
    gated = ModelScopeModel(files=corpus.files, name="gated", access="gated")
    with ModelScopeServer([private, gated]) as server:
        client = Client(tmp_path, server)
        assert corpus.differences(client.run(private)) == []
        for model in (private, gated):
            assert client.run(model, token=STRANGERS_TOKEN, MODELSCOPE_CACHE=str(tmp_path / "other")) == "NotExistError"
        server.refuse(400, "bad token", code=CODES["bad token"], route="listing")
        assert client.run(gated) == "AuthenticationError"


def test_lists_all_of_a_listing_that_is_cut(tmp_path):
    files = {f"f{number % 2}/{number:05d}": inline("x") for number in range(3100)}
    model = ModelScopeModel(files=files)
    with ModelScopeServer([model]) as server:
        client = Client(tmp_path, server)
        assert client.script(LIST, f"{model.org}/{model.name}") == str(len(files))
        assert server.log.count(route="listing") == 4


# ------------------------------------------------------------------------------------------------- one cache for both
def test_finds_what_we_have_downloaded_without_a_network(client, corpus, model):
    client.ours(model.uri())
    client.server.log.clear()
    assert corpus.differences(client.run(model, offline=True)) == []
    assert client.run(model, "config.json", offline=True).read_bytes() == model.files["config.json"].data()
    assert client.run(model, offline=True, revision="v9") == "CacheNotFound"
    assert len(client.server.log) == 0


def test_finds_it_by_the_function_of_the_larger_package_too(client, corpus, model):
    client.ours(model.uri())
    assert corpus.differences(Path(client.script(SNAPSHOT, f"{model.org}/{model.name}"))) == []


@pytest.mark.parametrize("revision", ["v1.0", "feature/x"])
def test_finds_other_revisions_too(tmp_path, corpus, revision):
    model = ModelScopeModel(files=corpus.files, revisions=("master", revision))
    with ModelScopeServer([model]) as server:
        client = Client(tmp_path, server)
        client.ours(model.uri(revision=revision))
        assert corpus.differences(client.run(model, offline=True, revision=revision)) == []


def test_finds_our_cache_where_it_looks_for_its_own(client, corpus, model, tmp_path):
    client.ours(model.uri(), NIM_CACHE_PATH=str(tmp_path / ".cache"), MODELSCOPE_CACHE="")
    assert corpus.differences(client.run(model, offline=True, MODELSCOPE_CACHE="")) == []


def test_says_that_our_cache_is_right_and_downloads_nothing_again(client, corpus, model):
    client.ours(model.uri())
    client.server.log.clear()
    assert corpus.differences(client.run(model)) == []
    assert client.server.log.count(route="file") == 0


def test_what_it_has_downloaded_is_not_downloaded_again_by_us(client, corpus, model):
    found = client.run(model)
    client.server.log.clear()
    said = client.ours(model.uri())
    assert client.server.log.count(route="file") == 0, said
    assert corpus.differences(found) == []
    assert corpus.differences(client.run(model, offline=True)) == []


def test_a_file_of_its_that_is_damaged_is_replaced_by_us(client, corpus, model):
    found = client.run(model)
    (found / "config.json").write_bytes(b"?" * model.files["config.json"].size)
    client.server.log.clear()
    client.ours(model.uri())
    assert client.server.log.count(route="file") == 1
    assert corpus.differences(client.run(model, offline=True)) == []
