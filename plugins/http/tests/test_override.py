"""Web servers in place of a registry: ``NIM_REPOSITORY_OVERRIDE=https://[user:password@]host[/path][?query]``."""

from __future__ import annotations

import pytest
from nim_source_http.plugin import nim_rewrite_uri
from nim_source_http.refs import http_ref

from nim_core.errors import OverrideUnsupportedError
from nim_core.hookspecs import PROJECT_NAME
from nim_core.testing.harness import object_uri, repository_uri
from nim_core.types import ModelUri, OverrideTarget, UriStyle

URI = repository_uri("ngc://nim/meta/m:hf?file=config.json")
KEY = "nim%2Fmeta%2Fm%3Ahf%3Ffile%3Dconfig.json"
TWICE = "nim%252Fmeta%252Fm%253Ahf%253Ffile%253Dconfig.json"


def rewritten(location, *, uri=URI, scheme="https", key=KEY):
    return nim_rewrite_uri(uri, OverrideTarget(scheme=scheme, location=location, key=key))


@pytest.mark.parametrize(
    ("location", "before", "after"),
    [
        ("host", "host/", ""),
        ("host:8443/models", "host:8443/models/", ""),
        ("me:p%40ss@host/a/b", "me:p%40ss@host/a/b/", ""),
        ("account.blob.example.net/container?sv=1&sig=a%2Fb", "account.blob.example.net/container/", "?sv=1&sig=a%2Fb"),
        ("host/a/?sig=x", "host/a/", "?sig=x"),
        ("host?sig=x", "host/", "?sig=x"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_key_encoded_again_then_as_it_is(scheme, location, before, after):
    assert rewritten(location, scheme=scheme) == tuple(
        ModelUri(scheme=scheme, location=f"{before}{key}{after}", style=UriStyle.OBJECT) for key in (TWICE, KEY)
    )


def test_what_is_sent():
    twice, once = (http_ref(uri) for uri in rewritten("me:p%40ss@host/a?sig=x"))
    assert (twice.url, twice.name) == (f"https://host/a/{TWICE}?sig=x", KEY)
    assert (once.url, once.name) == (f"https://host/a/{KEY}?sig=x", KEY)
    assert twice.pair.password.reveal() == "p@ss"


def test_a_blank_in_a_name_is_encoded_by_the_key_alone():
    twice, once = rewritten("host", key="m%3A1%3Ffile%3Da%20b~c.bin")
    assert (twice.location, once.location) == (
        "host/m%253A1%253Ffile%253Da%2520b~c.bin",
        "host/m%3A1%3Ffile%3Da%20b~c.bin",
    )


def test_secrets_are_not_shown():
    for uri in rewritten("me:hunter2@host/a?sig=secret"):
        assert "hunter2" not in uri.display
        assert "secret" not in uri.display


def test_a_whole_model_cannot_be_listed():
    with pytest.raises(OverrideUnsupportedError, match="cannot list a model: ngc://nim/meta/m:hf") as caught:
        rewritten("me:hunter2@host", uri=repository_uri("ngc://nim/meta/m:hf"))
    assert "--manifest-file" in caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_an_object_is_one_file():
    assert len(rewritten("host", uri=object_uri("s3://bucket/key"))) == 2


@pytest.mark.parametrize("scheme", ["s3", "ngc", "hf", "ftp"])
def test_targets_of_others_are_left_to_them(scheme):
    assert rewritten("bucket", scheme=scheme) is None
    assert getattr(nim_rewrite_uri, f"{PROJECT_NAME}_impl")["trylast"] is True
