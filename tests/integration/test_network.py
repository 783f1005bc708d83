"""Closed networks as a user meets them: a whole download behind a corporate proxy, and under a private authority."""

import contextlib
import socket

import pytest

from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.squid import USERINFO, squid

pytest_plugins = ["nim_core.testing"]

MODEL = NgcModel(
    files={
        "config.json": inline("{}\n"),
        "a folder/ü & co.bin": PatternContent(length=70_000),
        "weights.bin": PatternContent(length=3_000_000),
    }
)
PASSWORD = "p@ss:w/rd"
ONCE = {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1", "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "1"}

DENIES_ALL = "http_access deny all"
DENIES_PORT = "acl denied port PORT\nhttp_access deny denied"


@pytest.fixture
def start_proxy():
    """Return a function that starts a proxy with the rules asked for, or one that wants a password."""
    with contextlib.ExitStack() as stack:
        yield lambda *rules, auth=False: stack.enter_context(squid(auth=auth, rules=rules))


@pytest.fixture
def connect(machine, serve, certificates):
    """Return a function that serves the model by ``http`` or ``https`` to the machine, which trusts it."""

    def start(scheme="https"):
        served = serve(MODEL, certificates=certificates if scheme == "https" else None)
        machine.environment = {**served.server.environment(), **ONCE, "SSL_CERT_FILE": str(certificates.ca)}
        return served

    return start


def port_of(url):
    return int(url.rpartition(":")[2])


# ---------------------------------------------------------------------------------------------------- behind a proxy
@pytest.mark.parametrize("userinfo", ["", USERINFO], ids=["open", "password"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "http_proxy"])
def test_everything_goes_through_the_proxy(variable, userinfo, connect, start_proxy, download):
    scheme = variable.lower().removesuffix("_proxy")
    served = connect(scheme)
    proxy = start_proxy(auth=bool(userinfo))
    ended, ports = download(served, {variable: f"http://{userinfo}{proxy.host_port}"})
    assert ports == {proxy.port}
    asked = served.server.log.select()
    if scheme == "https":
        hosts = {url for method, url, _ in proxy.requests if method == "CONNECT"}
        assert hosts == {f"127.0.0.1:{port_of(url)}" for url in (served.server.api_url, served.server.storage_url)}
    else:
        assert len([line for line in proxy.requests if line[2] == "200"]) == len(asked)
        assert all(exchange.request.header("Via") for exchange in asked)
    assert {exchange.request.header("Proxy-Authorization") for exchange in asked} == {None}
    assert not [form for form in (PASSWORD, USERINFO) if form in ended.said]


@pytest.fixture
def download(machine, sockets):
    """Return a function that downloads all of a model, and tells which ports were connected to for it."""

    def run(served, variables):
        ended = machine.run("--manifest-file", served.manifest, within=sockets.within, env=variables).check()
        assert machine.cache.differences(MODEL) == []
        return ended, sockets.ports

    return run


@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY"])
def test_the_other_variables_count_too(variable, machine, connect, start_proxy):
    served = connect()
    proxy = start_proxy(DENIES_ALL)
    ended = machine.run("--manifest-file", served.manifest, env={variable: proxy.host_port})
    assert ended.code == 30
    assert f"the proxy http://{proxy.host_port} refused to connect to {served.server.api_url} (HTTP 403)" in ended.last
    assert "NO_PROXY" in ended.last
    assert len(served.server.log) == 0
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_no_proxy_leads_around_it_on_both_paths(scheme, machine, connect, start_proxy):
    served = connect(scheme)
    proxy = start_proxy(DENIES_ALL)
    variables = {f"{scheme.upper()}_PROXY": f"http://{proxy.host_port}", "NO_PROXY": "example.com, 127.0.0.0/8"}
    machine.run("--manifest-file", served.manifest, env=variables).check()
    assert machine.cache.differences(MODEL) == []
    assert proxy.requests == []


def test_a_proxy_that_denies_the_storage(machine, connect, start_proxy):
    served = connect()
    proxy = start_proxy(DENIES_PORT.replace("PORT", str(port_of(served.server.storage_url))))
    ended = machine.run("--manifest-file", served.manifest, env={"HTTPS_PROXY": f"http://{proxy.host_port}"})
    assert ended.code == 30
    for words in (proxy.host_port, served.server.storage_url, "HTTP 403", "NO_PROXY"):
        assert words in ended.last
    assert served.server.log.count(origin="storage") == 0
    assert machine.cache.receipts == {}


@pytest.mark.parametrize(("scheme", "path"), [("https", "api"), ("https", "storage"), ("http", "storage")])
def test_a_wrong_proxy_password(scheme, path, connect, start_proxy, machine):
    """``storage``: only the data goes through the proxy."""
    served = connect(scheme)
    proxy = start_proxy(auth=True)
    variable = f"{scheme.upper()}_PROXY"
    variables = {variable: f"http://corp:hunter2@{proxy.host_port}"}
    if path == "storage":
        variables["NO_PROXY"] = f"127.0.0.1:{port_of(served.server.api_url)}"
    ended = machine.run("--manifest-file", served.manifest, env=variables)
    assert ended.code == 10
    for words in ("proxy wants a user and password", proxy.host_port, variable):
        assert words in ended.last
    assert "hunter2" not in ended.said
    assert bool(served.server.log.count(origin="api")) == (path == "storage")
    assert served.server.log.count(origin="storage") == 0
    # 0: requests under way when the first refusal ended the download
    assert {status for _, _, status in proxy.requests} - {"0"} == {"407"}
    assert machine.cache.receipts == {}


def test_a_proxy_that_is_not_there(machine, connect):
    served = connect()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    ended = machine.run("--manifest-file", served.manifest, env={"HTTPS_PROXY": f"http://corp:hunter2@{address}"})
    assert ended.code == 39
    assert address in ended.last
    assert "hunter2" not in ended.said
    assert len(served.server.log) == 0


# ------------------------------------------------------------------------------------------------ a private authority
def test_a_private_authority_by_its_other_name(machine, connect, certificates):
    """SSL_CERT_FILE is what all tests here use."""
    served = connect()
    machine.environment.pop("SSL_CERT_FILE")
    machine.run("--manifest-file", served.manifest, env={"REQUESTS_CA_BUNDLE": str(certificates.ca)}).check()
    assert machine.cache.differences(MODEL) == []


def test_an_unknown_authority_is_refused_once(machine, connect, start_proxy):
    """The proxy counts the attempts."""
    served = connect()
    machine.environment.pop("SSL_CERT_FILE")
    proxy = start_proxy()
    ended = machine.run("--manifest-file", served.manifest, env={"HTTPS_PROXY": f"http://{proxy.host_port}"})
    assert ended.code == 30
    for words in ("certificate not trusted", served.server.api_url, "SSL_CERT_FILE"):
        assert words in ended.last
    assert "retry" not in ended.stderr
    assert len(proxy.requests) == 1
    assert len(served.server.log) == 0


def test_a_certificate_file_that_is_not_there(machine, connect):
    served = connect()
    ended = machine.run("--manifest-file", served.manifest, env={"SSL_CERT_FILE": str(machine.folder / "no.pem")})
    assert ended.code == 10
    assert "SSL_CERT_FILE" in ended.last
    assert str(machine.folder / "no.pem") in ended.last
