"""The stand-in for ModelScope, route by route; ModelScope's own client asks it in the tests of the plugin."""

from __future__ import annotations

import pytest

from nim_core.testing.corpus import inline
from nim_core.testing.faults import html_error
from nim_core.testing.harness import ControlClient
from nim_core.testing.modelscope_models import CODES, ModelScopeModel, refusal, soft_refusal
from nim_core.testing.modelscope_server import MODELSCOPE_TOKEN, STRANGERS_TOKEN, ModelScopeServer

pytest_plugins = ["nim_core.testing"]

MODEL = "/api/v1/models/LLM-Research/Sample-1.5-LLM"
FILES = MODEL + "/repo/files?Revision=master&Recursive=True"
SHARD = MODEL + "/repo?Revision=master&FilePath=model-00001-of-00002.safetensors"
SMALL = MODEL + "/repo?Revision=master&FilePath=notes+%26+plans+%231+%2B+more.txt"


class Reader:
    """Asks with a token, sent as it has to be."""

    def __init__(self, server, client, token=MODELSCOPE_TOKEN):
        self.server = server
        self.client = client
        self.headers = {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}

    def get(self, path, **headers):
        return self.client.get(self.server.url + path, headers={**self.headers, **headers}, follow_redirects=False)

    def entries(self, query):
        return self.get(f"{MODEL}/repo/files?{query}").json()["Data"]["Files"]


@pytest.fixture
def client():
    """A client without any credential."""
    with ControlClient() as opened:
        yield opened


@pytest.fixture
def reader(modelscope_server, client):
    """Somebody who may read everything."""
    return Reader(modelscope_server, client)


def paths(entries, kind):
    return {entry["Path"] for entry in entries if entry["Type"] == kind}


def test_listing(reader, corpus):
    entries = reader.entries("Revision=master&Recursive=True")
    assert paths(entries, "blob") == set(corpus.files)
    assert paths(entries, "tree") == {"données", "trtllm_engine"}
    sizes = {entry["Path"]: (entry["Size"], entry["Sha256"]) for entry in entries if entry["Type"] == "blob"}
    assert sizes == {path: (it.size, it.digest("sha256").value) for path, it in corpus.files.items()}
    assert {entry["Path"] for entry in entries if entry["IsLFS"]} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "trtllm_engine/rank0.engine",
    }


def test_listing_of_a_folder_and_without_what_is_below(reader, corpus):
    assert paths(reader.entries("Recursive=True&Root=trtllm_engine"), "blob") == {"trtllm_engine/rank0.engine"}
    flat = reader.entries("Recursive=False")
    assert paths(flat, "blob") == {path for path in corpus.files if "/" not in path}
    assert paths(flat, "tree") == {"données", "trtllm_engine"}


def test_listing_is_cut_without_a_word(client):
    model = ModelScopeModel(files={f"a/b/{number}": inline("x") for number in range(10)})
    with ModelScopeServer([model], cut=5) as server:
        entries = Reader(server, client).entries("Recursive=True")
    assert (len(entries), paths(entries, "tree")) == (5, {"a", "a/b"})


def test_revisions(reader, corpus):
    commit = ModelScopeModel(files=corpus.files).commit
    assert reader.get(MODEL + "/revisions").json()["Data"]["RevisionMap"]["Branches"] == [{"Revision": "master"}]
    for revision in ("master", commit, commit[:8]):
        assert len(reader.entries(f"Revision={revision}&Recursive=True")) == len(corpus.files) + 2
    assert reader.entries("Revision=main") is None
    assert reader.get(SMALL.replace("master", "main")).json()["Code"] == CODES["no tree"]


def test_a_file_of_git_ignores_ranges(reader, corpus):
    answer = reader.get(SMALL, Range="bytes=3-4")
    assert (answer.status_code, answer.content) == (200, corpus.files["notes & plans #1 + more.txt"].data())


def test_an_lfs_file_redirects_to_storage_that_wants_no_token(reader, client, corpus):
    answer = reader.get(SHARD)
    content = corpus.files["model-00001-of-00002.safetensors"]
    assert (answer.status_code, answer.headers["X-Linked-ETag"]) == (302, content.digest("sha256").value)
    there = answer.headers["Location"]
    assert there.startswith(reader.server.storage_url)
    part = client.get(there, headers={"Range": "bytes=70000-70009"})
    assert (part.status_code, part.content) == (206, content.read(70_000, 70_010))
    reader.server.expire_urls()
    assert client.get(there).status_code == 403
    assert client.get(there, headers={"Cookie": f"m_session_id={MODELSCOPE_TOKEN}"}).status_code == 403
    assert len(reader.server.storage.leaks) == 1
    reader.server.storage.leaks.clear()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {MODELSCOPE_TOKEN}"},
        {"Cookie": f"m_session_id={MODELSCOPE_TOKEN}"},
        {"Authorization": f"Bearer {MODELSCOPE_TOKEN}", "Cookie": "m_session_id=other"},
        {"Authorization": f"Basic {MODELSCOPE_TOKEN}", "Cookie": f"m_session_id={MODELSCOPE_TOKEN}"},
    ],
)
def test_both_carriers_have_to_be_sent(modelscope_server, client, headers):
    assert client.get(modelscope_server.url + FILES, headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("access", "token", "codes"),
    [
        ("public", None, (200, 200)),
        ("public", "mistyped", (200, 200)),
        ("gated", None, (200, CODES["no access"])),
        ("gated", STRANGERS_TOKEN, (200, CODES["no access"])),
        ("gated", MODELSCOPE_TOKEN, (200, 200)),
        ("private", None, (CODES["no access"], CODES["no access"])),
        ("private", STRANGERS_TOKEN, (CODES["no access"], CODES["no access"])),
        ("private", MODELSCOPE_TOKEN, (200, 200)),
    ],
)
def test_who_sees_what(client, corpus, access, token, codes):
    with ModelScopeServer([ModelScopeModel(files=corpus.files, access=access)]) as server:
        answers = [Reader(server, client, token).get(path) for path in (MODEL, FILES)]
    assert tuple(answer.json()["Code"] for answer in answers) == codes
    assert {answer.status_code for answer in answers} <= {200, 404}


def test_what_is_not_there(reader):
    assert reader.get(FILES.replace("Sample", "Simple")).json()["Code"] == CODES["no model"]
    assert reader.get(SMALL + "x").json()["Code"] == CODES["no file"]
    assert reader.get("/api/v1/repos/internalAccelerationInfo").status_code == 404
    assert reader.get("/elsewhere").status_code == 404


def test_refusals_and_faults(reader):
    reader.server.refuse(429, "slow down", route="listing", times=1)
    refused = reader.get(FILES)
    assert (refused.status_code, refused.json()["Success"], refused.json()["Code"]) == (429, False, 429)
    reader.server.faults.add(html_error(502), route="listing", times=1)
    assert reader.get(FILES).text.startswith("<html>")
    assert reader.get(FILES).status_code == 200


def test_words_of_refusals():
    assert refusal(429, retry_after="7").headers["Retry-After"] == "7"
    assert b'"Code": 10010205001' in refusal(404, code=CODES["no model"]).body.data()
    soft = soft_refusal(500)
    assert (soft.status, b'"Success": false' in soft.body.data()) == (200, True)


def test_environment(modelscope_server):
    assert modelscope_server.environment(None) == {"MODELSCOPE_ENDPOINT": modelscope_server.url}
    assert modelscope_server.environment()["MODELSCOPE_API_TOKEN"] == modelscope_server.token
