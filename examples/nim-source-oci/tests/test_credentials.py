from __future__ import annotations

import base64
import json

import pytest
from nim_source_oci.plugin import nim_provide_credential, nim_register_sources

from nim_core.errors import AuthenticationError
from nim_core.types import Anonymous, BasicPair, CredentialRequest, Variables

PAIR = base64.b64encode(b"bob:s3cret:with colon").decode()


def asked(environment, endpoint="https://registry.example.com", source="oci"):
    [spec] = nim_register_sources()
    variables = Variables(spec.environment, environment)
    return nim_provide_credential(CredentialRequest(source=source, endpoint=endpoint, variables=variables))


@pytest.fixture
def docker(tmp_path):
    """Return a function that writes config.json and returns the variable that leads to it."""

    def write(config):
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return {"DOCKER_CONFIG": str(tmp_path)}

    return write


def test_another_source_is_left_to_others():
    assert asked({"OCI_USERNAME": "x"}, source="hf") is None


def test_variables_are_for_their_registry_alone(tmp_path):
    environment = {
        "OCI_REGISTRY": "Registry.example.com",
        "OCI_USERNAME": "bob",
        "OCI_PASSWORD": "s3cret\n",
        "DOCKER_CONFIG": str(tmp_path),
    }
    origin = "OCI_USERNAME and OCI_PASSWORD"
    assert asked(environment) == BasicPair(username="bob", password="s3cret", origin=origin)
    assert asked(environment, "https://registry.example.com:5000") == Anonymous()
    assert asked(environment, "https://evil.example.com") == Anonymous()


@pytest.mark.parametrize("missing", ["OCI_REGISTRY", "OCI_USERNAME", "OCI_PASSWORD"])
def test_variables_set_in_part_are_refused(missing):
    environment = {"OCI_REGISTRY": "r.example", "OCI_USERNAME": "bob", "OCI_PASSWORD": "s3cret"}
    del environment[missing]
    with pytest.raises(AuthenticationError) as caught:
        asked(environment)
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(
    "key", ["registry.example.com", "https://registry.example.com", "https://registry.example.com/v2/"]
)
def test_what_docker_stored(docker, key):
    found = asked(docker({"auths": {key: {"auth": PAIR}, "other": {}}}))
    assert (found.username, found.password.reveal()) == ("bob", "s3cret:with colon")
    assert found.origin.endswith("config.json")


def test_docker_hub_by_the_name_docker_gives_it(docker):
    environment = docker({"auths": {"https://index.docker.io/v1/": {"auth": PAIR}}})
    assert asked(environment, "https://registry-1.docker.io").username == "bob"


@pytest.mark.parametrize(
    "config", [{}, {"auths": {}}, {"auths": {"registry.example.com": {}}}, {"auths": {"g.example": {"auth": PAIR}}}]
)
def test_what_docker_has_nothing_for(docker, config):
    assert asked(docker(config)) == Anonymous()


@pytest.mark.parametrize(
    "config",
    [
        "not json s3cret",
        "[]",
        {"auths": 5},
        {"auths": {"registry.example.com": 5}},
        {"auths": {"registry.example.com": {"auth": "not base64 s3cret"}}},
        {"auths": {"registry.example.com": {"auth": "", "identitytoken": "s3cret"}}},
    ],
)
def test_a_file_that_cannot_be_used(docker, config):
    with pytest.raises(AuthenticationError) as caught:
        asked(docker(config))
    assert "s3cret" not in f"{caught.value.message}{caught.value.hint}"


def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(AuthenticationError):
        asked({"DOCKER_CONFIG": str(tmp_path)})
