from __future__ import annotations

from pathlib import Path

import pytest

from nim_core.errors import ConfigError
from nim_core.serving.nodes import address_towards, read_nodes
from nim_core.serving.settings import read_settings
from nim_core.settings import Settings
from nim_core.types import Nodes


def settings(**environ):
    return read_settings(Settings(environ))


def test_defaults():
    found = settings()
    assert (found.port, found.health_port, found.passthrough, found.peft_source) == (8000, None, (), None)
    assert found.exposure.certificate is None
    assert found.exposure.allowed_origins == ("*",)
    assert found.exposure.allowed_methods == ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


def test_ports():
    assert settings(NIM_HTTP_API_PORT="9000").port == 9000
    assert settings(NIM_HTTP_API_PORT="9000", NIM_SERVER_PORT="9001").port == 9001
    assert settings(NIM_HEALTH_PORT="8081").health_port == 8081
    assert settings(NIM_HEALTH_PORT="8000").health_port is None


def test_words_are_split_as_by_a_shell():
    assert settings(NIM_PASSTHROUGH_ARGS="--a 'b c' --d=\"{}\"").passthrough == ("--a", "b c", "--d={}")


@pytest.fixture
def files(tmp_path):
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).write_text("x")
    return {
        "NIM_SSL_CERTS_PATH": str(tmp_path / "cert.pem"),
        "NIM_SSL_KEY_PATH": str(tmp_path / "key.pem"),
        "NIM_SSL_CA_CERTS_PATH": str(tmp_path / "ca.pem"),
    }


def test_tls(files):
    found = settings(NIM_SSL_MODE="TLS", **files).exposure
    assert (found.certificate, found.key) == (Path(files["NIM_SSL_CERTS_PATH"]), Path(files["NIM_SSL_KEY_PATH"]))
    assert found.client_authority is None
    assert settings(NIM_SSL_MODE="mtls", **files).exposure.client_authority == Path(files["NIM_SSL_CA_CERTS_PATH"])
    assert settings(**files).exposure.certificate is None


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"NIM_SERVER_PORT": "0"}, "NIM_SERVER_PORT is not a port: 0"),
        ({"NIM_HEALTH_PORT": "65536"}, "NIM_HEALTH_PORT is not a port: 65536"),
        ({"NIM_SERVER_PORT": "http"}, "NIM_SERVER_PORT is not a whole number: 'http'"),
        ({"NIM_PASSTHROUGH_ARGS": "--a 'b"}, "NIM_PASSTHROUGH_ARGS cannot be split into words: No closing quotation"),
        ({"NIM_SSL_MODE": "on"}, "NIM_SSL_MODE is not a mode: on"),
        ({"NIM_SSL_MODE": "TLS"}, "NIM_SSL_MODE is TLS, and NIM_SSL_CERTS_PATH is not set"),
        (
            {"NIM_SSL_MODE": "TLS", "NIM_SSL_CERTS_PATH": "/missing", "NIM_SSL_KEY_PATH": "/missing"},
            "cannot read NIM_SSL_CERTS_PATH: /missing (no such file or directory)",
        ),
    ],
)
def test_wrong_values(environ, message):
    with pytest.raises(ConfigError) as caught:
        settings(**environ)
    assert caught.value.message == message


def test_one_machine_is_no_several():
    assert read_nodes(Settings({})) is None
    assert read_nodes(Settings({"NIM_NUM_COMPUTE_NODES": "1", "NIM_NODE_RANK": "0"})) is None


def test_several_machines():
    environ = {"NIM_NUM_COMPUTE_NODES": "2", "NIM_NODE_RANK": "1", "LWS_LEADER_ADDRESS": "127.0.0.1"}
    expected = Nodes(count=2, rank=1, leader="127.0.0.1", port=29501, address="127.0.0.1")
    assert read_nodes(Settings(environ)) == expected
    assert read_nodes(Settings(environ | {"POD_IP": "10.0.0.7"})).address == "10.0.0.7"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"NIM_NUM_COMPUTE_NODES": "2"}, "NIM_NUM_COMPUTE_NODES is 2, and LWS_LEADER_ADDRESS is not set"),
        (
            {"NIM_NUM_COMPUTE_NODES": "2", "NIM_NODE_RANK": "2", "LWS_LEADER_ADDRESS": "x"},
            "NIM_NODE_RANK is 2, and there are 2 nodes",
        ),
    ],
)
def test_wrong_nodes(environ, message):
    with pytest.raises(ConfigError) as caught:
        read_nodes(Settings(environ))
    assert caught.value.message == message


def test_a_leader_that_has_no_address():
    assert address_towards("no-such-host.invalid") is None
