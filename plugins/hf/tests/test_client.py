"""The Hub's official client: its word on our stand-in for the Hub, on the cache we write, and its cache as ours."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import pytest
from packaging.version import Version

from nim_core.testing.corpus import Corpus
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer

FOUND = """
import json, sys
from huggingface_hub import snapshot_download, try_to_load_from_cache
folder = snapshot_download("acme/sample-llm", local_files_only=True)
print(json.dumps([folder, try_to_load_from_cache("acme/sample-llm", "config.json", revision="main")]))
"""

VERSION = Version(version("huggingface_hub"))
verifies = pytest.mark.skipif(Version("2.0") > VERSION, reason=f"huggingface_hub {VERSION} has no hf cache verify")


@pytest.fixture
def model(corpus):
    """The model of the ``hub_server`` fixture."""
    return HubModel(files=corpus.files)


@pytest.fixture
def shared(user):
    """The variable that gives both one cache."""
    return {"HF_HOME": str(user.folder / "hf")}


# ---------------------------------------------------------------------------------------------- on our stand-in
def test_the_client_downloads_from_the_stand_in(user, hub_server, model):
    user.run("hf", "download", "acme/sample-llm", "--local-dir", str(user.folder / "there"))
    found = Corpus(files=model.files).differences(user.folder / "there")
    assert [line for line in found if ".cache/" not in line] == []
    assert hub_server.log.count(method="HEAD", route="resolve") == len(model.files)


def test_the_client_fetches_from_the_stand_ins_xet_storage(user, corpus):
    model = HubModel(files=corpus.files, xet=True)
    with HubServer([model]) as server:
        user.run(
            "hf", "download", "acme/sample-llm", "--local-dir", str(user.folder / "there"), env=server.environment()
        )
        assert server.log.count(route="xorb") >= 3
        assert server.log.count(origin="storage") == 0
    found = Corpus(files=model.files).differences(user.folder / "there")
    assert [line for line in found if ".cache/" not in line] == []


ERRORS = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download

def outcome(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except Exception as error:
        return type(error).__name__
    return "fine"

for name, revision, file in json.loads(sys.argv[1]):
    print(outcome(HfApi().model_info, name, revision=revision), outcome(hf_hub_download, name, file, revision=revision))
"""


def test_the_client_understands_the_stand_ins_errors(user, corpus):
    names = {"gated": {"gated": True}, "private": {"private": True}, "disabled": {"disabled": True}, "open": {}}
    models = [HubModel(files=corpus.files, repository=f"acme/{name}", **facts) for name, facts in names.items()]
    asked = [[f"acme/{name}", "main", "config.json"] for name in (*names, "nothing")]
    asked += [["acme/open", "v9", "config.json"], ["acme/open", "main", "no.txt"]]
    with HubServer(models) as server:
        env = {**server.environment(server.strangers_token), "HF_HOME": str(user.folder / "hf")}
        script = user.folder / "errors.py"
        script.write_text(ERRORS)
        found = (
            user.run(sys.executable, str(script), json.dumps(asked), env=env)
            .stdout.replace("RemoteEntry", "Entry")
            .splitlines()
        )
    assert found == [
        "fine GatedRepoError",
        "RepositoryNotFoundError RepositoryNotFoundError",
        "DisabledRepoError LocalEntryNotFoundError",
        "fine fine",
        "RepositoryNotFoundError RepositoryNotFoundError",
        "RevisionNotFoundError RevisionNotFoundError",
        "fine EntryNotFoundError",
    ]


# -------------------------------------------------------------------------------------------- on the cache we write
@verifies
def test_the_client_verifies_what_we_wrote(user, model, shared):
    user.download("hf://acme/sample-llm", env=shared)
    strict = ("--fail-on-missing-files", "--fail-on-extra-files")
    said = user.run("hf", "cache", "verify", "acme/sample-llm", *strict, env=shared).stdout
    assert f"Verified {len(model.files)} file(s)" in said


@verifies
def test_the_client_would_see_a_wrong_byte(user, model, shared):
    user.download("hf://acme/sample-llm", env=shared)
    [link] = user.folder.glob("hf/hub/*/snapshots/*/config.json")
    link.resolve().write_bytes(b"x" * model.files["config.json"].size)
    user.run("hf", "cache", "verify", "acme/sample-llm", code=1, env=shared)


