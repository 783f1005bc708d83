"""Token and endpoint: where they come from and where they go."""

from __future__ import annotations

import pickle

import pytest
from nim_source_modelscope.credentials import ENVIRONMENT, carriers, endpoint
from nim_source_modelscope.plugin import nim_provide_credential

from nim_core.errors import AuthenticationError, ConfigError
from nim_core.testing.harness import repository_uri
from nim_core.testing.modelscope_models import ModelScopeModel
from nim_core.types import Anonymous, BasicPair, BearerToken, CredentialRequest, Secret, Variables


def request(source="modelscope", **environment):
    variables = Variables(ENVIRONMENT, environment)
    return CredentialRequest(source=source, endpoint="https://modelscope.cn", variables=variables)


def test_the_token_is_the_variables():
    assert nim_provide_credential(request()) == Anonymous()
    assert nim_provide_credential(request("hf", MODELSCOPE_API_TOKEN="ms-1")) is None
    found = nim_provide_credential(request(MODELSCOPE_API_TOKEN=" ms-1\n"))
    assert found == BearerToken(token="ms-1", origin="MODELSCOPE_API_TOKEN")


class Trap:
    """Says that it was loaded."""

    def __reduce__(self):
        return (pytest.fail, ("a stored login was loaded",))


def test_a_stored_login_is_never_loaded(open_source, modelscope_server, corpus, monkeypatch, tmp_path):
    stored = tmp_path / ".modelscope" / "credentials" / "cookies"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(pickle.dumps([Trap()]))
    before = stored.stat()
    monkeypatch.setenv("HOME", str(tmp_path))
    source = open_source(modelscope_server.environment(None))
    source.list_files(repository_uri(ModelScopeModel(files=corpus.files).uri()))
    [listing] = modelscope_server.log
    assert (listing.request.header("Authorization"), listing.request.header("Cookie")) == (None, None)
    assert stored.stat() == before


def test_a_token_is_sent_by_both_carriers():
    sent = carriers(BearerToken(token="ms-1", origin="x"))
    assert sent == {"Authorization": Secret("Bearer ms-1"), "Cookie": Secret("m_session_id=ms-1")}
    assert carriers(Anonymous()) == {}


@pytest.mark.parametrize("token", ["a b", "a;b", 'a"b', "a,b", "a\\b", "ü", "a\r\nX: y"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token):
    with pytest.raises(AuthenticationError) as caught:
        carriers(BearerToken(token=token, origin="MODELSCOPE_API_TOKEN"))
    assert token not in f"{caught.value} {caught.value.hint}"


def test_other_kinds_of_credentials_are_refused():
    with pytest.raises(AuthenticationError, match="wants a token"):
        carriers(BasicPair(username="u", password="p", origin="vault"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "https://modelscope.cn"),
        ({"MODELSCOPE_ENDPOINT": "http://proxy:8080/"}, "http://proxy:8080"),
        ({"MODELSCOPE_ENDPOINT": "www.modelscope.ai"}, "https://www.modelscope.ai"),
        ({"MODELSCOPE_ENDPOINT": "https://[::1]:8/ms"}, "https://[::1]:8/ms"),
        ({"MODELSCOPE_DOMAIN": "old.example.com"}, "https://old.example.com"),
        ({"MODELSCOPE_DOMAIN": "old.example.com", "MODELSCOPE_ENDPOINT": "new.example.com"}, "https://new.example.com"),
    ],
)
def test_endpoint(environment, expected):
    assert endpoint(Variables(ENVIRONMENT, environment)) == expected


@pytest.mark.parametrize("value", ["https://u:p4ss@host", "https://host?x=p4ss", "ftp://host", "https://a b"])
def test_what_is_no_endpoint_is_refused_without_showing_it(value):
    with pytest.raises(ConfigError, match="MODELSCOPE_ENDPOINT") as caught:
        endpoint(Variables(ENVIRONMENT, {"MODELSCOPE_ENDPOINT": value}))
    assert "p4ss" not in f"{caught.value} {caught.value.hint}"
