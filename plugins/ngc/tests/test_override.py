"""Proxies that speak NGC's protocol in place of NGC: ``NIM_REPOSITORY_OVERRIDE=ngc://host[:port][/path]``."""

from __future__ import annotations

import pytest
from nim_source_ngc.plugin import nim_rewrite_uri
from nim_source_ngc.refs import NgcRef, proxied

from nim_core.errors import InvalidUriError, OverrideUnsupportedError
from nim_core.hookspecs import PROJECT_NAME
from nim_core.testing.harness import object_uri, repository_uri
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer
from nim_core.types import OverrideTarget, UriStyle
from nim_core.uris import parse_uri


def target(location, scheme="ngc"):
    return OverrideTarget(scheme=scheme, location=location, key="ignored")


def at(server, model, file=None):
    return proxied(repository_uri(model.uri(file)), target(server.api_url.partition("://")[2]))


@pytest.mark.parametrize(
    ("location", "text", "expected"),
    [
        ("host", "ngc://o/t/m:1?file=a/b c", "ngc://host//o/t/m:1?file=a/b c"),
        ("host:8443", "ngc://o/m", "ngc://host:8443//o/m"),
        ("repo.example.com/api/nimmodel/ngc", "ngc://o/t/m:1", "ngc://repo.example.com/api/nimmodel/ngc//o/t/m:1"),
        ("[::1]:443/a", "ngc://o/m:1", "ngc://[::1]:443/a//o/m:1"),
    ],
)
def test_the_same_model_at_a_proxy(location, text, expected):
    uri = nim_rewrite_uri(repository_uri(text), target(location))
    assert str(uri) == expected
    ref = NgcRef.parse(uri)
    assert (ref.proxy, str(ref)) == (location, f"{NgcRef.parse(repository_uri(text))!s} at {location}")


@pytest.mark.parametrize("scheme", ["s3", "https", "hf"])
def test_targets_of_others_are_left_to_them(scheme):
    assert nim_rewrite_uri(repository_uri("ngc://o/m:1"), target("bucket", scheme)) is None
    assert getattr(nim_rewrite_uri, f"{PROJECT_NAME}_impl")["trylast"] is True


@pytest.mark.parametrize(
    "location",
    ["me:hunter2@host", "me@host", "host?x=1", "host#x", "host//o", "ho st", ":443", "host:port", "host/a//b", "/host"],
)
def test_what_is_no_address_of_a_proxy(location):
    with pytest.raises(OverrideUnsupportedError) as caught:
        proxied(repository_uri("ngc://o/m:1"), target(location))
    assert "hunter2" not in str(caught.value)
    assert "its key comes from NGC_API_KEY" in caught.value.hint


def test_models_of_others_are_refused():
    with pytest.raises(OverrideUnsupportedError, match="ngc://host cannot stand in for hf://"):
        proxied(repository_uri("hf://o/m"), target("host"))
    with pytest.raises(OverrideUnsupportedError):
        proxied(object_uri("s3://bucket/key"), target("host"))


@pytest.mark.parametrize("place", ["host", "host:8443", "host/path", "127.0.0.1:80/a/b"])
def test_nothing_that_can_be_written_down_names_a_proxy(place):
    """So that the user alone says who gets the key."""
    for text in (f"ngc://{place}//o/t/m:1", f"ngc://{place}//o/m?file=x", f"ngc://{place}/o/t/m"):
        with pytest.raises(InvalidUriError):
            NgcRef.parse(parse_uri(text, {"ngc": UriStyle.REPOSITORY}))


@pytest.mark.parametrize("key", [NgcServer.nvapi_key, NgcServer.legacy_key])
def test_the_proxy_alone_is_asked(open_source, corpus, ngc_server, key):
    """API and token service are at the proxy, beneath its path."""
    model = NgcModel(files=corpus.files)
    with NgcServer([model], prefix="/repo/ngc", page_size=2) as proxy:
        source = open_source(ngc_server.environment(key))
        uri = at(proxy, model)
        listing = source.list_files(uri)
        locations = [source.locate(uri, file) for file in listing.files]
        assert {file.path for file in listing.files} == model.served_files.keys()
        assert all(location.url.reveal().startswith(proxy.storage_url) for location in locations)
        assert {exchange.request.path.startswith("/repo/ngc/") for exchange in proxy.log} == {True}
        assert proxy.log.count(route="token") == (key == NgcServer.legacy_key)
    assert len(ngc_server.log) == 0


def test_ngc_and_its_proxies_are_told_apart(open_source, corpus, ngc_server):
    """Tokens, listings and latest versions of one are not the other's."""
    model = NgcModel(files=corpus.files)
    newer = NgcModel(files={"config.json": corpus.files["config.json"]}, version="hf-2.0")
    with NgcServer([model, newer]) as proxy:
        source = open_source(ngc_server.environment(NgcServer.legacy_key))
        own = repository_uri(model.uri().rpartition(":")[0])
        there = proxied(own, target(proxy.api_url.removeprefix("http://")))
        assert [source.list_files(uri).pinned for uri in (own, there, own)] == ["hf-1.0+chk1", "hf-2.0", "hf-1.0+chk1"]
        assert [server.log.count(route="token") for server in (ngc_server, proxy)] == [1, 1]


def test_https_unless_told_otherwise(open_source, corpus, certificates):
    model = NgcModel(files=corpus.files)
    with NgcServer([model], certificates=certificates) as proxy:
        source = open_source({"NGC_API_KEY": NgcServer.nvapi_key}, trust=certificates.client_context())
        assert source.list_files(at(proxy, model)).pinned == model.version


def test_where_files_live_does_not_depend_on_who_has_them(open_source, corpus):
    model = NgcModel(files=corpus.files)
    source = open_source({})
    own = repository_uri(model.uri())
    assert source.cache_key(proxied(own, target("host:1/a")), None) == source.cache_key(own, None)