def test_the_client_finds_what_we_wrote_without_a_network(user, hub_server, model, shared):
    user.download("hf://acme/sample-llm", env=shared)
    hub_server.log.clear()
    offline = {**shared, "HF_HUB_OFFLINE": "1"}
    folder, config = json.loads(user.run(sys.executable, "-c", FOUND, env=offline).stdout)
    assert Corpus(files=model.files).differences(user.folder / folder) == []
    assert config == f"{folder}/config.json"
    assert len(hub_server.log) == 0


def test_the_client_goes_on_with_what_we_wrote(user, hub_server, shared):
    user.download("hf://acme/sample-llm?file=config.json", env=shared)
    hub_server.log.clear()
    user.run("hf", "download", "acme/sample-llm", env=shared)
    fetched = [e.request.path for e in hub_server.log.select(method="GET") if e.route in {"file", "storage"}]
    assert fetched
    assert [path for path in fetched if path.endswith("/config.json")] == []


def test_the_client_finds_a_dataset_that_we_wrote(user, corpus, shared):
    data = HubModel(files=corpus.files, dataset=True)
    line = ("hf", "download", "acme/sample-llm", "--repo-type", "dataset", "--quiet")
    with HubServer([data]) as server:
        reached = {**shared, **server.environment()}
        user.run(*line, "--local-dir", str(user.folder / "there"), env=reached)
        user.download("hf://datasets/acme/sample-llm", env=reached)
    found = user.run(*line, env={**shared, "HF_HUB_OFFLINE": "1"}).stdout.splitlines()[-1].removeprefix("path: ")
    assert "datasets--acme--sample-llm" in found
    assert Corpus(files=corpus.files).differences(user.folder / found) == []


# ------------------------------------------------------------------------------------------- its cache as ours
@pytest.mark.parametrize("xet", [False, True])
def test_what_the_client_wrote_is_used_without_a_download(user, corpus, shared, xet):
    model = HubModel(files=corpus.files, xet=xet)
    with HubServer([model]) as server:
        env = {**server.environment(), **shared}
        user.run("hf", "download", "acme/sample-llm", env=env)
        links = {path: path.readlink() for path in user.folder.glob("hf/hub/*/snapshots/**/*") if path.is_symlink()}
        server.log.clear()
        assert "nothing to fetch" in user.download("hf://acme/sample-llm", env=env)
        assert server.log.count(route="resolve") + server.log.count(origin="storage") == 0
        assert {path: path.readlink() for path in links} == links
        server.log.clear()
        user.download("hf://acme/sample-llm", "--use-cache", env=env)
        assert len(server.log) == 0


@pytest.mark.parametrize("listing", [True, False], ids=["with its listing", "without"])
def test_what_the_client_wrote_is_used_offline(user, hub_server, model, shared, listing):
    user.run("hf", "download", "acme/sample-llm", env=shared)
    for tree in user.folder.glob("hf/hub/*/trees/*") if not listing else ():
        tree.unlink()
    hub_server.log.clear()
    offline = {**shared, "HF_HUB_OFFLINE": "1"}
    assert "nothing to fetch" in user.download("hf://acme/sample-llm", env=offline)
    assert "nothing to fetch" in user.download(f"hf://acme/sample-llm:{model.commit}?file=LICENSE", env=offline)
    user.download("hf://acme/sample-llm", "--use-cache", env=offline)
    assert len(hub_server.log) == 0
    user.download("hf://acme/sample-llm:v9", code=64, env=offline)
    [config] = user.folder.glob("hf/hub/*/snapshots/*/config.json")
    config.resolve().write_bytes(b"x" * model.files["config.json"].size)
    last = user.download("hf://acme/sample-llm", code=64, env=offline).splitlines()[-1]
    assert "HF_HUB_OFFLINE is set, and the cache lacks acme/sample-llm:main?file=config.json" in last


def test_what_the_client_wrote_wrongly_is_fetched_again(user, hub_server, model, shared):
    """The client checks sizes alone."""
    large = "model-00001-of-00002.safetensors"
    hub_server.storage.flip(model.storage_path(large), 1000)
    user.run("hf", "download", "acme/sample-llm", env={**shared, "HF_HUB_DISABLE_XET": "1"})
    hub_server.storage.flip(model.storage_path(large), 1000)
    assert "to fetch: 1 file" in user.download("hf://acme/sample-llm", env=shared)
    [folder] = user.folder.glob("hf/hub/*/snapshots/*")
    assert Corpus(files=model.files).differences(folder) == []
