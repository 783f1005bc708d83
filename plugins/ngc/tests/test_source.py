"""Listing and locating, against the stand-in for NGC, through real sockets."""

from __future__ import annotations

import itertools

import pytest
from attrs import evolve
from nim_source_ngc.source import NgcSource

from nim_core.errors import AuthenticationError, NotFoundError, SourceError, TransientError
from nim_core.testing.corpus import inline
from nim_core.testing.faults import answer_with
from nim_core.testing.harness import ControlClient, repository_uri
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response, json_response
from nim_core.testing.ngc_auth import LEGACY_KEY, NVAPI_KEY
from nim_core.testing.ngc_models import NgcModel, success
from nim_core.testing.ngc_server import NgcServer
from nim_core.types import Digest, HttpObject, RemoteFile


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


def download(location: HttpObject) -> bytes:
    """Fetch as the engine does: headers to the URL itself, no credential to where it redirects."""
    headers = {name: value.reveal() for name, value in location.headers}
    with ControlClient() as client:
        return client.get(location.url.reveal(), headers=headers).raise_for_status().content


def status_of(location: HttpObject) -> int:
    """Return the status that a location's URL is answered with."""
    headers = {name: value.reveal() for name, value in location.headers}
    with ControlClient() as client:
        return client.get(location.url.reveal(), headers=headers).status_code


def expected_files(model: NgcModel) -> dict[str, RemoteFile]:
    return {
        path: RemoteFile(path=path, size=content.size, digests=(content.digest("sha256"),))
        for path, content in model.served_files.items()
    }


@pytest.fixture
def model(corpus) -> NgcModel:
    """The model of the ``ngc_server`` fixture."""
    return NgcModel(files=corpus.files)


@pytest.fixture
def uri(model):
    """Its URI."""
    return repository_uri(model.uri())


