"""SOCKS proxies of every kind, spoken with a small server whose faithfulness libcurl vouches for."""

import contextlib
import ipaddress
import select
import socket
import socketserver
import struct
import threading

import pycurl
import pytest

from nim_core.errors import ConfigError, SourceError, TransientError
from nim_core.settings import Settings
from nim_core.testing.http_server import HttpOrigin, RequestLog, json_response
from nim_core.transfer.control import control_client
from nim_core.transfer.network import network_config
from nim_core.transfer.retry import RetryPolicy

pytest_plugins = ["nim_core.testing"]

KINDS = ["socks4", "socks4a", "socks5", "socks5h"]
RESOLVED_BY_PROXY = {"socks4": False, "socks4a": True, "socks5": False, "socks5h": True}


class SocksServer(socketserver.ThreadingTCPServer):
    """A SOCKS 4, 4a and 5 server that notes what it was asked for."""

    daemon_threads = False

    def __init__(self, userinfo=None, code=None):
        super().__init__(("127.0.0.1", 0), SocksConnection)
        self.userinfo = userinfo
        self.code = code
        self.asked = []

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self.thread.join()

    def proxy(self, scheme, userinfo=""):
        return f"{scheme}://{userinfo}127.0.0.1:{self.server_address[1]}"


class SocksConnection(socketserver.StreamRequestHandler):
    def handle(self):
        version = self.rfile.read(1)
        upstream = self.socks4() if version == b"\x04" else self.socks5()
        if upstream:
            with upstream:
                relay(self.connection, upstream)

    def connect(self, host, port):
        self.server.asked.append((host, port))
        try:
            return None if self.server.code else socket.create_connection((host, port))
        except OSError:
            return None

    def until_zero(self):
        return b"".join(iter(lambda: self.rfile.read(1), b"\0"))

    def socks4(self):
        _, port, address = struct.unpack("!BH4s", self.rfile.read(7))
        user = self.until_zero().decode()
        host = self.until_zero().decode() if address[:3] == b"\0\0\0" else str(ipaddress.IPv4Address(address))
        if self.server.userinfo is not None and self.server.userinfo[0] != user:
            self.wfile.write(bytes([0, 0x5D]) + bytes(6))
            return None
        upstream = self.connect(host, port)
        self.wfile.write(bytes([0, 0x5A if upstream else self.server.code or 0x5B]) + bytes(6))
        return upstream

    def socks5(self):
        methods = self.rfile.read(self.rfile.read(1)[0])
        method = 0 if self.server.userinfo is None else 2
        self.wfile.write(bytes([5, method if method in methods else 0xFF]))
        if method not in methods or (method == 2 and not self.signed_in()):
            return None
        kind = self.rfile.read(4)[3]
        length = {1: 4, 4: 16}.get(kind) or self.rfile.read(1)[0]
        raw = self.rfile.read(length)
        host = raw.decode() if kind == 3 else str(ipaddress.ip_address(raw))
        port = struct.unpack("!H", self.rfile.read(2))[0]
        upstream = self.connect(host, port)
        code = 0 if upstream else self.server.code or 5
        # A name as the bound address: the one form whose length has to be read first.
        self.wfile.write(bytes([5, code, 0, 3, 4]) + b"here" + bytes(2))
        return upstream

    def signed_in(self):
        self.rfile.read(1)
        given = tuple(self.rfile.read(self.rfile.read(1)[0]).decode() for _ in range(2))
        self.wfile.write(bytes([1, given != self.server.userinfo]))
        return given == self.server.userinfo


def relay(left, right):
    other = {left: right, right: left}
    while True:
        for end in select.select([left, right], [], [])[0]:
            data = end.recv(65536)
            if not data:
                return
            other[end].sendall(data)


@pytest.fixture
def origin():
    with HttpOrigin("origin", lambda _: ("any", json_response("hello")), log=RequestLog()) as server:
        yield server.url.replace("127.0.0.1", "localhost")


@contextlib.contextmanager
def client(proxy, *, retries=0, **environ):
    settings = Settings({"all_proxy": proxy} | {name: str(value) for name, value in environ.items()})
    with control_client(network_config(settings), RetryPolicy(retries=retries, base_seconds=0.0)) as made:
        yield made


@pytest.mark.parametrize("scheme", KINDS)
def test_each_kind_resolves_names_where_it_should(scheme, origin):
    with SocksServer() as server, client(server.proxy(scheme)) as http:
        assert http.get(origin).json() == "hello"
        assert (("localhost", int(origin.rpartition(":")[2])) in server.asked) is RESOLVED_BY_PROXY[scheme]


@pytest.mark.parametrize("scheme", KINDS)
def test_libcurl_agrees_with_the_server_here(scheme, origin):
    with SocksServer() as server, contextlib.closing(pycurl.Curl()) as curl:
        curl.setopt(pycurl.URL, origin.replace("localhost", "127.0.0.1"))
        curl.setopt(pycurl.PROXY, server.proxy(scheme))
        curl.setopt(pycurl.NOPROXY, "")
        assert curl.perform_rb() == b'"hello"'
        assert [host for host, _ in server.asked] == ["127.0.0.1"]


@pytest.mark.parametrize("scheme", KINDS)
def test_tls_goes_through(scheme, certificates):
    with (
        HttpOrigin("o", lambda _: ("any", json_response(1)), log=RequestLog(), certificates=certificates) as tls,
        SocksServer() as server,
        client(server.proxy(scheme), SSL_CERT_FILE=certificates.ca) as http,
    ):
        assert http.get(tls.url).json() == 1
        assert server.asked == [("127.0.0.1", int(tls.url.rpartition(":")[2]))]


@pytest.mark.parametrize("scheme", KINDS)
def test_user_and_password_are_decoded_and_sent(scheme, origin):
    with SocksServer(("m@e", "s:e/c")) as server, client(server.proxy(scheme, "m%40e:s%3Ae%2Fc@")) as http:
        assert http.get(origin).json() == "hello"


@pytest.mark.parametrize("scheme", KINDS)
@pytest.mark.parametrize("userinfo", ["", "you:hunter2@"])
def test_wrong_credentials_name_the_variable_and_no_password(scheme, userinfo, origin):
    with (
        SocksServer(("me", "secret")) as server,
        client(server.proxy(scheme, userinfo), retries=3) as http,
        pytest.raises(ConfigError, match="user and password") as caught,
    ):
        http.get(origin)
    assert "all_proxy" in caught.value.hint
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("scheme", "code", "error", "attempts"),
    [
        ("socks4", 0x5B, TransientError, 2),
        ("socks5", 2, SourceError, 1),
        ("socks5", 5, TransientError, 2),
        ("socks5h", 99, TransientError, 2),
    ],
)
def test_a_proxy_that_cannot_connect_says_so(scheme, code, error, attempts, origin):
    with (
        SocksServer(code=code) as server,
        client(server.proxy(scheme), retries=1) as http,
        pytest.raises(error, match=r"the proxy .* could not connect to"),
    ):
        http.get(origin)
    assert len(server.asked) == attempts


def test_a_proxy_that_hangs_up_is_tried_again(origin):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            for _ in range(2):
                server.accept()[0].close()

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            client(f"socks5://127.0.0.1:{server.getsockname()[1]}", retries=1) as http,
            pytest.raises(TransientError),
        ):
            http.get(origin)
        thread.join()


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_a_name_resolved_here_is_judged_here(scheme):
    with SocksServer() as server, client(server.proxy(scheme)) as http:
        with pytest.raises(SourceError, match="refused to connect"):
            http.get("http://0.0.0.0:9/")
        assert server.asked == []
