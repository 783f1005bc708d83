"""Origins: keep-alive, large bodies, TLS, faults, and a clean end."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
import time

import httpx
import pytest

from nim_core.errors import TransientError
from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.faults import Faults, answer_with, cut, html_error, wrong_length
from nim_core.testing.harness import ControlClient
from nim_core.testing.http_server import Exchange, HttpOrigin, Request, RequestLog, Response, json_response

pytest_plugins = ["nim_core.testing"]


def echo(request):
    seen = {"method": request.method, "path": request.path, "query": request.query, "body": request.body.decode()}
    return "echo", json_response(seen, headers={"X-Seen": request.header("x-sent") or "nothing"})


@pytest.fixture
def origin():
    """An origin that says what it was asked."""
    with HttpOrigin("echo", echo, log=RequestLog()) as running:
        yield running


@pytest.fixture
def client():
    """A client that keeps connections."""
    with ControlClient() as opened:
        yield opened


def test_request_and_answer(origin, client):
    answer = client.post(origin.url + "/a%20b/%2B+c?x=1&y=%26", content=b"body", headers={"X-Sent": "this"})
    assert answer.json() == {"method": "POST", "path": "/a b/++c", "query": "x=1&y=%26", "body": "body"}
    assert answer.headers["X-Seen"] == "this"
    [exchange] = origin.log
    assert (exchange.route, exchange.status, exchange.sent) == ("echo", 200, len(answer.content))
    assert exchange.request.target == "/a%20b/%2B+c?x=1&y=%26"


def test_parameters_are_decoded_and_repeated():
    request = Request(origin="o", method="GET", target="/p?a=1&a=2+3&b=%2F&c")
    assert request.parameters("a") == ["1", "2 3"]
    assert (request.parameter("b"), request.parameter("c"), request.parameter("d")) == ("/", "", None)


def test_connection_is_kept(origin):
    with socket.create_connection(("127.0.0.1", int(origin.url.rpartition(":")[2]))) as connection:
        for _ in range(3):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_head_has_the_length_and_no_body(origin, client):
    answer = client.head(origin.url + "/")
    assert (answer.content, int(answer.headers["Content-Length"]) > 0) == (b"", True)
    assert client.get(origin.url + "/").json()["method"] == "GET"
    assert [exchange.sent > 0 for exchange in origin.log] == [False, True]


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PUT"])
def test_other_methods(origin, client, method):
    assert client.request(method, origin.url, content=b"x").json()["method"] == method


def test_large_body_arrives_whole(client):
    content = PatternContent(length=(30 << 20) + 3)
    with HttpOrigin("big", lambda _: ("big", Response(body=content)), log=RequestLog()) as origin:
        received = 0
        with client.stream("GET", origin.url) as answer:
            for piece, expected in zip(answer.iter_bytes(1 << 20), content.pieces(), strict=True):
                assert piece == expected
                received += len(piece)
    assert received == content.size


def test_hundreds_of_small_files_take_no_time(client):
    with HttpOrigin("small", lambda _: ("small", Response(body=inline("x"))), log=RequestLog()) as origin:
        begun = time.perf_counter()
        for number in range(300):
            client.get(f"{origin.url}/{number}")
        assert time.perf_counter() - begun < 5  # with delayed acknowledgements it takes 12
        assert len(origin.log) == 300


def test_exception_in_a_handler_is_a_500_with_the_traceback(client):
    def broken(request):
        raise KeyError(request.path)

    with HttpOrigin("broken", broken, log=RequestLog()) as origin:
        answer = client.get(origin.url + "/why")
    assert answer.status_code == 500
    assert "KeyError: '/why'" in answer.text


def test_tls_with_the_private_authority(certificates):
    context = certificates.client_context()
    with HttpOrigin("tls", echo, log=RequestLog(), certificates=certificates) as origin:
        with ControlClient(trust=context) as client:
            assert client.get(origin.url + "/1").json()["path"] == "/1"
            assert client.get(origin.url.replace("127.0.0.1", "localhost") + "/2").json()["path"] == "/2"
        with ControlClient() as stranger, pytest.raises(TransientError) as caught:
            stranger.get(origin.url)
        assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert (origin.url.startswith("https://127.0.0.1:"), len(origin.log)) == (True, 2)


def test_certificates_hold_under_strict_rules(certificates):
    context = certificates.client_context()
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        HttpOrigin("tls", echo, log=RequestLog(), certificates=certificates) as origin,
        ControlClient(trust=context) as client,
    ):
        assert client.get(origin.url).status_code == 200
    assert certificates.key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_end_is_quick_and_leaves_nothing(certificates, tls):
    before = threading.active_count()
    endless = Response(body=PatternContent(length=1 << 40))
    chosen = certificates if tls else None
    with HttpOrigin("end", lambda _: ("end", endless), log=RequestLog(), certificates=chosen) as origin:
        port = int(origin.url.rpartition(":")[2])
        silent = socket.create_connection(("127.0.0.1", port))
        client = ControlClient(trust=certificates.client_context())
        stream = client.stream("GET", origin.url)
        answer = stream.__enter__()
        next(answer.iter_raw())
        time.sleep(0.05)  # lets the silent connection be accepted and the sending thread block
        begun = time.perf_counter()
    seconds, threads = time.perf_counter() - begun, threading.active_count()
    silent.close()
    stream.__exit__(None, None, None)
    client.close()
    assert seconds < 2
    assert threads == before
    gc.collect()  # an unclosed socket would be a ResourceWarning, which is an error here


def faulty(*faults, **where):
    """Return a handler that answers ten bytes, with faults."""
    rules = Faults()
    for fault in faults:
        rules.add(fault, **where)
    return lambda request: ("ten", rules.apply("ten", request, Response(body=inline("0123456789"))))


def raw_answer(origin, path="/"):
    """Return all bytes until the server closes."""
    with socket.create_connection(("127.0.0.1", int(origin.url.rpartition(":")[2])), timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        received = b""
        while data := connection.recv(4096):
            received += data
    return received


@pytest.mark.parametrize(
    ("fault", "length", "body"),
    [
        (cut(4), b"10", b"0123"),
        (cut(0), b"10", b""),
        (wrong_length(5), b"15", b"0123456789"),
        (wrong_length(-3), b"7", b"0123456789"),
    ],
)
def test_cut_and_wrong_length_close_the_connection(fault, length, body):
    with HttpOrigin("faulty", faulty(fault), log=RequestLog()) as origin:
        head, _, received = raw_answer(origin).partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: " + length + b"\r\n" in head + b"\r\n"
    assert b"\r\nConnection: close" in head
    assert received == body
    assert [exchange.sent for exchange in origin.log] == [len(body)]


def test_faults_strike_where_and_as_often_as_told(client):
    rules = Faults()
    rules.add(html_error(503), times=2)
    rules.add(answer_with(Response(status=404)), path="/some/*.bin", method="GET")
    rules.add(answer_with(Response(status=410)), route="other")
    rules.add(cut(3), path="/cut")

    def handler(request):
        return "route", rules.apply("route", request, Response())

    with HttpOrigin("faulty", handler, log=RequestLog()) as origin:
        statuses = [client.get(origin.url + path).status_code for path in ("/", "/", "/", "/some/a%20b.bin", "/x.bin")]
        assert statuses == [503, 503, 200, 404, 200]
        assert client.head(origin.url + "/some/a.bin").status_code == 200
        rules.clear()
        assert client.get(origin.url + "/some/a.bin").status_code == 200


def test_faults_add_up():
    rules = Faults()
    rules.add(answer_with(Response(body=inline("abcdef"))))
    rules.add(cut(2))
    answer = rules.apply("any", Request(origin="o", method="GET", target="/"), Response())
    assert answer == Response(body=inline("abcdef"), cut_at=2)


def test_log_selects_by_everything():
    log = RequestLog()
    for origin, method, target, status in [("a", "GET", "/x?q", 200), ("b", "HEAD", "/y%20z", 404)]:
        request = Request(origin=origin, method=method, target=target)
        log.add(Exchange(request=request, route=origin, status=status, sent=0))
    first, second = log
    assert log.select() == [first, second]
    assert log.select(origin="a") == log.select(route="a") == log.select(path="/x") == [first]
    assert log.select(method="HEAD") == log.select(status=404) == log.select(path="*y z") == [second]
    assert (log.count(origin="a", status=404), len(log)) == (0, 2)
    log.clear()
    assert len(log) == 0
