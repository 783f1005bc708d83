"""Keys, tokens and guests: what is sent where."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import evolve

from nim_core.errors import AuthenticationError, NotFoundError, PermissionDeniedError, SourceError
from nim_core.testing.faults import answer_with
from nim_core.testing.harness import ControlClient, repository_uri
from nim_core.testing.http_server import json_response
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer
from nim_core.types import BasicPair, BearerToken, RemoteFile

JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def uri(corpus):
    """URI of the model of the ``ngc_server`` fixture."""
    return repository_uri(NgcModel(files=corpus.files).uri())


def bearers(server):
    return {exchange.request.header("Authorization") for exchange in server.log.select(path="/v2/*")}


def test_nvapi_key_is_sent_as_it_is(source, ngc_server, uri):
    source.list_files(uri)
    assert bearers(ngc_server) == {f"Bearer {ngc_server.nvapi_key}"}
    assert ngc_server.log.count(route="token") == 0


def test_json_web_token_is_sent_as_it_is(open_source, ngc_server, uri):
    with pytest.raises(AuthenticationError):
        open_source(ngc_server.environment(JWT)).list_files(uri)
    assert bearers(ngc_server) == {f"Bearer {JWT}"}
    assert ngc_server.log.count(route="token") == 0


def test_legacy_key_is_traded_once_for_the_narrowest_token(open_source, ngc_server, uri):
    source = open_source(ngc_server.environment(ngc_server.legacy_key))
    for file in source.list_files(uri).files:
        source.locate(uri, file)
    [trade] = ngc_server.log.select(route="token")
    assert trade.request.query == "service=ngc&scope=group/ngc:nim/meta"
    assert not any(ngc_server.legacy_key in str(bearer) for bearer in bearers(ngc_server))
    assert ngc_server.storage.leaks == []


def test_first_variable_wins_on_the_wire(open_source, ngc_server, uri):
    environment = {**ngc_server.environment("nvapi-second"), "NGC_CLI_API_KEY": ngc_server.nvapi_key}
    assert len(open_source(environment).list_files(uri).files) == 12


def test_token_is_one_per_scope(open_source, corpus, uri):
    other = NgcModel(files=corpus.files, team="mistral")
    with NgcServer([NgcModel(files=corpus.files), other]) as server:
        source = open_source(server.environment(server.legacy_key))
        for _ in range(2):
            source.list_files(uri)
            source.list_files(repository_uri(other.uri()))
        scopes = [exchange.request.parameter("scope") for exchange in server.log.select(route="token")]
    assert scopes == ["group/ngc:nim/meta", "group/ngc:nim/mistral"]


@pytest.mark.parametrize(
    ("life", "times"),
    [(900, (0, 599, 601)), (90, (0, 29, 31))],
    ids=["at a third of its life", "at a minute"],
)
def test_token_is_renewed_in_time(open_source, corpus, uri, life, times):
    clock = Clock()
    with NgcServer([NgcModel(files=corpus.files)], token_lifetime=life) as server:
        source = open_source(server.environment(server.legacy_key), clock=clock)
        counts = []
        for seconds in times:
            clock.now = 1_000_000 + seconds
            source.list_files(uri)
            counts.append(server.log.count(route="token"))
    assert counts == [1, 1, 2]


def test_refused_token_is_renewed_once(open_source, ngc_server, uri):
    source = open_source(ngc_server.environment(ngc_server.legacy_key))
    source.list_files(uri)
    ngc_server.expire_tokens()
    assert len(source.list_files(uri).files) == 12
    assert ngc_server.log.count(route="token") == 2


def test_token_refused_again_is_final(open_source, ngc_server, uri):
    ngc_server.refuse(401, "no", route="listing")
    ngc_server.refuse(401, "no", route="file")
    with pytest.raises(AuthenticationError):
        open_source(ngc_server.environment(ngc_server.legacy_key)).list_files(uri)
    assert ngc_server.log.count(route="listing") == 2


def test_threads_share_one_token(open_source, ngc_server, uri, corpus):
    source = open_source(ngc_server.environment(ngc_server.legacy_key))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: source.locate(uri, RemoteFile(path=path)), list(corpus.files) * 4))
    assert {location.headers for location in found} == {()}
    assert ngc_server.log.count(route="token") == 1
    assert ngc_server.log.count(route="listing") == 3


def test_wrong_legacy_key(open_source, ngc_server, uri):
    with pytest.raises(AuthenticationError, match="does not accept the key from NGC_API_KEY"):
        open_source(ngc_server.environment("wrong")).list_files(uri)


@pytest.mark.parametrize("body", [{}, {"token": "t", "expires_in": "soon"}, []], ids=["empty", "odd life", "a list"])
def test_malformed_token(open_source, ngc_server, uri, body):
    ngc_server.faults.add(answer_with(json_response(body)), route="token")
    with pytest.raises(SourceError, match="cannot be understood"):
        open_source(ngc_server.environment("legacy")).list_files(uri)


@pytest.mark.parametrize("team", ["meta", None])
def test_guest_reads_what_guests_may(open_source, corpus, team):
    model = NgcModel(files=corpus.files, team=team, guest=True)
    with NgcServer([model], page_size=5) as server:
        source = open_source(server.environment(None))
        listing = source.list_files(evolve(repository_uri(model.uri()), revision=None))
        assert (len(listing.files), listing.pinned) == (12, model.version)
        urls = {file.path: source.locate(listing.uri, file).url.reveal() for file in listing.files}
        again = source.locate(listing.uri, listing.files[0]).url.reveal()
        with ControlClient() as client:
            assert client.get(urls["config.json"]).content == corpus.files["config.json"].data()
            assert client.get(again).content == corpus.files["LICENSE"].data()
        tokens = {exchange.request.header("X-NGC-Guest-Token") for exchange in server.log.select(origin="api")}
        assert len(tokens) == 1
        assert bearers(server) == {None}
        assert server.storage.leaks == []


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationError), (403, PermissionDeniedError), (404, NotFoundError)]
)
def test_refused_guest_is_told_that_there_is_no_key(open_source, ngc_server, uri, status, kind):
    ngc_server.refuse(status)
    with pytest.raises(kind, match="no API key was found") as caught:
        open_source(ngc_server.environment(None)).list_files(uri)
    assert "NGC_API_KEY" in caught.value.hint
    assert "NGC_CLI_API_KEY" in caught.value.hint
    assert ngc_server.log.count(route="file") == 0


def test_guest_is_refused_the_manifest(open_source, corpus):
    model = NgcModel(files=corpus.files, guest=True)
    with NgcServer([model]) as server:
        server.refuse_bulk_manifest(401)
        with pytest.raises(AuthenticationError, match="no API key was found"):
            open_source(server.environment(None)).list_files(repository_uri(model.uri()))


def test_key_of_another_plugin_wins_and_is_named(open_source, ngc_server, uri):
    def vault(request):
        return BearerToken(token="nvapi-from-vault", origin="vault path kv/ngc")

    with pytest.raises(AuthenticationError, match="vault path kv/ngc"):
        open_source(ngc_server.environment(), provide=vault).list_files(uri)
    assert bearers(ngc_server) == {"Bearer nvapi-from-vault"}


def test_other_kinds_of_credential_are_refused(open_source, ngc_server, uri):
    def pair(request):
        return BasicPair(username="u", password="hidden", origin="netrc")

    with pytest.raises(AuthenticationError, match="netrc"):
        open_source(ngc_server.environment(), provide=pair).list_files(uri)
    assert list(ngc_server.log) == []


@pytest.mark.parametrize("key", ["nvapi-two words", "nvapi-a\r\nX-Evil: 1", "nvapi-ключ"])
def test_key_that_no_header_can_hold(open_source, ngc_server, uri, key):
    with pytest.raises(AuthenticationError) as caught:
        open_source(ngc_server.environment(key)).list_files(uri)
    assert "NGC_API_KEY" in caught.value.message
    assert key not in caught.value.message
    assert list(ngc_server.log) == []


@pytest.mark.parametrize("kind", ["nvapi_key", "legacy_key"])
def test_nothing_shows_a_secret(open_source, ngc_server, uri, kind):
    key = getattr(ngc_server, kind)
    ngc_server.refuse_bulk_manifest()
    source = open_source(ngc_server.environment(key))
    location = source.locate(uri, source.list_files(uri).files[0])
    token = location.headers[0][1].reveal().removeprefix("Bearer ")
    ngc_server.refuse(403, f"who is {token} with {key}?", route="listing")
    with pytest.raises(PermissionDeniedError, match=r"who is \*\*\* with \*\*\*") as caught:
        source.list_files(uri)
    shown = f"{caught.value!r} {caught.value} {caught.value.hint} {location!r} {location} {source!r} {vars(source)!r}"
    assert token not in shown
    assert key not in shown
