"""Listing and locating, against the stand-in for the Hub, through real sockets."""

from __future__ import annotations

import pytest
from attrs import evolve

from nim_core.errors import (
    AuthenticationError,
    CacheIncompleteError,
    EntitlementError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RegionBlockedError,
    SourceError,
    TransientError,
    UnsupportedError,
)
from nim_core.testing.corpus import inline, sample_corpus
from nim_core.testing.faults import answer_with
from nim_core.testing.harness import ControlClient, repository_uri
from nim_core.testing.http_server import Response, json_response
from nim_core.testing.hub_models import HubModel, hub_refusal, rate_limited
from nim_core.testing.hub_server import HubServer
from nim_core.types import RemoteFile

URI = repository_uri("hf://acme/sample-llm")


def fetch(location) -> bytes:
    """Fetch as the engine does: headers to the URL itself, no credential to where it redirects."""
    headers = {name: value.reveal() for name, value in location.headers}
    with ControlClient() as client:
        return client.get(location.url.reveal(), headers=headers).raise_for_status().content


def file_of(model, path):
    content, algorithm = model.files[path], "sha256" if model.is_large(path) else "sha1-git"
    digest = content.digest(algorithm)
    return RemoteFile(path=path, size=content.size, digests=(digest,), blob_name=digest.value)


@pytest.fixture
def model(corpus):
    """The model of the ``hub_server`` fixture."""
    return HubModel(files=corpus.files)


