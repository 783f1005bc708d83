"""Where tokens, the endpoint and the cache are found."""

from __future__ import annotations

import subprocess
import sys

import pytest
from nim_source_hf.credentials import ENVIRONMENT, cache_root, endpoint, find_credential, offline, signed

from nim_core.errors import AuthenticationError, ConfigError
from nim_core.types import Anonymous, BasicPair, BearerToken, Variables

STORED = """
from nim_source_hf.credentials import ENVIRONMENT, find_credential
from nim_core.errors import AuthenticationError
from nim_core.types import Variables
try:
    found = find_credential(Variables(ENVIRONMENT, {}))
    print(found.token.reveal() if hasattr(found, "token") else None, found.origin)
except AuthenticationError as error:
    print(error.message, error.hint)
"""


def variables(**environment):
    return Variables(ENVIRONMENT, environment)


def stored(**environment):
    """Ask for the stored token as a command does: the Hub client reads its variables when it is imported."""
    done = subprocess.run([sys.executable, "-c", STORED], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_first_variable_wins():
    both = variables(HF_TOKEN=" first\n", HUGGING_FACE_HUB_TOKEN="second")
    assert find_credential(both) == BearerToken(token="first", origin="HF_TOKEN")
    only = variables(HF_TOKEN=" ", HUGGING_FACE_HUB_TOKEN="second")
    assert find_credential(only) == BearerToken(token="second", origin="HUGGING_FACE_HUB_TOKEN")


@pytest.mark.parametrize("variable", ["HOME", "HF_HOME", "HF_TOKEN_PATH"])
def test_token_that_the_client_stored(tmp_path, variable):
    file = tmp_path / {"HOME": ".cache/huggingface/token", "HF_HOME": "token", "HF_TOKEN_PATH": "mine"}[variable]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("hf_stored\n", encoding="utf-8")
    value = file if variable == "HF_TOKEN_PATH" else tmp_path
    assert stored(**{"HOME": str(tmp_path / "other"), variable: str(value)}) == f"hf_stored {file}"


def test_no_token(tmp_path):
    assert stored(HOME=str(tmp_path)) == "None anonymous"


def test_stored_token_that_cannot_be_read(tmp_path):
    (tmp_path / "token").mkdir()
    said = stored(HF_HOME=str(tmp_path), HOME=str(tmp_path))
    assert said.startswith("the stored Hugging Face token cannot be used: IsADirectoryError set HF_TOKEN")
    assert str(tmp_path / "token") in said


def test_signing_in():
    headers = signed(BearerToken(token="hf_1", origin="HF_TOKEN"))
    assert {name: value.reveal() for name, value in headers.items()} == {"Authorization": "Bearer hf_1"}
    assert signed(Anonymous()) == {}


def test_what_cannot_sign_in():
    with pytest.raises(AuthenticationError, match="not what the URI gives"):
        signed(BasicPair(username="u", password="p", origin="the URI"))
    with pytest.raises(AuthenticationError, match="from HF_TOKEN has characters") as caught:
        signed(BearerToken(token="hf_\n1", origin="HF_TOKEN"))
    assert "hf_" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (None, "https://huggingface.co"),
        ("http://localhost:8090/", "http://localhost:8090"),
        ("https://hub.example/api/hf/", "https://hub.example/api/hf"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_endpoint(value, url):
    assert endpoint(variables(**({} if value is None else {"HF_ENDPOINT": value}))) == url


@pytest.mark.parametrize("value", ["localhost:8090", "ftp://x", "https://u:p@hub.example", "https://", "https://x/?y"])
def test_no_endpoint(value):
    with pytest.raises(ConfigError, match="HF_ENDPOINT") as caught:
        endpoint(variables(HF_ENDPOINT=value))
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ({}, "huggingface/hub"),
        ({"HF_HOME": "/h"}, "/h/hub"),
        ({"HF_HOME": "/h", "HF_HUB_CACHE": "/c"}, "/c"),
        ({"HF_HOME": "/h", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/c"}, "/c"),
        ({"HUGGINGFACE_HUB_CACHE": "/old/"}, "/old"),
    ],
)
def test_cache(environment, root):
    assert cache_root(variables(**environment)) == root


def test_cache_in_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.setenv("PLACE", "there")
    assert cache_root(variables(HF_HOME="~/$PLACE")) == "/somebody/there/hub"


def test_offline():
    assert offline(variables()) is None
    assert offline(variables(HF_HUB_OFFLINE="1")) == "HF_HUB_OFFLINE"
    assert offline(variables(HF_HUB_OFFLINE="0", TRANSFORMERS_OFFLINE="yes")) == "TRANSFORMERS_OFFLINE"
