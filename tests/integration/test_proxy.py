"""A corporate proxy: squid, in front of a plain and a TLS origin, asked by both of core's HTTP libraries."""

import contextlib
import os
import socket
from io import BytesIO

import pycurl
import pytest

from nim_core.errors import ConfigError, SourceError, TransientError
from nim_core.settings import Settings
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response, json_response
from nim_core.testing.squid import USERINFO, squid
from nim_core.transfer.control import control_client
from nim_core.transfer.network import network_config
from nim_core.transfer.retry import RetryPolicy

pytest_plugins = ["nim_core.testing"]


@pytest.fixture(scope="module", autouse=True)
def has_squid():
    try:
        with squid():
            pass
    except FileNotFoundError as exc:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(exc))


@pytest.fixture(scope="module")
def open_proxy():
    with squid() as running:
        yield running


@pytest.fixture(scope="module")
def closed_proxy():
    with squid(auth=True) as running:
        yield running


@pytest.fixture(scope="module")
def origins(certificates):
    def handler(request):
        if request.path == "/away":
            return "away", Response(status=302, headers={"Location": f"{plain.url}/end%252Fx"})
        return "any", json_response(request.target)

    log = RequestLog()
    with (
        HttpOrigin("plain", handler, log=log) as plain,
        HttpOrigin("tls", handler, log=log, certificates=certificates) as tls,
    ):
        yield {"http": plain, "https": tls}


