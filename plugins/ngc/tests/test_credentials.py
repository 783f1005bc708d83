"""Where keys and endpoints are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nim_source_ngc.credentials import ENVIRONMENT, endpoint, find_credential

from nim_core.errors import AuthenticationError, ConfigError
from nim_core.types import Anonymous, BearerToken, Variables

INI = ";WARNING - This is a machine generated file.\n[CURRENT]\napikey = {key}\nformat_type = ascii\norg = nim\n"


def variables(**environment):
    return Variables(ENVIRONMENT, environment)


def write_config(home, text):
    file = home / ".ngc" / "config"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_first_variable_wins():
    both = variables(NGC_CLI_API_KEY="first", NGC_API_KEY="second")
    assert find_credential(both) == BearerToken(token="first", origin="NGC_CLI_API_KEY")


@pytest.mark.parametrize("value", ["second", "  second\n"])
def test_empty_variable_counts_as_unset(value):
    found = find_credential(variables(NGC_CLI_API_KEY="", NGC_API_KEY=value))
    assert found == BearerToken(token="second", origin="NGC_API_KEY")


def test_variable_wins_over_configuration(tmp_path):
    write_config(tmp_path, INI.format(key="third"))
    found = find_credential(variables(NGC_API_KEY="second", NGC_CLI_HOME=str(tmp_path)))
    assert found == BearerToken(token="second", origin="NGC_API_KEY")


@pytest.mark.parametrize(
    "text",
    [
        INI.format(key="third"),
        json.dumps({"apikey": "third"}),
        json.dumps({"CURRENT": {"apikey": "third", "org": "nim"}}, indent=1),
    ],
)
def test_configuration_of_the_cli(tmp_path, text):
    file = write_config(tmp_path, text)
    assert find_credential(variables(NGC_CLI_HOME=str(tmp_path))) == BearerToken(token="third", origin=str(file))


def test_configuration_in_the_home():
    file = write_config(Path.home(), INI.format(key="third"))
    assert find_credential(variables()) == BearerToken(token="third", origin=str(file))


@pytest.mark.parametrize("text", ["", "[CURRENT]\norg = nim\n", INI.format(key="no-apikey"), INI.format(key=""), "{}"])
def test_configuration_without_key(tmp_path, text):
    write_config(tmp_path, text)
    assert find_credential(variables(NGC_CLI_HOME=str(tmp_path))) == Anonymous()


def test_no_configuration(tmp_path):
    assert find_credential(variables(NGC_CLI_HOME=str(tmp_path / "absent"))) == Anonymous()


@pytest.mark.parametrize(
    "text", ["nvapi-hidden\n", '{"apikey": "nvapi-hidden"', '{"apikey": ["nvapi-hidden"]}', "apikey=nvapi-hidden"]
)
def test_broken_configuration_is_named_and_not_quoted(tmp_path, text):
    file = write_config(tmp_path, text)
    with pytest.raises(AuthenticationError) as caught:
        find_credential(variables(NGC_CLI_HOME=str(tmp_path)))
    assert str(file) in caught.value.message
    assert "hidden" not in f"{caught.value!r} {caught.value.hint}"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "https://api.ngc.nvidia.com"),
        ({"NGC_API_SCHEME": "http"}, "https://api.ngc.nvidia.com"),
        ({"NGC_API_ENDPOINT": "proxy.test"}, "https://proxy.test"),
        ({"NGC_API_ENDPOINT": "proxy.test:8443/", "NGC_API_SCHEME": "http"}, "http://proxy.test:8443"),
        (
            {"NGC_API_ENDPOINT": "repo.test/artifactory/api/nimmodel/ngc//", "NGC_API_SCHEME": "HTTPS"},
            "https://repo.test/artifactory/api/nimmodel/ngc",
        ),
        ({"NGC_API_ENDPOINT": "http://proxy.test/p", "NGC_API_SCHEME": "https"}, "http://proxy.test/p"),
    ],
)
def test_endpoint_forms(environment, expected):
    assert endpoint(variables(**environment), "NGC_API_ENDPOINT") == expected


def test_token_service_has_its_own_default():
    assert endpoint(variables(NGC_API_ENDPOINT="proxy.test"), "NGC_AUTH_ENDPOINT") == "https://authn.nvidia.com"


@pytest.mark.parametrize(
    "environment",
    [
        {"NGC_API_ENDPOINT": "ftp://proxy.test"},
        {"NGC_API_ENDPOINT": "proxy.test", "NGC_API_SCHEME": "gopher"},
        {"NGC_API_ENDPOINT": "https://user:hidden@proxy.test"},
        {"NGC_API_ENDPOINT": "https://"},
    ],
)
def test_impossible_endpoint(environment):
    with pytest.raises(ConfigError) as caught:
        endpoint(variables(**environment), "NGC_API_ENDPOINT")
    assert "NGC_API_ENDPOINT" in caught.value.message
    assert "hidden" not in f"{caught.value!r}"
