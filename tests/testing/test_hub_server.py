"""The stand-in for the Hugging Face Hub; the tests of plugins/hf ask the Hub's own client."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from attrs import evolve

from nim_core.testing.harness import ControlClient
from nim_core.testing.hub_models import HubModel, rate_limited
from nim_core.testing.hub_server import HubServer

pytest_plugins = ["nim_core.testing"]

LARGE = "model-00001-of-00002.safetensors"


class Member:
    """Asks with a token, or another one, or none."""

    def __init__(self, server, client):
        self.server = server
        self.client = client

    def ask(self, path, token=HubServer.token, method="GET", **headers):
        signed = {"Authorization": f"Bearer {token}"} if token else {}
        url = path if path.startswith("http") else self.server.url + path
        return self.client.request(method, url, headers={**signed, **headers}, follow_redirects=False)

    def code(self, path, **options):
        answer = self.ask(path, **options)
        return answer.status_code, answer.headers.get("X-Error-Code")


@pytest.fixture
def model(corpus):
    """The model of the ``hub_server`` fixture."""
    return HubModel(files=corpus.files)


@pytest.fixture
def member(hub_server):
    """A member who asks that server."""
    with ControlClient() as client:
        yield Member(hub_server, client)


def test_revision(member, model):
    facts = member.ask("/api/models/acme/sample-llm/revision/main").json()
    assert (facts["sha"], [one["rfilename"] for one in facts["siblings"]]) == (model.commit, list(model.files))
    assert member.ask(f"/api/models/acme/sample-llm/revision/{model.commit}").json()["sha"] == model.commit
    assert member.ask("/api/models/acme/sample-llm").json()["sha"] == model.commit


def test_tree_in_pages(member, model):
    found, path = [], f"/api/models/acme/sample-llm/tree/{model.commit}?recursive=true&expand=false"
    while path:
        answer = member.ask(path)
        assert len(answer.json()) <= 4
        found += answer.json()
        path = answer.links.get("next", {}).get("url")
    entries = {entry["path"]: entry for entry in found}
    assert entries.keys() == {*model.files, *model.folders}
    assert entries[LARGE]["lfs"]["oid"] == model.files[LARGE].digest("sha256").value
    assert entries["config.json"]["oid"] == model.files["config.json"].digest("sha1-git").value
    assert entries["trtllm_engine"]["type"] == "directory"


def test_tree_of_a_folder_and_without_those_below(member):
    names = [entry["path"] for entry in member.ask("/api/models/acme/sample-llm/tree/main/données/").json()]
    assert names == ["données/日本語 ü.txt"]
    top = member.ask("/api/models/acme/sample-llm/tree/main").json()
    assert all("/" not in entry["path"] for entry in top)
    assert member.code("/api/models/acme/sample-llm/tree/main/none") == (404, "EntryNotFound")


def test_small_files_come_from_the_hub_itself(member, model):
    first = member.ask("/acme/sample-llm/resolve/main/config.json")
    assert (first.status_code, first.headers["X-Repo-Commit"]) == (307, model.commit)
    answer = member.ask(first.headers["Location"], Range="bytes=2-5")
    assert (answer.status_code, answer.content) == (206, model.files["config.json"].read(2, 6))
    assert answer.headers["ETag"] == f'"{model.etag("config.json")}"'


def test_large_files_come_from_a_storage_that_wants_no_token(hub_server, member, model):
    first = member.ask(f"/acme/sample-llm/resolve/main/{LARGE}", method="HEAD")
    assert (first.status_code, first.headers["X-Linked-Size"]) == (302, str(model.files[LARGE].size))
    assert first.headers["X-Linked-Etag"] == f'"{model.etag(LARGE)}"'
    url = first.headers["Location"]
    assert url.startswith(hub_server.storage_url)
    assert member.ask(url, token=None).content == model.files[LARGE].data()
    assert member.code(url) == (403, None)
    assert len(hub_server.storage.leaks) == 1
    hub_server.storage.leaks.clear()
    hub_server.expire_urls()
    assert member.code(url, token=None) == (403, None)


@pytest.mark.parametrize(
    ("facts", "token", "listed", "file"),
    [
        ({}, None, (200, None), (307, None)),
        ({}, "wrong", (401, None), (401, None)),
        ({"gated": True}, None, (200, None), (401, "GatedRepo")),
        ({"gated": True}, HubServer.strangers_token, (200, None), (403, "GatedRepo")),
        ({"gated": True}, HubServer.token, (200, None), (307, None)),
        ({"private": True}, None, (401, "RepoNotFound"), (401, "RepoNotFound")),
        ({"private": True}, HubServer.strangers_token, (404, "RepoNotFound"), (404, "RepoNotFound")),
        ({"private": True}, HubServer.token, (200, None), (307, None)),
        ({"disabled": True}, HubServer.token, (403, None), (403, None)),
    ],
)
def test_who_may_read_what(hub_server, member, model, facts, token, listed, file):
    hub_server.add(evolve(model, repository="acme/other", **facts))
    assert member.code("/api/models/acme/other/revision/main", token=token) == listed
    assert member.code("/acme/other/resolve/main/config.json", token=token) == file


def test_what_is_not_there(member):
    assert member.code("/api/models/acme/nothing") == (404, "RepoNotFound")
    assert member.code("/api/models/acme/sample-llm/revision/v9") == (404, "RevisionNotFound")
    assert member.code("/acme/sample-llm/resolve/main/no.txt") == (404, "EntryNotFound")
    assert member.code("/elsewhere") == (404, None)


def test_another_commit_takes_over_its_revisions(hub_server, member, model):
    newer = evolve(model, files={"config.json": model.files["config.json"]})
    hub_server.add(newer)
    assert member.ask("/api/models/acme/sample-llm/revision/main").json()["sha"] == newer.commit != model.commit
    assert member.ask(f"/api/models/acme/sample-llm/revision/{model.commit}").status_code == 200


def test_what_only_xet_gives_out(corpus):
    model = HubModel(files=corpus.files, xet_only=frozenset({LARGE}))
    with HubServer([model]) as server, ControlClient() as client:
        member = Member(server, client)
        announced = member.ask(f"/acme/sample-llm/resolve/main/{LARGE}").headers
        assert announced["X-Xet-Hash"] == model.xet_hash(LARGE)
        assert member.ask(announced["Location"], token=None).status_code == 400
        token = member.ask(announced["X-Xet-Refresh-Route"]).headers
        url = f"{token['X-Xet-Cas-Url']}/v1/reconstructions/{announced['X-Xet-Hash']}"
        assert member.ask(url).status_code == 401
        assert member.ask(url, token=token["X-Xet-Access-Token"]).json()["terms"][0]["unpacked_length"] == 200_000


def test_rate_limit_in_the_hubs_words():
    answer = rate_limited(55)
    assert (answer.status, answer.headers["RateLimit"]) == (429, '"api";r=0;t=55')


def test_by_hand(tmp_path):
    command = [sys.executable, "-m", "nim_core.testing.hub_server", "--gated"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        told = json.loads(process.stdout.readline())
        with ControlClient() as client:
            facts = client.get(f"{told['url']}/api/models/acme/sample-llm").json()
        assert (facts["sha"], facts["gated"]) == (told["commit"], "auto")
        assert told["environment"] == {"HF_ENDPOINT": told["url"], "HF_TOKEN": told["token"]}
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0