def settings_of(proxy, certificates, **more):
    return Settings({"http_proxy": proxy, "HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(certificates.ca)} | more)


@contextlib.contextmanager
def client(settings):
    with control_client(network_config(settings), RetryPolicy(retries=1, base_seconds=0.0)) as made:
        yield made


def ask_curl(settings, url):
    """Return status and body as the data path would get them."""
    config, body = network_config(settings), BytesIO()
    proxy = config.proxy_for(url)
    with contextlib.closing(pycurl.Curl()) as curl:
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.PROXY, proxy.reveal() if proxy else "")
        curl.setopt(pycurl.NOPROXY, "")
        curl.setopt(pycurl.CAINFO, str(config.ca_file))
        curl.setopt(pycurl.PROXY_CAINFO, str(config.ca_file))
        curl.setopt(pycurl.WRITEDATA, body)
        curl.perform()
        return curl.getinfo(pycurl.RESPONSE_CODE), body.getvalue().decode()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_requests_go_through_the_proxy_to_the_letter(scheme, open_proxy, origins, certificates):
    url = f"{origins[scheme].url}/{scheme}%252Fx?a=%26"
    with client(settings_of(f"http://{open_proxy.host_port}", certificates)) as http:
        assert http.get(url).json() == f"/{scheme}%252Fx?a=%26"
    target = url.partition("://")[2].partition("/")[0]
    assert open_proxy.saw(f"CONNECT {target}" if scheme == "https" else f"GET {url}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_bare_host_and_port_is_a_proxy(scheme, open_proxy, origins, certificates):
    settings = settings_of(open_proxy.host_port, certificates)
    with client(settings) as http:
        assert http.get(f"{origins[scheme].url}/bare").json() == "/bare"
    assert ask_curl(settings, f"{origins[scheme].url}/bare") == (200, '"/bare"')


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_user_and_password_are_decoded_for_each_library(scheme, closed_proxy, origins, certificates):
    settings = settings_of(f"http://{USERINFO}{closed_proxy.host_port}", certificates)
    with client(settings) as http:
        assert http.get(f"{origins[scheme].url}/x").json() == "/x"
    assert ask_curl(settings, f"{origins[scheme].url}/x") == (200, '"/x"')


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("userinfo", ["", "corp:hunter2@"])
def test_a_refusal_names_the_variable_and_no_password(scheme, userinfo, closed_proxy, origins, certificates):
    before = len(origins[scheme].log)
    with (
        client(settings_of(f"http://{userinfo}{closed_proxy.host_port}", certificates)) as http,
        pytest.raises(ConfigError, match="the proxy wants a user and password") as caught,
    ):
        http.get(f"{origins[scheme].url}/x")
    assert {"http": "http_proxy", "https": "HTTPS_PROXY"}[scheme] in caught.value.hint
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert len(origins[scheme].log) == before


def test_the_proxys_credentials_do_not_reach_the_origin(closed_proxy, origins, certificates):
    origins["http"].log.clear()
    with client(settings_of(f"http://{USERINFO}{closed_proxy.host_port}", certificates)) as http:
        for scheme in ("http", "https"):
            http.get(f"{origins[scheme].url}/x")
    assert len(origins["http"].log) == 2
    assert all(exchange.request.header("Proxy-Authorization") is None for exchange in origins["http"].log)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_proxy_goes_straight(scheme, open_proxy, origins, certificates):
    settings = settings_of(f"http://{open_proxy.host_port}", certificates, NO_PROXY="10.0.0.0/8, .localhost")
    url = origins[scheme].url.replace("127.0.0.1", "localhost")
    with client(settings) as http:
        assert http.get(f"{url}/straight").json() == "/straight"
        assert http.get(f"{origins['http'].url}/after-{scheme}").json() == f"/after-{scheme}"
    assert ask_curl(settings, f"{url}/straight") == (200, '"/straight"')
    assert open_proxy.saw(f"/after-{scheme}")
    assert "localhost" not in open_proxy.log


def test_a_redirect_may_change_the_proxy(open_proxy, origins, certificates):
    settings = Settings({"http_proxy": f"http://{open_proxy.host_port}", "no_proxy": "localhost"})
    with client(settings) as http:
        assert http.get(f"{origins['http'].url.replace('127.0.0.1', 'localhost')}/away").json() == "/end%252Fx"
    assert open_proxy.saw("/end%252Fx")
    assert "/away" not in open_proxy.log


def test_a_host_the_proxy_denies_is_final_through_a_tunnel(open_proxy, certificates):
    with (
        client(settings_of(f"http://{open_proxy.host_port}", certificates)) as http,
        pytest.raises(SourceError, match=r"refused to connect to https://127\.0\.0\.3:9 \(HTTP 403\)") as caught,
    ):
        http.get("https://127.0.0.3:9/x?token=hunter2")
    assert not caught.value.retryable
    assert "hunter2" not in str(caught.value)


def test_a_host_the_proxy_does_not_reach_is_tried_again(open_proxy, certificates):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        client(settings_of(f"http://{open_proxy.host_port}", certificates)) as http,
        pytest.raises(TransientError, match=r"\(HTTP 503\)"),
    ):
        http.get(f"https://127.0.0.1:{port}/")
    with client(settings_of(f"http://{open_proxy.host_port}", certificates)) as http:
        assert http.get(f"http://127.0.0.1:{port}/").status_code == 503


def test_a_proxy_that_is_not_there_is_named(origins, certificates):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        client(settings_of(f"http://corp:hunter2@127.0.0.1:{port}", certificates)) as http,
        pytest.raises(TransientError, match=f"through the proxy http://127.0.0.1:{port} .*refused") as caught,
    ):
        http.get(f"{origins['https'].url}/x")
    assert "hunter2" not in str(caught.value)


def test_metadata_services_are_not_asked_for_through_a_proxy(open_proxy, certificates):
    with (
        client(settings_of(f"http://{open_proxy.host_port}", certificates)) as http,
        pytest.raises(SourceError, match="metadata"),
    ):
        http.get("http://169.254.169.254/latest")
    assert "169.254" not in open_proxy.log


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_may_itself_speak_tls(scheme, origins, certificates):
    with squid(certificates=certificates) as proxy:
        settings = settings_of(f"https://{proxy.host_port}", certificates)
        with client(settings) as http:
            assert http.get(f"{origins[scheme].url}/x").json() == "/x"
        assert ask_curl(settings, f"{origins[scheme].url}/x") == (200, '"/x"')
