"""Listings and locations, from the stand-in."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from nim_core.errors import InvalidUriError, SourceError, TransientError
from nim_core.testing.corpus import inline
from nim_core.testing.faults import answer_with
from nim_core.testing.harness import ControlClient, repository_uri
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.modelscope_models import ModelScopeModel, success
from nim_core.testing.modelscope_server import ModelScopeServer
from nim_core.types import RemoteFile

CUT = 3000
ONE = inline("x")


@pytest.fixture
def model(corpus):
    """The model of the ``modelscope_server`` fixture."""
    return ModelScopeModel(files=corpus.files)


@pytest.fixture
def uri(model):
    """Its URI."""
    return repository_uri(model.uri())


def many(folder, count):
    return {f"{folder}{number:05d}": ONE for number in range(count)}


def test_lists_every_file_with_size_and_digest(source, uri, model):
    listing = source.list_files(uri)
    assert (listing.uri, listing.pinned) == (uri, None)
    assert {file.path: (file.size, file.digests) for file in listing.files} == {
        path: (content.size, (content.digest("sha256"),)) for path, content in model.files.items()
    }


def test_the_listing_is_one_request_for_master(source, modelscope_server, uri):
    source.list_files(uri)
    [exchange] = modelscope_server.log
    assert exchange.request.query == "Revision=master&Recursive=True"
    assert exchange.request.header("Authorization") == f"Bearer {modelscope_server.token}"
    assert exchange.request.header("Cookie") == f"m_session_id={modelscope_server.token}"


def test_a_commit_pins_the_listing(source, model):
    assert source.list_files(repository_uri(model.uri(revision=model.commit))).pinned == model.commit
    assert source.list_files(repository_uri(model.uri(revision=model.commit[:8]))).pinned is None


def test_a_file_without_digest_has_none(open_source, corpus, uri):
    bare = ModelScopeModel(files=corpus.files, lists_sha256=False)
    with ModelScopeServer([bare]) as server:
        files = open_source(server.environment()).list_files(uri).files
    assert {file.path for file in files if file.digests} == {path for path in bare.files if bare.is_lfs(path)}


def test_lfs_files_are_read_by_ranges_and_others_are_not(source, uri, model):
    located = {file.path: source.locate(uri, file) for file in source.list_files(uri).files}
    assert {path: place.ranges for path, place in located.items()} == {path: model.is_lfs(path) for path in model.files}
    assert {path: place.size for path, place in located.items()} == {path: it.size for path, it in model.files.items()}


def test_where_a_listing_does_not_say_core_finds_out_about_ranges(source, modelscope_server, uri, model):
    entries = [{"Path": "config.json", "Type": "blob"}]
    modelscope_server.faults.add(answer_with(success({"Files": entries})), route="listing")
    [file] = source.list_files(uri).files
    assert (file.size, file.digests, source.locate(uri, file).ranges) == (None, (), None)


def test_every_url_leads_to_the_bytes_and_the_token_stays_with_the_endpoint(source, modelscope_server, uri, model):
    with ControlClient() as client:
        for file in source.list_files(uri).files:
            place = source.locate(uri, file)
            headers = {name: value.reveal() for name, value in place.headers}
            answer = client.get(place.url.reveal(), headers=headers)
            assert answer.content == model.files[file.path].data()
    assert {exchange.request.origin for exchange in modelscope_server.log} == {"api", "storage"}


def test_a_url_is_known_without_a_request(source, modelscope_server, uri):
    [file, *_] = source.list_files(uri).files
    modelscope_server.log.clear()
    source.locate(uri, file)
    assert len(modelscope_server.log) == 0


def test_asked_again_finds_out_whether_the_url_is_good(source, modelscope_server, uri, model):
    for path in ("config.json", "model-00001-of-00002.safetensors"):
        file = RemoteFile(path=path)
        first = source.locate(uri, file)
        modelscope_server.log.clear()
        assert source.locate(uri, file) == first
        [exchange] = modelscope_server.log
        assert (exchange.route, exchange.request.method) == ("file", "HEAD")


def test_the_endpoint_may_have_a_path(open_source, uri):
    source = open_source({"MODELSCOPE_ENDPOINT": "https://repo.example.com/ms/"})
    place = source.locate(uri, RemoteFile(path="a b"))
    parts = urlsplit(place.url.reveal())
    assert (parts.netloc, parts.path) == ("repo.example.com", "/ms/api/v1/models/LLM-Research/Sample-1.5-LLM/repo")


def test_tls_of_a_private_authority(open_source, certificates, model, uri):
    with ModelScopeServer([model], certificates=certificates) as server:
        trusting = open_source(server.environment(), trust=certificates.client_context())
        assert len(trusting.list_files(uri).files) == len(model.files)
        with pytest.raises(TransientError):
            open_source(server.environment()).list_files(uri)


# ----------------------------------------------------------------------------------------------- listings that are cut
def listed(open_source, files):
    model = ModelScopeModel(files=files)
    with ModelScopeServer([model]) as server:
        found = open_source(server.environment()).list_files(repository_uri(model.uri()))
        return found, server.log.count(route="listing")


def test_just_below_the_cut_one_listing_does(open_source):
    files = many("f", CUT - 1)
    found, listings = listed(open_source, files)
    assert ({file.path for file in found.files}, listings) == (set(files), 1)


def test_a_listing_that_is_cut_is_made_again_folder_by_folder(open_source):
    files = {**many("a/", 1800), **many("b/c/d/", 1700), **many("b/c/e/", 1700), **many("b/x", 10), "top": ONE}
    found, listings = listed(open_source, files)
    assert {file.path for file in found.files} == set(files)
    assert len(found.files) == len(files)
    # top, b and b/c are cut and listed flat as well; a, b/c/d and b/c/e are whole
    assert listings == 3 * 2 + 3


def test_a_folder_that_cannot_be_listed_is_an_error_and_no_part_of_a_model(open_source):
    with pytest.raises(SourceError, match=r"cannot list .*: big has 3000 entries or more"):
        listed(open_source, {**many("big/", CUT + 1), "config.json": ONE})


def test_a_server_that_does_not_know_roots_gives_no_part_of_a_model(open_source):
    files = [{"Path": "a", "Type": "tree"}, *({"Path": f"a/{number}", "Type": "blob"} for number in range(CUT))]

    def answer(request):
        return "listing", success({"Files": files[:CUT] if "Recursive=True" in request.query else files[:1]})

    with (
        HttpOrigin("api", answer, log=RequestLog()) as origin,
        pytest.raises(SourceError, match=r"cannot list .*: a has"),
    ):
        open_source({"MODELSCOPE_ENDPOINT": origin.url}).list_files(repository_uri("modelscope://a/b"))


# ------------------------------------------------------------------------------------- refusals that may mean nothing
def listed_again(open_source, refusals):
    model = ModelScopeModel(files={**many("a/", 1600), **many("b/", 1600)})
    with ModelScopeServer([model]) as server:
        source = open_source(server.environment())
        source.list_files(repository_uri(model.uri(revision=model.commit)))
        server.refuse(403, "access denied", route="listing", times=refusals)
        return source.list_files(repository_uri(model.uri()))


def test_a_refusal_after_an_answer_is_tried_again(open_source, naps):
    assert len(listed_again(open_source, 3).files) == 3200
    assert naps.seconds == [1.0, 2.0, 4.0]


def test_refusals_without_end_are_a_failure_that_may_pass(open_source, naps):
    with pytest.raises(TransientError, match="keeps refusing"):
        listed_again(open_source, None)
    assert naps.seconds == [1.0, 2.0, 4.0]


# ------------------------------------------------------------------------------------------------ answers that are odd
@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"Files": 7},
        {"Files": [7]},
        {"Files": [{"Name": "x"}]},
        {"Files": [{"Path": "../x"}]},
        {"Files": [{"Path": "/etc/passwd"}]},
        {"Files": [{"Path": "x", "Size": "many"}]},
        {"Files": [{"Path": "x", "Size": -1}]},
        {"Files": [{"Path": "x", "Sha256": "abc"}]},
    ],
)
def test_a_listing_that_cannot_be_understood_is_an_error_of_the_source(source, modelscope_server, uri, data):
    modelscope_server.faults.add(answer_with(success(data)), route="listing")
    with pytest.raises(SourceError, match="cannot be understood"):
        source.list_files(uri)


def test_a_uri_that_names_no_model_is_refused_before_any_request(source, modelscope_server):
    with pytest.raises(InvalidUriError):
        source.list_files(repository_uri("modelscope://a/b/c"))
    assert len(modelscope_server.log) == 0
