"""The stand-in for NGC, route by route; ``tests/integration/test_ngc_oracle.py`` asks NVIDIA's own client."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from attrs import evolve

from nim_core.testing.corpus import inline
from nim_core.testing.faults import answer_with, cut, html_error
from nim_core.testing.harness import ControlClient
from nim_core.testing.ngc_models import NgcModel, refusal, soft_refusal
from nim_core.testing.ngc_server import NgcServer

pytest_plugins = ["nim_core.testing"]

MODEL = "/v2/org/nim/team/meta/models/sample-llm"
VERSION = MODEL + "/versions/hf-1.0%2Bchk1"
MANIFEST = MODEL + "/hf-1.0%2Bchk1/files"


class Member:
    """Asks with a key."""

    def __init__(self, server, client):
        self.server = server
        self.client = client
        self.headers = {"Authorization": f"Bearer {server.nvapi_key}"}

    def get(self, path, **headers):
        sent = {**self.headers, **headers}
        return self.client.get(self.server.api_url + path, headers=sent, follow_redirects=False)

    def json(self, path):
        return self.get(path).raise_for_status().json()

    def token(self, *scopes, user="$oauthtoken", key=None):
        pair = base64.b64encode(f"{user}:{key or self.server.legacy_key}".encode()).decode()
        query = "".join(f"&scope={scope}" for scope in scopes)
        url = f"{self.server.auth_url}/token?service=ngc{query}"
        return self.client.get(url, headers={"Authorization": f"Basic {pair}"})

    def status_with(self, bearer, path=MODEL):
        return self.client.get(self.server.api_url + path, headers={"Authorization": f"Bearer {bearer}"}).status_code


@pytest.fixture
def client():
    """A client without any credential."""
    with ControlClient() as opened:
        yield opened


@pytest.fixture
def member(ngc_server, client):
    """A member with a personal key."""
    return Member(ngc_server, client)


def test_caller_info(ngc_server, client):
    url = ngc_server.api_url + "/v3/keys/get-caller-info"
    found = client.post(url, data={"credentials": ngc_server.nvapi_key}).json()
    assert (found["orgName"], found["type"], found["requestStatus"]["statusCode"]) == ("nim", "PERSONAL_KEY", "SUCCESS")
    for wrong in (ngc_server.legacy_key, "nvapi-wrong"):
        assert client.post(url, data={"credentials": wrong}).status_code == 401
    assert client.post(url, json={"credentials": ngc_server.nvapi_key}).status_code == 400


def test_token_for_a_legacy_key(member):
    answer = member.token("group/ngc:nim", "group/ngc:nim/meta").json()
    assert answer["expires_in"] == 900
    assert answer["token"].count(".") == 2
    assert member.status_with(answer["token"]) == 200
    assert member.token(key="wrong").status_code == 401
    assert member.token(user="someone").status_code == 401
    assert member.token(key=member.server.nvapi_key).status_code == 401
    assert member.client.get(member.server.auth_url + "/token").status_code == 400


def test_tokens_expire_and_have_scopes(member, client, corpus):
    token = member.token().json()["token"]
    assert member.status_with(token) == 200
    member.server.expire_tokens()
    assert member.status_with(token) == 401
    assert member.status_with(member.token("group/ngc:other/meta").json()["token"]) == 403
    with NgcServer([NgcModel(files=corpus.files)], token_lifetime=-1) as server:
        short = Member(server, client)
        assert short.status_with(short.token().json()["token"]) == 401


@pytest.mark.parametrize("path", ["/v2/orgs", MODEL, VERSION, VERSION + "/files", MANIFEST, VERSION + "/files/LICENSE"])
def test_needs_a_bearer(member, client, path):
    assert client.get(member.server.api_url + path).status_code == 401
    assert member.status_with("wrong", path) == 401
    assert member.get(path, Authorization=f"Basic {member.server.nvapi_key}").status_code == 401


def test_organisations_teams_model_and_versions(member):
    assert member.json("/v2/orgs?page-size=500")["organizations"] == [{"name": "nim", "displayName": "nim"}]
    assert member.json("/v2/org/nim/teams?page-size=500")["teams"] == [{"name": "meta"}]
    member.server.add(NgcModel(files={"f": inline("f")}, version="2"))
    model = member.json(MODEL + "?resolve-labels=false")["model"]
    assert (model["latestVersionIdStr"], model["canGuestDownload"], model["licenseTerms"]) == ("2", False, [])
    versions = member.json(MODEL + "/versions?page-size=1000&sort-order=SEMVER_DESC")["modelVersions"]
    assert [version["versionId"] for version in versions] == ["2", "hf-1.0+chk1"]
    assert member.json(VERSION)["modelVersion"]["status"] == "UPLOAD_COMPLETE"
    assert member.json(VERSION + "/signature")["url"].startswith(member.server.storage_url)


@pytest.mark.parametrize(
    "path", ["/v2", MODEL + "x", MODEL + "/versions/0", MODEL + "/0/files", "/v2/org/other/models/m"]
)
def test_what_is_not_there_is_404(member, path):
    answer = member.get(path)
    assert (answer.status_code, answer.json()["requestStatus"]["statusCode"]) == (404, "NOT_FOUND")


def test_listing_in_pages_from_0(member, corpus):
    pages = [member.json(VERSION + f"/files?page-size=1000{more}") for more in ("", "&page-number=1", "&page-number=2")]
    entries = [entry for page in pages for entry in page["modelFiles"]]
    assert [entry["path"] for entry in entries] == [*corpus.files, "checksums.blake3"]
    assert pages[0]["paginationInfo"] == {"index": 0, "size": 5, "totalPages": 3, "totalResults": 12}
    assert pages[0]["modelVersion"]["status"] == "UPLOAD_COMPLETE"
    for entry in entries[:-1]:
        content = corpus.files[entry["path"]]
        assert entry["sizeInBytes"] == content.size
        assert base64.b64decode(entry["sha256_base64"]).hex() == content.digest("sha256").value
    assert member.json(VERSION + "/files?page-number=3")["modelFiles"] == []
    assert member.json(VERSION + "/files?page-size=2")["paginationInfo"]["totalPages"] == 6


def test_manifest_in_pages_and_by_path(member, client, corpus):
    pages = [member.json(MANIFEST + more) for more in ("", "?page-number=1", "?page-number=2", "?page-number=3")]
    assert (pages[3]["urls"], pages[3]["filepath"]) == ([], [])
    paths = [path for page in pages for path in page["filepath"]]
    urls = [url for page in pages for url in page["urls"]]
    assert paths == [*corpus.files, "checksums.blake3"]
    for path, url in zip(paths[:-1], urls[:-1], strict=True):
        assert "%25" not in url
        assert client.get(url).content == corpus.files[path].data()
    one = member.json(MANIFEST + "?path=notes+%26+plans+%231+%2B+more.txt")
    assert one["filepath"] == ["notes & plans #1 + more.txt"]
    assert client.get(one["urls"][0]).content == corpus.files[one["filepath"][0]].data()
    assert member.get(MANIFEST + "?path=absent").status_code == 404


def test_one_file_by_redirection(member, client, corpus):
    for path in ("config.json", "trtllm_engine/rank0.engine", "donn%C3%A9es/%E6%97%A5%E6%9C%AC%E8%AA%9E%20%C3%BC.txt"):
        answer = member.get(f"{VERSION}/files/{path}")
        assert answer.status_code == 302
        assert client.get(answer.headers["Location"]).status_code == 200
    listing = client.get(member.get(VERSION + "/files/checksums.blake3").headers["Location"]).text
    assert listing.splitlines()[0] == f"{corpus.files['LICENSE'].digest('blake3').value}  LICENSE"
    assert member.get(VERSION + "/files/absent").status_code == 404


def test_credential_at_the_storage_is_refused_and_seen(corpus, client):
    with NgcServer([NgcModel(files=corpus.files)]) as server:
        url = Member(server, client).json(MANIFEST)["urls"][0]
        assert client.get(url, headers={"Authorization": "Bearer x"}).status_code == 403
        assert client.get(url, headers={"X-NGC-Guest-Token": "x"}).status_code == 403
        assert len(server.storage.leaks) == 2
        assert server.log.count(origin="storage", status=403) == 2


def test_guest(corpus, client):
    guest = {"X-NGC-Guest-Token": "00000000-0000-4000-8000-000000000000"}
    open_model = NgcModel(files=corpus.files, guest=True)
    closed = evolve(open_model, name="closed", guest=False)
    without_team = evolve(open_model, team=None)
    with NgcServer([open_model, closed, without_team]) as server:

        def status(path, headers=guest):
            return client.get(server.api_url + path, headers=headers, follow_redirects=False).status_code

        places = ["/v2/models/nim/meta/sample-llm", "/v2/models/nim/sample-llm"]
        for place in places:
            for more in ("", "/versions", "/versions/hf-1.0%2Bchk1", "/versions/hf-1.0%2Bchk1/files"):
                assert status(place + more) == 200
            assert status(place + "/versions/hf-1.0%2Bchk1/files/config.json") == 302
        assert status("/v2/models/org/nim/team/meta/sample-llm/hf-1.0%2Bchk1/files") == 200
        assert status("/v2/models/org/nim/sample-llm/hf-1.0%2Bchk1/files?path=LICENSE") == 200
        assert status(places[0], {}) == 401
        assert status("/v2/models/nim/meta/closed") == 401
        assert status("/v2/models/nim/meta/absent") == 401
        assert status(MODEL) == 401


def test_licence(corpus, client):
    with NgcServer([NgcModel(files=corpus.files, licence="terms")]) as server:
        member = Member(server, client)
        [terms] = member.json(MODEL)["model"]["licenseTerms"]
        assert (terms["licenseId"], terms["needsAcceptance"]) == ("terms", True)
        assert [member.get(path).status_code for path in (VERSION + "/files", MANIFEST)] == [412, 412]
        url = server.api_url + MODEL + "/license/acceptance"
        assert client.post(url, json={}, headers=member.headers).status_code == 400
        accepted = client.post(url, json={"licenseId": "terms", "licenseVersion": "1"}, headers=member.headers)
        assert accepted.status_code == 200
        assert [member.get(path).status_code for path in (VERSION + "/files", MANIFEST)] == [200, 200]


def test_old_version_and_unfinished_upload(corpus, client):
    model = NgcModel(files=corpus.files, lists_sha256=False, status="UPLOAD_PENDING")
    with NgcServer([model]) as server:
        page = Member(server, client).json(VERSION + "/files")
    assert page["modelVersion"]["status"] == "UPLOAD_PENDING"
    assert not any("sha256_base64" in entry for entry in page["modelFiles"])


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 412, 429, 451, 503])
def test_refusals_by_route_and_number(member, status):
    member.server.refuse(status, "why", route="listing", times=1)
    answer = member.get(VERSION + "/files")
    assert (answer.status_code, answer.json()["requestStatus"]["statusDescription"]) == (status, "why")
    assert [member.get(path).status_code for path in (VERSION + "/files", MANIFEST)] == [200, 200]
    member.server.refuse(status, path="*/hf-1.0+chk1/files")
    assert [member.get(path).status_code for path in (MODEL, VERSION + "/files")] == [200, status]


def test_other_refusals(member):
    member.server.refuse_bulk_manifest()
    answer = member.get(MANIFEST)
    assert (answer.status_code, "Org contex missing" in answer.text) == (400, True)
    member.server.faults.clear()
    member.server.faults.add(answer_with(refusal(429, retry_after="7")), path="*/files")
    assert member.get(MANIFEST).headers["Retry-After"] == "7"
    member.server.faults.clear()
    member.server.faults.add(answer_with(soft_refusal("FORBIDDEN")), route="manifest")
    soft = member.get(MANIFEST)
    assert (soft.status_code, soft.json()["requestStatus"]["statusCode"]) == (200, "FORBIDDEN")
    member.server.faults.clear()
    member.server.faults.add(html_error(502))
    assert (member.get(MODEL).status_code, member.get(MODEL).headers["Content-Type"]) == (502, "text/html")


def test_storage_that_fails(member, client, corpus):
    model = NgcModel(files=corpus.files)
    url = member.json(MANIFEST + "?path=config.json")["urls"][0]
    member.server.storage.flip(model.storage_path("config.json"), 0)
    assert client.get(url).content[1:] == corpus.files["config.json"].data()[1:]
    assert client.get(url).content[:1] != b"{"
    member.server.faults.add(cut(10), route="storage", times=1)
    with pytest.raises(Exception, match="no answer"):
        client.get(url)
    assert client.get(url).status_code == 200
    member.server.expire_urls()
    assert client.get(url).status_code == 403
    assert [exchange.sent for exchange in member.server.log.select(path="*/config.json", status=200)][-1] == 100


def test_path_prefix_and_environment(corpus, client):
    with NgcServer([NgcModel(files=corpus.files)], prefix="/artifactory/api/nimmodel/repo") as server:
        assert Member(server, client).json(MODEL)["model"]["name"] == "sample-llm"
        assert client.get(server.api_url.removesuffix("/artifactory/api/nimmodel/repo") + MODEL).status_code == 404
        place = server.api_url.removeprefix("http://")
        without = {"NGC_API_ENDPOINT": place, "NGC_AUTH_ENDPOINT": place, "NGC_API_SCHEME": "http"}
        assert server.environment(None) == without
        assert server.environment() == {**without, "NGC_API_KEY": server.nvapi_key}
        assert server.environment("k")["NGC_API_KEY"] == "k"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("options", [["--prefix=/p", "--page-size=3"], ["--tls"]], ids=["plain", "tls"])
def test_as_a_program(tmp_path, certificates, stop, options):
    command = [sys.executable, "-m", "nim_core.testing.ngc_server", "--folder", str(tmp_path / "demo"), *options]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as program:
        try:
            told = json.loads(program.stdout.readline())
            manifest = yaml.safe_load(Path(told["manifest"]).read_text(encoding="utf-8"))
            trust = evolve(certificates, ca=tmp_path / "demo" / "ca.pem").client_context() if told["ca"] else None
            with ControlClient(trust=trust) as client:
                answer = client.get(told["api_url"] + MODEL, headers={"Authorization": f"Bearer {told['key']}"})
        finally:
            program.send_signal(stop)
            _, errors = program.communicate(timeout=20)
    assert (program.returncode, errors, answer.status_code) == (0, b"", 200)
    assert len(manifest["profiles"][0]["workspace"]["files"]) == 11
    assert told["environment"]["NGC_API_KEY"] == told["key"]
    assert told["model"] == "ngc://nim/meta/sample-llm:hf-1.0+chk1"


def test_importing_the_kit_imports_no_pytest():
    code = "import sys, nim_core.testing.ngc_server; assert not {'pytest', '_pytest', 'hypothesis'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
