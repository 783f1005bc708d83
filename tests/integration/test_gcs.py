"""Google Cloud Storage in a closed network: tokens, listing and data through a corporate proxy, nothing past it."""

from __future__ import annotations

import socket

import pytest

from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.gcs_server import GcsServer
from nim_core.testing.google_auth import GoogleAuth
from nim_core.testing.squid import USERINFO, squid

pytest_plugins = ["nim_core.testing"]

FILES = {"config.json": inline("{}\n"), "weights.bin": PatternContent(length=3_000_000)}


@pytest.fixture(params=["plain", "tls"])
def google(request, certificates):
    """Google's services with a model in a bucket, and what trusts them."""
    known = certificates if request.param == "tls" else None
    with GoogleAuth(certificates=known) as auth, GcsServer(auth=auth, certificates=known) as server:
        for path, content in FILES.items():
            server.put("models", f"llama/{path}", content)
        yield auth, server, {"SSL_CERT_FILE": str(certificates.ca), **server.environment()}


def credentials(kind, auth, folder):
    """Return the variables that name credentials of a kind."""
    if kind == "machine":
        return {"GCE_METADATA_HOST": auth.metadata_host}
    write = {"service account": auth.service_account_file, "user": auth.user_file, "workload": auth.workload_file}[kind]
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(write(folder))}


def port_of(url):
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("kind", ["service account", "user", "workload", "machine"])
def test_nothing_goes_past_the_proxy(machine, google, sockets, kind):
    auth, server, environment = google
    with squid(auth=True) as running:
        proxy = f"http://{USERINFO}{running.host_port}"
        environment |= {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "http_proxy": proxy}
        environment |= credentials(kind, auth, machine.folder)
        ended = machine.run("--model-uri", "gs://models/llama/", env=environment, within=sockets.within).check()
        asked = " ".join(url for _, url, _ in running.requests)
    assert "p@ss" not in ended.said
    assert auth.holders == [kind]
    own = {port_of(auth.metadata_host)} if kind == "machine" else set()
    assert sockets.ports - {53} == {running.port} | own
    assert f":{port_of(server.url)}" in asked
    assert (f":{port_of(auth.url)}" in asked) == (kind != "machine")
    assert f":{port_of(auth.metadata_host)}" not in asked
    assert [(link.name, link.stat().st_size) for link in machine.cache.links] == [
        (name, content.size) for name, content in FILES.items()
    ]


def test_without_its_password_the_proxy_is_named(machine, google):
    auth, _, environment = google
    with squid(auth=True) as running:
        proxy = f"http://{running.host_port}"
        environment |= {
            "http_proxy": proxy,
            "HTTPS_PROXY": proxy,
            **credentials("service account", auth, machine.folder),
        }
        ended = machine.run("--model-uri", "gs://models/llama/", env=environment)
    assert ended.code == 10, ended.stderr
    assert "the proxy wants a user and password" in ended.last


def test_no_proxy_is_obeyed(machine, google, sockets):
    auth, server, environment = google
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        proxy = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        environment |= {"http_proxy": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": "127.0.0.0/8"}
        environment |= credentials("service account", auth, machine.folder)
        machine.run("--model-uri", "gs://models/llama/", env=environment, within=sockets.within).check()
    assert sockets.ports == {port_of(auth.url), port_of(server.url)}