def test_lists_every_file_with_size_and_digest(source, model, uri):
    listing = source.list_files(uri)
    assert {file.path: file for file in listing.files} == expected_files(model)
    assert [file.path for file in listing.files] == list(model.served_files)
    assert (listing.uri, listing.pinned) == (uri, model.version)


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 12, 13])
def test_lists_and_locates_whatever_the_page_size(open_source, model, uri, page_size):
    with NgcServer([model], page_size=page_size) as server:
        source = open_source(server.environment())
        listing = source.list_files(uri)
        assert {file.path: file for file in listing.files} == expected_files(model)
        for file in listing.files:
            source.locate(uri, file)
        pages = -(-len(listing.files) // page_size)
        assert (server.log.count(route="listing"), server.log.count(route="manifest")) == (pages, pages)


def test_old_versions_list_no_digests(open_source, model, uri):
    with NgcServer([evolve(model, lists_sha256=False)]) as server:
        listing = open_source(server.environment()).list_files(uri)
    assert {file.digests for file in listing.files} == {()}
    assert {file.path: file.size for file in listing.files}["empty.txt"] == 0


def test_locates_presigned_urls_without_the_key(source, ngc_server, model, uri):
    for file in source.list_files(uri).files:
        location = source.locate(uri, file)
        assert (location.headers, location.ranges, location.size) == ((), True, file.size)
        assert location.url.reveal().startswith(ngc_server.storage_url)
        assert download(location) == model.served_files[file.path].data()
    assert ngc_server.log.count(route="manifest") == 3


def test_locates_without_a_listing_first(source, ngc_server, corpus, uri):
    files = {path: source.locate(uri, RemoteFile(path=path)) for path in corpus.files}
    assert {path: download(location) for path, location in files.items()} == {
        path: content.data() for path, content in corpus.files.items()
    }
    assert [exchange for exchange in ngc_server.log if "path=" in exchange.request.query] == []


def test_asks_anew_when_asked_again(source, ngc_server, corpus, uri):
    for path, content in corpus.files.items():
        first = source.locate(uri, RemoteFile(path=path))
        ngc_server.expire_urls()
        assert status_of(first) == 403
        assert download(source.locate(uri, RemoteFile(path=path))) == content.data()
    asked = [exchange.request.parameter("path") for exchange in ngc_server.log.select(route="manifest")]
    assert [path for path in asked if path is not None] == list(corpus.files)


def test_asks_anew_when_urls_are_old(open_source, ngc_server, uri):
    clock = Clock()
    source = open_source(ngc_server.environment(), clock=clock)
    config, licence = RemoteFile(path="config.json"), RemoteFile(path="LICENSE")
    source.list_files(uri)
    clock.now += 599
    source.locate(uri, config)
    clock.now += 2
    source.locate(uri, licence)
    asked = [exchange.request.parameter("path") for exchange in ngc_server.log.select(route="manifest")]
    assert asked[-1] == "LICENSE"
    assert "config.json" not in asked


def test_missing_version_means_the_latest(source, ngc_server, model):
    ngc_server.add(evolve(model, version="2.0", files={"new.txt": inline("new")}))
    uri = repository_uri("ngc://nim/meta/sample-llm")
    listing = source.list_files(uri)
    assert (listing.uri, listing.pinned) == (uri, "2.0")
    assert [file.path for file in listing.files] == ["new.txt", "checksums.blake3"]
    assert download(source.locate(uri, listing.files[0])) == b"new"
    assert ngc_server.log.count(route="model") == 1


def test_model_without_versions(source, ngc_server):
    ngc_server.faults.add(answer_with(success(model={"name": "sample-llm"})), route="model")
    with pytest.raises(NotFoundError, match="no version of nim/meta/sample-llm"):
        source.list_files(repository_uri("ngc://nim/meta/sample-llm"))


@pytest.mark.parametrize("text", ["ngc://nim/sample-llm:1", "ngc://nim/no-team/sample-llm:1"])
def test_model_without_team(open_source, corpus, text):
    with NgcServer([NgcModel(files=corpus.files, team=None, version="1")]) as server:
        source = open_source(server.environment(server.legacy_key))
        listing = source.list_files(repository_uri(text))
        assert download(source.locate(listing.uri, listing.files[0])) == corpus.files["LICENSE"].data()
        [token] = server.log.select(route="token")
    assert token.request.parameters("scope") == ["group/ngc:nim"]


def test_path_prefix_and_tls(open_source, corpus, model, uri, certificates):
    prefix = "/artifactory/api/nimmodel/ngc"
    with NgcServer([model], prefix=prefix, certificates=certificates) as server:
        context = certificates.client_context()
        source = open_source(server.environment(server.legacy_key), trust=context)
        listing = source.list_files(uri)
        url = source.locate(uri, listing.files[0]).url.reveal()
        with ControlClient(trust=context) as client:
            assert client.get(url).content == corpus.files["LICENSE"].data()
        assert all(e.request.path.startswith(prefix) for e in server.log.select(origin="api"))


def test_endpoint_as_full_url_wins_over_scheme(open_source, ngc_server, uri):
    urls = {"NGC_API_ENDPOINT": ngc_server.api_url + "/", "NGC_AUTH_ENDPOINT": ngc_server.auth_url}
    source = open_source({**urls, "NGC_API_SCHEME": "https", "NGC_API_KEY": ngc_server.legacy_key})
    assert len(source.list_files(uri).files) == 12


@pytest.mark.parametrize(("key", "status"), list(itertools.product([NVAPI_KEY, LEGACY_KEY], [400, 401])))
def test_refused_manifest_falls_back_to_redirecting_urls(open_source, ngc_server, model, key, status):
    uri = repository_uri(model.uri())
    ngc_server.refuse_bulk_manifest(status)
    source = open_source(ngc_server.environment(key))
    listing = source.list_files(uri)
    assert {file.path: file for file in listing.files} == expected_files(model)
    for file in listing.files:
        location = source.locate(uri, file)
        assert location.url.reveal().startswith(ngc_server.api_url)
        assert [name for name, _ in location.headers] == ["Authorization"]
        assert download(location) == model.served_files[file.path].data()


def test_refused_listing_too_falls_back_to_checksums(source, ngc_server, corpus, uri):
    ngc_server.refuse(400, "Org contex missing", route="listing")
    ngc_server.refuse_bulk_manifest()
    listing = source.list_files(uri)
    expected = [RemoteFile(path=path, digests=(content.digest("blake3"),)) for path, content in corpus.files.items()]
    assert list(listing.files) == expected
    for file in listing.files:
        assert download(source.locate(uri, file)) == corpus.files[file.path].data()


def test_refused_listing_alone_uses_checksums_and_presigned_urls(source, ngc_server, corpus, uri):
    ngc_server.refuse(400, route="listing")
    listing = source.list_files(uri)
    assert [file.path for file in listing.files] == [*corpus.files, "checksums.blake3"]
    assert [file.size for file in listing.files] == [None] * 12
    assert source.locate(uri, listing.files[0]).headers == ()


def test_all_refused_is_the_first_refusal(source, ngc_server, uri):
    ngc_server.refuse(400, "Org contex missing", route="listing")
    ngc_server.refuse(403, "not yours", route="file")
    with pytest.raises(SourceError, match="Org contex missing"):
        source.list_files(uri)


def test_refused_redirecting_url_is_located_with_another_token(open_source, ngc_server, corpus, uri):
    ngc_server.refuse_bulk_manifest()
    source = open_source(ngc_server.environment(ngc_server.legacy_key))
    file = RemoteFile(path="config.json")
    first = source.locate(uri, file)
    ngc_server.expire_tokens()
    assert status_of(first) == 401
    second = source.locate(uri, file)
    assert second.headers != first.headers
    assert second.expires_at is not None
    assert download(second) == corpus.files["config.json"].data()


def test_unfinished_upload_is_an_error(open_source, model, uri):
    with (
        NgcServer([evolve(model, status="UPLOAD_PENDING")]) as server,
        pytest.raises(SourceError, match=r"upload of nim/meta/sample-llm:\S+ is not complete: UPLOAD_PENDING"),
    ):
        open_source(server.environment()).list_files(uri)


def page_of(number, pages, names, total):
    return {
        "modelFiles": [{"path": name, "sizeInBytes": 1} for name in names],
        "filepath": names,
        "urls": [f"http://storage.test/{name}" for name in names],
        "paginationInfo": {"index": number, "size": 2, "totalPages": pages, "totalResults": total},
    }


NAMES = ["a", "b", "c", "d", "e"]
SERVERS = {
    "first page is 1": lambda number: NAMES[(max(number, 1) - 1) * 2 :][:2],
    "pages overlap": lambda number: NAMES[max(0, number * 2 - 1) :][:3],
    "an empty page between": lambda number: [NAMES[:3], [], NAMES[3:], []][number],
    "all on the first": lambda number: NAMES if number == 0 else [],
}


@pytest.mark.parametrize("pages", SERVERS.values(), ids=SERVERS.keys())
def test_tolerates_other_ways_to_count_pages(open_source, uri, pages):
    def answer(request):
        number = int(request.parameter("page-number") or 0)
        return "page", json_response(page_of(number, 3, pages(number), len(NAMES)))

    with HttpOrigin("api", answer, log=RequestLog()) as origin:
        source = open_source({"NGC_API_ENDPOINT": origin.url, "NGC_API_KEY": "nvapi-1"})
        assert sorted(file.path for file in source.list_files(uri).files) == NAMES


def test_incomplete_listing_is_an_error(open_source, uri):
    def answer(_request):
        return "page", json_response(page_of(0, 3, ["a", "b"], 5))

    with HttpOrigin("api", answer, log=RequestLog()) as origin:
        source = open_source({"NGC_API_ENDPOINT": origin.url, "NGC_API_KEY": "nvapi-1"})
        with pytest.raises(SourceError, match="not complete: 2 of 5 files"):
            source.list_files(uri)


MALFORMED = {
    "no JSON": Response(body=inline("<html>")),
    "cut JSON": Response(body=inline('{"modelFiles": [')),
    "a list": json_response([1]),
    "a text": json_response("text"),
    "odd status": json_response({"requestStatus": "SUCCESS"}),
    "files are a number": success(modelFiles=3),
    "file is a text": success(modelFiles=["a"]),
    "no path": success(modelFiles=[{"sizeInBytes": 1}]),
    "no size": success(modelFiles=[{"path": "a"}]),
    "negative size": success(modelFiles=[{"path": "a", "sizeInBytes": -1}]),
    "size is a text": success(modelFiles=[{"path": "a", "sizeInBytes": "many"}]),
    "climbing path": success(modelFiles=[{"path": "../a", "sizeInBytes": 1}]),
    "absolute path": success(modelFiles=[{"path": "/a", "sizeInBytes": 1}]),
    "path is a number": success(modelFiles=[{"path": 7, "sizeInBytes": 1}]),
    "digest is no base64": success(modelFiles=[{"path": "a", "sizeInBytes": 1, "sha256_base64": "?"}]),
    "digest is too short": success(modelFiles=[{"path": "a", "sizeInBytes": 1, "sha256_base64": "AAAA"}]),
    "digest is a number": success(modelFiles=[{"path": "a", "sizeInBytes": 1, "sha256_base64": 5}]),
    "pages are a list": success(modelFiles=[], paginationInfo=[1]),
    "total is a text": success(modelFiles=[], paginationInfo={"totalPages": "x"}),
    "total is endless": success(modelFiles=[], paginationInfo={"totalPages": float("inf")}),
    "nested without end": Response(body=inline("[" * 200_000)),
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_listing_is_a_source_error(source, ngc_server, uri, answer):
    ngc_server.faults.add(answer_with(answer), route="listing")
    with pytest.raises(SourceError) as caught:
        source.list_files(uri)
    assert caught.value.message.startswith("NGC's answer for nim/meta/sample-llm:hf-1.0+chk1 cannot be understood: ")
    assert "\n" not in caught.value.message


BAD_MANIFESTS = {
    "lengths differ": success(urls=["https://a.test/"], filepath=["a", "b"]),
    "nothing in it": success(),
    "not a URL": success(urls=["file:///etc/passwd"], filepath=["config.json"]),
    "climbing path": success(urls=["https://a.test/"], filepath=["../../a"]),
}


@pytest.mark.parametrize("answer", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS.keys())
def test_malformed_manifest_is_a_source_error(source, ngc_server, uri, answer):
    ngc_server.faults.add(answer_with(answer), route="manifest")
    with pytest.raises(SourceError, match="cannot be understood"):
        source.list_files(uri)


@pytest.mark.parametrize("text", ["nothing", "0123  short.bin", "x" * 64 + "  a", "a" * 64 + "  ../a"])
def test_malformed_checksums_leave_the_refusal(source, ngc_server, uri, text):
    ngc_server.refuse(401, route="listing")
    ngc_server.faults.add(answer_with(Response(body=inline(text))), route="file")
    with pytest.raises(AuthenticationError, match="does not accept the key"):
        source.list_files(uri)


def test_file_that_is_not_in_the_answer(source, ngc_server, uri):
    config = RemoteFile(path="config.json")
    source.locate(uri, config)
    ngc_server.faults.add(answer_with(success(urls=[], filepath=[])), route="manifest")
    with pytest.raises(SourceError, match="cannot be understood"):
        source.locate(uri, config)


def test_absent_file(source, uri):
    with pytest.raises(NotFoundError):
        source.locate(uri, RemoteFile(path="absent.bin"))


def test_unreachable_endpoint_stays_transient(open_source, uri):
    source = open_source({"NGC_API_ENDPOINT": "http://127.0.0.1:1", "NGC_API_KEY": "nvapi-1"})
    with pytest.raises(TransientError):
        source.list_files(uri)


def test_wrong_key_is_not_taken_for_another_organisation(open_source, ngc_server, uri):
    source = open_source(ngc_server.environment("nvapi-wrong"))
    for attempt in (lambda: source.list_files(uri), lambda: source.locate(uri, RemoteFile(path="config.json"))):
        with pytest.raises(AuthenticationError, match="key from NGC_API_KEY"):
            attempt()


def test_making_a_source_asks_nothing(source, ngc_server):
    assert isinstance(source, NgcSource)
    assert list(ngc_server.log) == []


def test_digest_of_the_listing_is_hex():
    assert Digest.from_base64("sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=") == inline(b"").digest("sha256")
