"""The port: how it is listened on, and how it is let go."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from nim_core.errors import ConfigError
from nim_core.serving.listener import Listener
from nim_core.testing.certificates import Certificates, make_certificates
from nim_core.types import Exposure


async def app(scope, receive, send) -> None:
    """Answer after as many seconds as the path says."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await asyncio.sleep(float(scope["path"][1:] or 0))
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


@contextmanager
def listening(exposure: Exposure | None = None, host: str = "127.0.0.1") -> Iterator[Listener]:
    listener = Listener(app, host, 0, exposure)
    listener.start()
    try:
        yield listener
    finally:
        listener.stop(0.1)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """What an authority has made out for this machine."""
    return make_certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """What another authority has made out for this machine."""
    return make_certificates(tmp_path_factory.mktemp("theirs"))


def client_context(trusted: Certificates, own: Certificates | None = None) -> ssl.SSLContext:
    context = trusted.client_context()
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


def test_it_answers_as_soon_as_it_has_started() -> None:
    with listening() as listener:
        assert listener.running
        assert httpx.get(listener.url, trust_env=False).text == "http"
    assert not listener.running
    with pytest.raises(httpx.ConnectError):
        httpx.get(listener.url, trust_env=False)


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_other_addresses(host: str) -> None:
    try:
        socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    with listening(host=host) as listener:
        assert httpx.get(listener.url, trust_env=False).text == "http"


def test_a_port_that_is_taken_is_named() -> None:
    with listening() as listener:
        second = Listener(app, "127.0.0.1", listener.port, variable="NIM_HEALTH_PORT")
        with pytest.raises(ConfigError, match=f"the port is taken: 127.0.0.1:{listener.port}") as raised:
            second.start()
        assert "NIM_HEALTH_PORT" in str(raised.value.hint)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 70000), ("no.such.host.invalid", 0)])
def test_addresses_that_are_none(host: str, port: int) -> None:
    with pytest.raises(ConfigError):
        Listener(app, host, port).start()


def test_a_port_can_be_had_again_at_once() -> None:
    with listening() as listener:
        httpx.get(listener.url, trust_env=False)
        port = listener.port
    second = Listener(app, "127.0.0.1", port)
    second.start()
    assert second.stop(1)


def test_tls(certificates: Certificates, others: Certificates) -> None:
    with listening(Exposure(certificate=certificates.certificate, key=certificates.key)) as listener:
        assert listener.url.startswith("https://")
        assert httpx.get(listener.url, verify=client_context(certificates), trust_env=False).text == "https"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(listener.url, verify=client_context(others), trust_env=False)
        with pytest.raises(httpx.HTTPError):
            httpx.get(listener.url.replace("https", "http"), trust_env=False)


def test_clients_need_a_certificate_where_that_is_asked(certificates: Certificates, others: Certificates) -> None:
    exposure = Exposure(certificate=certificates.certificate, key=certificates.key, client_authority=certificates.ca)
    with listening(exposure) as listener:
        known = client_context(certificates, certificates)
        assert httpx.get(listener.url, verify=known, trust_env=False).text == "https"
        for stranger in (client_context(certificates), client_context(certificates, others)):
            with pytest.raises(httpx.HTTPError):
                httpx.get(listener.url, verify=stranger, trust_env=False)


def test_certificates_that_cannot_be_used(certificates: Certificates, others: Certificates, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    good = {"certificate": certificates.certificate, "key": certificates.key}
    refused = [
        ({**good, "certificate": tmp_path / "none"}, "NIM_SSL_CERTS_PATH cannot be read: .*none: No such file"),
        ({**good, "key": tmp_path / "none"}, "NIM_SSL_KEY_PATH cannot be read"),
        ({**good, "key": others.key}, "NIM_SSL_KEY_PATH does not belong to the certificate of NIM_SSL_CERTS_PATH"),
        ({**good, "certificate": empty}, "hold no certificate with its key"),
        ({**good, "key": empty}, "hold no certificate with its key"),
        ({**good, "client_authority": tmp_path / "none"}, "NIM_SSL_CA_CERTS_PATH cannot be read"),
        ({**good, "client_authority": empty}, "NIM_SSL_CA_CERTS_PATH holds no certificates"),
        ({"key": certificates.key}, "TLS needs a certificate"),
    ]
    for wrong, message in refused:
        with pytest.raises(ConfigError, match=message):
            Listener(app, "127.0.0.1", 0, Exposure(**wrong)).start()


def test_a_key_with_a_password_asks_nobody(certificates: Certificates, tmp_path: Path) -> None:
    key = tmp_path / "locked.key"
    openssl = shutil.which("openssl")
    assert openssl is not None
    command = [openssl, "pkcs8", "-topk8", "-in", certificates.key, "-out", key, "-passout", "pass:x"]
    subprocess.run(command, check=True)
    with pytest.raises(ConfigError, match="without a password"):
        Listener(app, "127.0.0.1", 0, Exposure(certificate=certificates.certificate, key=key)).start()


class Asking(threading.Thread):
    """A request in flight."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.outcome: httpx.Response | httpx.HTTPError | None = None
        self.begun = threading.Event()

    def run(self) -> None:
        try:
            with httpx.stream("GET", self._url, trust_env=False, timeout=20) as response:
                self.begun.set()
                response.read()
                self.outcome = response
        except httpx.HTTPError as error:
            self.outcome = error


def test_requests_in_flight_end_and_new_ones_are_refused() -> None:
    listener = Listener(app, "127.0.0.1", 0)
    listener.start()
    asking = Asking(f"{listener.url}/0.8")
    asking.start()
    asking.begun.wait(10)
    stopping = threading.Thread(target=listener.stop, args=(10,))
    stopping.start()
    time.sleep(0.4)
    with pytest.raises(httpx.ConnectError):
        httpx.get(listener.url, trust_env=False)
    stopping.join()
    asking.join()
    assert isinstance(asking.outcome, httpx.Response)


@pytest.mark.parametrize("how", ["grace", "abort"])
def test_requests_that_take_too_long_are_broken_off(how: str, caplog: pytest.LogCaptureFixture) -> None:
    listener = Listener(app, "127.0.0.1", 0)
    listener.start()
    asking = Asking(f"{listener.url}/60")
    asking.start()
    asking.begun.wait(10)
    begun = time.monotonic()
    if how == "abort":
        threading.Timer(0.3, listener.abort).start()
    assert listener.stop(0.5 if how == "grace" else 30) is False
    assert time.monotonic() - begun < 5
    asking.join()
    assert isinstance(asking.outcome, httpx.RemoteProtocolError)


def test_an_idle_connection_holds_nothing_up() -> None:
    listener = Listener(app, "127.0.0.1", 0)
    listener.start()
    with httpx.Client(base_url=listener.url, trust_env=False) as client:
        client.get("/0")
        begun = time.monotonic()
        assert listener.stop(20) is True
    assert time.monotonic() - begun < 3


def test_whoever_asked_is_told_when_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()
    listener = Listener(app, "127.0.0.1", 0, failed=told.set)
    listener.start()
    assert listener._server is not None
    loop = listener._server._loop
    assert loop is not None
    loop.call_soon_threadsafe(loop.stop)
    assert told.wait(10)
    assert "the front failed" in caplog.text
    listener.stop(1)


def test_a_stop_that_was_asked_for_is_no_failure() -> None:
    told = threading.Event()
    listener = Listener(app, "127.0.0.1", 0, failed=told.set)
    listener.start()
    assert listener.stop(1)
    assert not told.is_set()


def test_the_server_logs_nothing_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), listening() as listener:
        httpx.get(listener.url, trust_env=False)
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