# ------------------------------------------------------------------------------------------------------------- listing
@pytest.mark.parametrize("page_size", [1, 4, 13, 1000])
def test_lists_every_file_with_size_digest_and_blob(open_source, model, page_size):
    with HubServer([model], page_size=page_size) as server:
        listing = open_source(server.environment()).list_files(URI)
        entries = len(model.files) + len(model.folders)
        assert server.log.count(route="tree") == -(-entries // page_size)
    assert {file.path: file for file in listing.files} == {path: file_of(model, path) for path in model.files}
    assert (listing.uri, listing.pinned) == (URI, model.commit)


def test_revision_is_resolved_once_and_pinned(source, hub_server, model):
    source.list_files(URI)
    hub_server.add(evolve(model, files={"new.txt": inline("new")}))
    assert source.list_files(URI).pinned == model.commit
    location = source.locate(URI, file_of(model, "config.json"))
    assert f"/resolve/{model.commit}/config.json" in location.url.reveal()
    assert hub_server.log.count(route="revision") == 1


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1"])
def test_branches_and_tags(source, hub_server, model, revision):
    other = evolve(model, files={"new.txt": inline("new")}, revisions=(revision,))
    hub_server.add(other)
    uri = repository_uri(f"hf://acme/sample-llm:{revision}")
    listing = source.list_files(uri)
    assert ([file.path for file in listing.files], listing.pinned) == (["new.txt"], other.commit)
    assert source.cache_key(uri, listing.pinned).refs == (revision,)
    assert source.list_files(URI).pinned == model.commit


def test_a_commit_needs_no_resolving(source, hub_server, model):
    uri = repository_uri(f"hf://acme/sample-llm:{model.commit}")
    assert source.list_files(uri).pinned == model.commit
    assert hub_server.log.count(route="revision") == 0
    assert source.cache_key(uri, model.commit).refs == ()


def test_pages_are_asked_for_at_the_endpoint(source, hub_server, model):
    """A link that leads elsewhere gets neither a request nor the token."""

    def elsewhere(response):
        link = response.headers.get("Link", "").replace(hub_server.url, hub_server.storage_url)
        return evolve(response, headers={**response.headers, **({"Link": link} if link else {})})

    hub_server.faults.add(elsewhere, route="tree")
    assert len(source.list_files(URI).files) == len(model.files)
    assert hub_server.log.count(origin="storage") == 0


def test_files_beyond_a_page_whose_cursor_is_ignored(source, hub_server, model):
    """As behind Olah, which passes on the link of a page but not its cursor."""
    first = [model.entry(path) for path in sorted([*model.folders, *model.files])[:4]]
    link = {"Link": f'<{hub_server.url}/api/models/acme/sample-llm/tree/x?cursor=4>; rel="next"'}
    hub_server.faults.add(answer_with(json_response(first, headers=link)), route="tree")
    listing = source.list_files(URI)
    assert {file.path: file for file in listing.files} == {path: file_of(model, path) for path in model.files}
    assert hub_server.log.count(route="tree") == 2
    hub_server.faults.add(answer_with(json_response([])), route="paths-info")
    with pytest.raises(SourceError, match=r"listing of acme/sample-llm:main is not complete: 8 of 11 files"):
        source.list_files(URI)


MALFORMED = {
    "no JSON": Response(body=inline("<html>")),
    "a text": json_response("text"),
    "a number": json_response(7),
    "entry is a text": json_response(["a"]),
    "no path": json_response([{"type": "file", "size": 1}]),
    "no size": json_response([{"type": "file", "path": "a", "oid": "0" * 40}]),
    "no digest": json_response([{"type": "file", "path": "a", "size": 1}]),
    "digest too short": json_response([{"type": "file", "path": "a", "size": 1, "oid": "00"}]),
    "negative size": json_response([{"type": "file", "path": "a", "size": -1, "oid": "0" * 40}]),
    "climbing path": json_response([{"type": "file", "path": "../a", "size": 1, "oid": "0" * 40}]),
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
def test_malformed_listing(source, hub_server, answer):
    hub_server.faults.add(answer_with(answer), route="tree")
    with pytest.raises(SourceError, match="cannot be understood") as caught:
        source.list_files(URI)
    assert "HF_ENDPOINT" in caught.value.hint


@pytest.mark.parametrize("sha", ["../../x", "main", 7, None, "A" * 40])
def test_commit_that_is_none(source, hub_server, sha):
    hub_server.faults.add(answer_with(json_response({"sha": sha})), route="revision")
    with pytest.raises(SourceError, match="cannot be understood"):
        source.list_files(URI)


def test_offline_asks_nobody(open_source, hub_server):
    source = open_source({**hub_server.environment(), "HF_HUB_OFFLINE": "1"})
    with pytest.raises(CacheIncompleteError, match="HF_HUB_OFFLINE is set") as caught:
        source.list_files(URI)
    assert "--use-cache" in caught.value.hint
    with pytest.raises(CacheIncompleteError, match=r"lacks acme/sample-llm:main\?file=config.json"):
        source.locate(URI, RemoteFile(path="config.json"))
    assert len(hub_server.log) == 0


# ------------------------------------------------------------------------------------------------------------ locating
def test_locates_every_file_at_the_endpoint_with_the_token(source, hub_server, model):
    for path, content in model.files.items():
        location = source.locate(URI, file_of(model, path))
        assert location.url.reveal().startswith(f"{hub_server.url}/acme/sample-llm/resolve/{model.commit}/")
        assert {name: value.reveal() for name, value in location.headers} == {
            "Authorization": f"Bearer {hub_server.token}"
        }
        assert fetch(location) == content.data()


def test_anonymous_sends_nothing(open_source, hub_server, model):
    source = open_source(hub_server.environment(None), provide=lambda _: None)
    assert source.locate(URI, file_of(model, "config.json")).headers == ()
    assert {exchange.request.header("Authorization") for exchange in hub_server.log} == {None}


def test_asked_again_it_looks_why(source, hub_server, model):
    path = "model-00001-of-00002.safetensors"
    first = source.locate(URI, file_of(model, path))
    hub_server.log.clear()
    again = source.locate(URI, file_of(model, path))
    assert (again.url, again.headers) == (first.url, first.headers)
    [asked] = hub_server.log.select(origin="storage")
    assert (asked.request.header("Range"), asked.sent) == ("bytes=0-0", 1)


def test_asked_again_for_an_empty_file(source, model):
    for _ in range(2):
        location = source.locate(URI, file_of(model, "empty.txt"))
    assert fetch(location) == b""


def test_file_that_went_missing(source, hub_server, model):
    file = file_of(model, "config.json")
    source.locate(URI, file)
    hub_server.faults.add(answer_with(hub_refusal(404, "EntryNotFound")), route="resolve")
    with pytest.raises(NotFoundError, match=r"no such file: acme/sample-llm:main\?file=config.json"):
        source.locate(URI, file)


# --------------------------------------------------------------------------------------------------------- Xet storage
LARGE = "model-00001-of-00002.safetensors"


@pytest.fixture
def huge(corpus):
    """A server with a file that only Xet storage gives out."""
    model = HubModel(files=corpus.files, xet_only=frozenset({LARGE}))
    with HubServer([model]) as server:
        yield server, model
    assert server.storage.leaks == []


def test_announced_as_xet_goes_over_the_ordinary_url(open_source, corpus):
    model = HubModel(files=corpus.files, xet=True)
    with HubServer([model]) as server:
        source = open_source(server.environment(), hub=server.url)
        for _ in range(2):
            location = source.locate(URI, file_of(model, LARGE))
        assert fetch(location) == model.files[LARGE].data()
        assert server.log.count(origin="xet") == 0


def test_what_only_xet_can_serve_comes_from_there(open_source, huge):
    server, model = huge
    source = open_source(server.environment(), hub=server.url)
    source.locate(URI, file_of(model, LARGE))
    stream = source.locate(URI, file_of(model, LARGE))
    for _ in range(2):
        with stream.open() as opened:
            assert b"".join(iter(lambda: opened.read(70_000), b"")) == model.files[LARGE].data()
    assert server.log.count(origin="xet", route="xorb") > 0
    sent = {exchange.request.header("Authorization") for exchange in server.log.select(origin="xet")}
    assert f"Bearer {server.token}" not in sent


def test_xet_is_not_asked_behind_a_proxy(open_source, huge):
    server, model = huge
    source = open_source(server.environment())
    source.locate(URI, file_of(model, LARGE))
    with pytest.raises(UnsupportedError, match="only Xet storage has") as caught:
        source.locate(URI, file_of(model, LARGE))
    assert "HF_ENDPOINT" in caught.value.hint
    assert server.log.count(origin="xet") + server.log.count(route="xet-token") == 0


def test_xet_that_fails(open_source):
    files = sample_corpus(seed=9).files  # contents that the client of Xet has not seen in this process
    model = HubModel(files=files, xet_only=frozenset({LARGE}))
    with HubServer([model]) as server:
        source = open_source(server.environment(), hub=server.url)
        source.locate(URI, file_of(model, LARGE))
        stream = source.locate(URI, file_of(model, LARGE))
        server.faults.add(answer_with(Response(status=404)), route="reconstruction")
        with stream.open() as opened, pytest.raises(TransientError, match="Xet storage failed for model-00001"):
            opened.read()


def test_without_the_client_of_xet(open_source, huge, monkeypatch):
    server, model = huge
    monkeypatch.setitem(__import__("sys").modules, "hf_xet", None)  # as the import system marks what is not there
    source = open_source(server.environment(), hub=server.url)
    source.locate(URI, file_of(model, LARGE))
    with pytest.raises(UnsupportedError, match="its client is missing") as caught:
        source.locate(URI, file_of(model, LARGE))
    assert caught.value.hint == "pip install 'nim-source-hf[xet]'"


def test_refusal_of_a_file_that_xet_does_not_have(source, hub_server, model):
    hub_server.faults.add(answer_with(Response(status=400)), route="storage")
    source.locate(URI, file_of(model, LARGE))
    with pytest.raises(SourceError, match=r"refuses acme/sample-llm:main\?file=model-00001"):
        source.locate(URI, file_of(model, LARGE))


# -------------------------------------------------------------------------------------------------------------- errors
def refused(source, uri=URI):
    with pytest.raises(SourceError) as caught:
        source.list_files(uri)
    return caught.value


@pytest.mark.parametrize("who", ["member", "stranger", "nobody"])
def test_missing_and_private_models_look_alike(open_source, model, who):
    with HubServer([evolve(model, private=True)]) as server:
        token = {"member": server.token, "stranger": server.strangers_token, "nobody": None}[who]
        source = open_source(server.environment(token), **({} if token else {"provide": lambda _: None}))
        missing = refused(source, repository_uri("hf://acme/nothing"))
        errors = [missing] if who == "member" else [missing, refused(source)]
        assert who != "member" or source.list_files(URI).pinned == model.commit
    for error in errors:
        assert type(error) is NotFoundError
        assert error.message.startswith("no such model, or a private one: acme/")
        assert "https://huggingface.co/acme/" in error.hint
        assert f"(this time: {'HF_TOKEN' if token else 'nowhere'})" in error.hint


def test_missing_revision(source):
    error = refused(source, repository_uri("hf://acme/sample-llm:v9"))
    assert (type(error), error.message[:40]) == (NotFoundError, "acme/sample-llm has no revision v9 (HTTP")
    assert "https://huggingface.co/acme/sample-llm/tree/main" in error.hint


def test_wrong_token(open_source, hub_server):
    error = refused(open_source(hub_server.environment("hf_wrong")))
    assert (type(error), "from HF_TOKEN" in error.message) == (AuthenticationError, True)
    assert "hf_wrong" not in error.message + error.hint


def test_disabled(open_source, model):
    with HubServer([evolve(model, disabled=True)]) as server:
        error = refused(open_source(server.environment()))
    assert (type(error), "has been disabled" in error.message) == (PermissionDeniedError, True)
    assert "https://huggingface.co/acme/sample-llm" in error.hint


@pytest.mark.parametrize(("signed_in", "kind"), [(True, PermissionDeniedError), (False, AuthenticationError)])
def test_gated(open_source, model, signed_in, kind):
    with HubServer([evolve(model, gated=True)]) as server:
        token = server.strangers_token if signed_in else None
        source = open_source(server.environment(token), **({} if token else {"provide": lambda _: None}))
        [file, *_] = source.list_files(URI).files
        source.locate(URI, file)
        with pytest.raises(kind, match="acme/sample-llm is gated") as caught:
            source.locate(URI, file)
    assert "accept the terms, at https://huggingface.co/acme/sample-llm" in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (rate_limited(55), 56.0),
        (Response(status=429, headers={"Retry-After": "7", "RateLimit": '"api";r=0;t=55'}), 7.0),
        (Response(status=429, headers={"RateLimit": '"pages";r=0;t=3, "api";r=0;t=12'}), 13.0),
        (Response(status=429, headers={"RateLimit": '"api";r=4;t=55'}), None),
        (Response(status=429), None),
    ],
)
def test_rate_limit(source, hub_server, answer, seconds):
    hub_server.faults.add(answer_with(answer), route="revision")
    error = refused(source)
    assert (type(error), error.retry_after) == (RateLimitedError, seconds)
    assert "HF_TOKEN" in error.hint


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationError),
        (402, EntitlementError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (408, TransientError),
        (418, SourceError),
        (451, RegionBlockedError),
        (500, TransientError),
        (503, TransientError),
    ],
)
def test_statuses_without_a_code(source, hub_server, status, kind):
    hub_server.faults.add(answer_with(Response(status=status)), route="tree")
    error = refused(source)
    assert type(error) is kind
    assert f"(HTTP {status} from {hub_server.url})" in error.message


def test_what_a_server_says_is_not_repeated(source, hub_server):
    secret = hub_refusal(404, "RepoNotFound", f"no {hub_server.token}")
    hub_server.faults.add(answer_with(secret), route="revision")
    error = refused(source)
    assert hub_server.token not in error.message + error.hint
