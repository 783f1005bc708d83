"""The loop that carries requests out, alone, against an origin over real sockets."""

from __future__ import annotations

import gc
import os
import queue
import socket
import threading
import time
from pathlib import Path

import pycurl
import pytest

from nim_core.errors import SourceError, TransientError
from nim_core.settings import Settings
from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response
from nim_core.testing.ranged import serve_content
from nim_core.transfer.curl import CurlLoop
from nim_core.transfer.exchange import Request, Timeouts
from nim_core.transfer.network import network_config
from nim_core.types import Secret

pytest_plugins = ["nim_core.testing"]

CONTENT = PatternContent(length=(1 << 20) + 3)


class Collector:
    """
    A sink that keeps what it takes.

    Args:
        statuses: Of answers it accepts.
        breaks: Raised by ``write``.
        breaks_in_accepts: Raised by ``accepts``.
    """

    def __init__(self, *, statuses=(200, 206), breaks=None, breaks_in_accepts=None):
        self.data = bytearray()
        self.asked = []
        self.threads = set()
        self._statuses = statuses
        self._breaks = breaks
        self._breaks_in_accepts = breaks_in_accepts

    def accepts(self, response):
        self.asked.append(response.status)
        if self._breaks_in_accepts is not None:
            raise self._breaks_in_accepts
        return response.status in self._statuses

    def write(self, data):
        self.threads.add(threading.current_thread().name)
        if self._breaks is not None:
            raise self._breaks
        self.data += data

    def finish(self):
        self.threads.add(threading.current_thread().name)


class Site:
    """An origin whose one answer a test chooses; keeps the requests and counts the connections."""

    def __init__(self):
        self.answer = lambda request: serve_content(request, CONTENT, etag='"e"')
        self.requests = []
        self.connections = set()

    def handle(self, request):
        self.requests.append(request)
        self.connections.add(threading.current_thread().name)
        return "site", self.answer(request)


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def origin(site):
    with HttpOrigin("site", site.handle, log=RequestLog()) as origin:
        yield origin


def make_loop(**options):
    timeouts = options.pop("timeouts", Timeouts(connect=5, answer=5, idle=5))
    return CurlLoop(network_config(Settings({}), ["http://127.0.0.1"]), timeouts, "test/1.0", **options)


@pytest.fixture
def loop():
    loop = make_loop()
    yield loop
    loop.stop(5)


def start(loop, url, sink, **fields):
    ends = queue.SimpleQueue()
    loop.submit(Request(url=Secret(url), **fields), sink, ends.put)
    return ends


def ask(loop, url, sink=None, **fields):
    """Carry one request out; return how it ended and its sink."""
    sink = sink or Collector()
    return start(loop, url, sink, **fields).get(timeout=10), sink


def open_files():
    return sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


class TestAnswers:
    def test_body(self, loop, origin):
        ended, sink = ask(loop, origin.url + "/f")
        assert bytes(sink.data) == CONTENT.data()
        assert (ended.code, ended.error, ended.accepted, ended.connected) == (0, None, True, True)
        assert (ended.response.status, ended.response.body) == (200, b"")
        assert ended.address == "127.0.0.1"
        assert sink.asked == [200]
        assert sink.threads == {"nim-curl"}

    @pytest.mark.parametrize("framing", ["length", "chunked", "close"])
    def test_framing(self, loop, origin, site, framing):
        site.answer = lambda _request: Response(body=CONTENT, framing=framing)
        ended, sink = ask(loop, origin.url + "/f")
        assert (ended.code, bytes(sink.data)) == (0, CONTENT.data())

    @pytest.mark.parametrize("status", [200, 204, 404])
    def test_no_body(self, loop, origin, site, status):
        site.answer = lambda _request: Response(status=status)
        ended, sink = ask(loop, origin.url + "/f")
        assert (ended.response.status, ended.accepted, ended.code) == (status, status == 200, 0)
        assert (sink.asked, bytes(sink.data)) == ([status], b"")

    def test_headers(self, loop, origin, site):
        site.answer = lambda _request: Response(
            headers={"X-One": "  a b  ", "ETag": '"x:y"', "X-Latin": "gr\xf6\xdfer", "X-Empty": ""}
        )
        ended, _ = ask(loop, origin.url + "/f")
        wanted = {"x-one": "a b", "etag": '"x:y"', "x-latin": "gr\xf6\xdfer", "x-empty": ""}
        assert wanted.items() <= ended.response.headers.items()

    def test_the_last_of_several_blocks_of_headers_counts(self, loop, origin, site):
        early = b"HTTP/1.1 103 Early Hints\r\nETag: early\r\nLink: x\r\n\r\n"
        site.answer = lambda _request: Response(raw=early + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
        ended, sink = ask(loop, origin.url + "/f")
        assert (ended.response.status, bytes(sink.data)) == (200, b"abc")
        assert ended.response.headers == {"content-length": "3"}

    def test_an_error_s_body_is_kept_for_the_diagnosis(self, loop, origin, site):
        site.answer = lambda _request: Response(status=403, body=inline(b"<html>no</html>"))
        ended, sink = ask(loop, origin.url + "/f")
        assert (ended.accepted, ended.code, ended.response.status) == (False, 0, 403)
        assert (ended.response.body, bytes(sink.data)) == (b"<html>no</html>", b"")

    def test_a_big_error_s_body_is_cut(self, loop, origin, site):
        site.answer = lambda _request: Response(status=500, body=PatternContent(length=50 << 20))
        started = time.monotonic()
        ended, sink = ask(loop, origin.url + "/f")
        assert (ended.accepted, ended.code, ended.response.status) == (False, pycurl.E_WRITE_ERROR, 500)
        assert len(ended.response.body) <= 64 * 1024
        assert bytes(sink.data) == b""
        assert time.monotonic() - started < 5

    def test_a_flood_of_headers_is_cut(self, loop, origin, site):
        flood = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(400))
        site.answer = lambda _request: Response(raw=b"HTTP/1.1 200 OK\r\n" + flood + b"Content-Length: 0\r\n\r\n")
        ended, _ = ask(loop, origin.url + "/f")
        assert ended.code == pycurl.E_WRITE_ERROR
        assert sum(map(len, ended.response.headers.values())) < 300_000

    def test_a_line_of_header_without_end_is_cut(self, loop, origin, site):
        site.answer = lambda _request: Response(raw=b"HTTP/1.1 200 OK\r\nX: " + b"y" * 500_000 + b"\r\n\r\n")
        ended, _ = ask(loop, origin.url + "/f")
        assert ended.code != 0

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_not_followed(self, loop, origin, site, status):
        site.answer = lambda _request: Response(status=status, headers={"Location": "/there"})
        ended, _ = ask(loop, origin.url + "/f")
        assert (ended.response.status, ended.response.headers["location"]) == (status, "/there")
        assert len(site.requests) == 1

    def test_an_encoded_body_is_not_decoded(self, loop, origin, site):
        site.answer = lambda _request: Response(headers={"Content-Encoding": "gzip"}, body=inline(b"\x1f\x8bxx"))
        _, sink = ask(loop, origin.url + "/f")
        assert bytes(sink.data) == b"\x1f\x8bxx"

    @pytest.mark.parametrize(
        "raw",
        [b"not http at all\r\n\r\n", b"\x16\x03\x01\x02\x00", b"", b"HTTP/1.1 2\xb20 OK\r\nContent-Length: 0\r\n\r\n"],
    )
    def test_what_is_not_http(self, loop, origin, site, raw):
        site.answer = lambda _request: Response(raw=raw)
        ended, sink = ask(loop, origin.url + "/f")
        assert (ended.accepted, ended.response.status, ended.error) == (False, 0, None)
        assert ended.code != 0
        assert bytes(sink.data) == b""


class TestRequests:
    @pytest.mark.parametrize(
        "target",
        [
            "/a%252Fb%7E%26;x=1?q=%2F..%2f",
            "/a/../b/./c//d",
            "/%E4%BD%A0?sig=a+b%20c%3d&x=%00",
            "/?",
            "/a?b?c=d&&e",
            "/..%2F..%2Fetc",
            "/~[]{}|^`!$'()*,",
            "/a%2fb%c3%a4",
        ],
    )
    def test_urls_are_sent_byte_for_byte(self, loop, origin, site, target):
        ask(loop, origin.url + target)
        assert [request.target for request in site.requests] == [target]

    def test_headers(self, loop, origin, site):
        pairs = (("Authorization", Secret("Bearer abc")), ("X-Two", Secret("1")), ("X-Two", Secret("2")))
        ask(loop, origin.url + "/f", headers=pairs)
        (request,) = site.requests
        assert [pair for pair in request.headers if pair[0] not in {"Host", "Accept"}] == [
            ("User-Agent", "test/1.0"),
            ("Authorization", "Bearer abc"),
            ("X-Two", "1"),
            ("X-Two", "2"),
            ("Accept-Encoding", "identity"),
        ]
        assert request.method == "GET"

    def test_headers_of_one_request_are_not_sent_with_the_next(self, loop, origin, site):
        ask(loop, origin.url + "/f", headers=(("Authorization", Secret("Bearer abc")),), first=5, last=9)
        ask(loop, origin.url + "/f")
        assert [request.header("Authorization") for request in site.requests] == ["Bearer abc", None]
        assert [request.header("Range") for request in site.requests] == ["bytes=5-9", None]

    @pytest.mark.parametrize(
        ("first", "last", "header", "data"),
        [
            (0, None, None, CONTENT.data()),
            (0, 0, "bytes=0-0", CONTENT.read(0, 1)),
            (0, 99, "bytes=0-99", CONTENT.read(0, 100)),
            (100, 199, "bytes=100-199", CONTENT.read(100, 200)),
            (1 << 20, None, "bytes=1048576-", CONTENT.read(1 << 20, (1 << 20) + 3)),
        ],
    )
    def test_ranges(self, loop, origin, site, first, last, header, data):
        ended, sink = ask(loop, origin.url + "/f", first=first, last=last)
        assert site.requests[0].header("Range") == header
        assert ended.response.status == (200 if header is None else 206)
        assert bytes(sink.data) == data

    def test_authorities_of_the_request_itself(self, loop, site, certificates):
        with HttpOrigin("tls", site.handle, log=RequestLog(), certificates=certificates) as origin:
            for authorities, trusted in ((certificates.ca, True), (None, False), (certificates.ca, True)):
                ended, sink = ask(loop, f"{origin.url}/x", authorities=authorities)
                assert (ended.accepted, bool(sink.data)) == (trusted, trusted)

    def test_netrc_and_environment_are_not_asked(self, loop, origin, site, monkeypatch, tmp_path):
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password p\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        ended, _ = ask(loop, origin.url + "/f")
        assert ended.code == 0
        assert site.requests[0].header("Authorization") is None

    def test_link_local_addresses_are_not_connected_to(self, loop):
        ended, _ = ask(loop, "http://169.254.169.254/latest")
        assert type(ended.error) is SourceError
        assert str(ended.error) == "refused to connect to a link-local or metadata address: 169.254.169.254"
        assert ended.address == ""

    def test_other_schemes_are_not_spoken(self, loop, tmp_path):
        (tmp_path / "f").write_text("secret")
        with pytest.raises(SourceError):
            network_config(Settings({})).proxy_for(f"file://{tmp_path}/f")


class TestSinks:
    @pytest.mark.parametrize("error", [TransientError("odd"), ValueError("bug"), KeyboardInterrupt()])
    def test_what_write_raises_ends_the_request(self, loop, origin, error):
        ended, _ = ask(loop, origin.url + "/f", Collector(breaks=error))
        assert ended.error is error
        assert (ended.accepted, ended.code) == (True, pycurl.E_WRITE_ERROR)
        assert ask(loop, origin.url + "/f")[0].code == 0

    @pytest.mark.parametrize("body", [CONTENT, inline(b"")])
    def test_what_accepts_raises_ends_the_request(self, loop, origin, site, body):
        site.answer = lambda _request: Response(body=body)
        error = ValueError("bug")
        ended, _ = ask(loop, origin.url + "/f", Collector(breaks_in_accepts=error))
        assert ended.error is error
        assert not ended.accepted

    def test_an_answer_is_judged_once(self, loop, origin, site):
        site.answer = lambda _request: Response(body=PatternContent(length=3 << 20))
        _, sink = ask(loop, origin.url + "/f", Collector(statuses=()))
        assert sink.asked == [200]


class TestFailures:
    def test_a_cut(self, loop, origin, site):
        site.answer = lambda _request: Response(body=CONTENT, cut_at=1000)
        ended, sink = ask(loop, origin.url + "/f")
        assert (ended.accepted, ended.code) == (True, pycurl.E_PARTIAL_FILE)
        assert bytes(sink.data) == CONTENT.read(0, 1000)

    def test_a_cut_before_the_first_byte(self, loop, origin, site):
        site.answer = lambda _request: Response(body=CONTENT, cut_at=0)
        ended, sink = ask(loop, origin.url + "/f")
        assert ended.code == pycurl.E_PARTIAL_FILE
        assert bytes(sink.data) == b""

    def test_a_refused_connection(self, loop):
        ended, _ = ask(loop, "http://127.0.0.1:9/f")
        assert (ended.code, ended.response.status) == (pycurl.E_COULDNT_CONNECT, 0)

    def test_a_name_that_does_not_resolve(self, loop):
        ended, _ = ask(loop, "http://name.invalid/f")
        assert (ended.code, ended.response.status) == (pycurl.E_COULDNT_RESOLVE_HOST, 0)

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9/f", "http://name.invalid/f", "http://169.254.169.254/f"])
    def test_whether_there_was_a_connection(self, loop, url):
        assert not ask(loop, url)[0].connected

    def test_a_handshake_that_stands_still(self):
        loop = make_loop(timeouts=Timeouts(connect=20, tls=0.6, answer=20, idle=20))
        with socket.create_server(("127.0.0.1", 0)) as silent:
            ends = start(loop, f"https://127.0.0.1:{silent.getsockname()[1]}/f", Collector())
            try:
                ended = ends.get(timeout=3)
            finally:
                loop.stop(5)
        assert (ended.code, ended.stalled) == (pycurl.E_OPERATION_TIMEDOUT, "no TLS handshake with")

    def test_an_answer_that_does_not_begin(self, origin, site):
        site.answer = lambda _request: Response(delay=30)
        loop = make_loop(timeouts=Timeouts(answer=0.6, idle=20))
        ended, _ = ask(loop, origin.url + "/f")
        loop.stop(5)
        assert (ended.code, ended.stalled) == (pycurl.E_OPERATION_TIMEDOUT, "no answer from")
        assert 0.6 < ended.seconds < 2

    def test_a_body_that_stands_still(self, origin, site):
        site.answer = lambda _request: Response(body=CONTENT, stall_at=1000)
        loop = make_loop(timeouts=Timeouts(answer=20, idle=0.6))
        ended, sink = ask(loop, origin.url + "/f")
        loop.stop(5)
        assert (ended.code, ended.stalled, ended.accepted) == (pycurl.E_OPERATION_TIMEDOUT, "no data from", True)
        assert bytes(sink.data) == CONTENT.read(0, 1000)

    def test_a_body_that_trickles(self, origin, site):
        site.answer = lambda _request: Response(body=CONTENT, rate=20)
        loop = make_loop(timeouts=Timeouts(answer=20, idle=1))
        ended, sink = ask(loop, origin.url + "/f")
        loop.stop(5)
        assert (ended.code, ended.stalled) == (pycurl.E_OPERATION_TIMEDOUT, "less than 100 bytes per second from")
        assert 0 < len(sink.data) < 100

    def test_a_body_that_trickles_because_we_asked_for_it(self, origin, site):
        content = inline(b"x" * 60)
        site.answer = lambda _request: Response(body=content, rate=20)
        loop = make_loop(timeouts=Timeouts(answer=20, idle=1), rate=1e9)
        ended, sink = ask(loop, origin.url + "/f")
        loop.stop(5)
        assert (ended.code, bytes(sink.data)) == (0, content.data())

    def test_a_request_that_is_ended_from_outside(self, loop, origin, site):
        site.answer = lambda _request: Response(body=CONTENT, stall_at=1000)
        ends, sink = queue.SimpleQueue(), Collector()
        end = loop.submit(Request(url=Secret(origin.url + "/f")), sink, ends.put)
        wait_for(lambda: sink.data)
        end("too slow:")
        ended = ends.get(timeout=5)
        assert (ended.code, ended.stalled) == (pycurl.E_OPERATION_TIMEDOUT, "too slow:")
        end("too slow:")
        site.answer = lambda _request: Response(body=inline(b"abc"))
        assert ask(loop, origin.url + "/f")[0].code == 0


class TestConnections:
    def test_hundreds_of_requests_one_after_the_other_share_one(self, loop, origin, site):
        site.answer = lambda request: Response(body=inline(request.target))
        for number in range(300):
            _, sink = ask(loop, f"{origin.url}/{number}")
            assert bytes(sink.data) == b"/%d" % number
        assert len(site.connections) == 1

    def test_requests_at_once_have_their_own(self, loop, origin, site):
        together = threading.Barrier(6, timeout=10)
        site.answer = lambda request: (together.wait(), Response(body=inline(request.target)))[1]
        sinks = [Collector() for _ in range(6)]
        ends = [start(loop, f"{origin.url}/{number}", sink) for number, sink in enumerate(sinks)]
        assert [end.get(timeout=10).code for end in ends] == [0] * 6
        assert [bytes(sink.data) for sink in sinks] == [b"/%d" % number for number in range(6)]
        assert len(site.connections) == 6

    def test_a_fresh_one_is_neither_an_old_one_nor_kept(self, loop, origin, site):
        for fresh in (False, True, False, False):
            ask(loop, origin.url + "/f", fresh=fresh)
        assert len(site.connections) == 2

    def test_a_kept_one_that_the_server_has_closed(self, loop, origin, site):
        site.answer = lambda _request: Response(body=inline(b"abc"), headers={"Connection": "close"}, framing="close")
        for _ in range(3):
            ended, sink = ask(loop, origin.url + "/f")
            assert (ended.code, bytes(sink.data)) == (0, b"abc")


class TestStop:
    @pytest.mark.parametrize("phase", [{"delay": 30}, {"body": CONTENT, "stall_at": 10}])
    def test_while_a_request_hangs(self, origin, site, phase):
        site.answer = lambda _request: Response(**phase)
        loop, sink = make_loop(), Collector()
        ends = start(loop, origin.url + "/f", sink)
        wait_for(lambda: site.requests)
        started = time.monotonic()
        loop.stop()
        assert time.monotonic() - started < 1.5
        assert loops() == []
        assert ends.empty()

    def test_while_many_requests_wait(self, origin, site):
        site.answer = lambda _request: Response(delay=30)
        loop = make_loop()
        for number in range(20):
            start(loop, f"{origin.url}/{number}", Collector())
        started = time.monotonic()
        loop.stop()
        assert time.monotonic() - started < 1.5
        assert loops() == []

    def test_while_bytes_come(self, origin, site):
        site.answer = lambda _request: Response(body=PatternContent(length=1 << 30))
        loop, sink = make_loop(), Collector()
        start(loop, origin.url + "/f", sink)
        wait_for(lambda: len(sink.data) > 1 << 20)
        loop.stop()
        assert loops() == []
        count = len(sink.data)
        time.sleep(0.05)
        assert len(sink.data) == count

    def test_idle(self):
        loop = make_loop()
        started = time.monotonic()
        loop.stop()
        assert time.monotonic() - started < 0.8
        assert loops() == []

    def test_nothing_is_left_open(self, origin, site):
        """Not by requests that went well, badly, were refused or never ended; and no ResourceWarning."""
        ask(warm := make_loop(), origin.url + "/f")
        warm.stop(5)
        gc.collect()
        before = sum(not name.startswith("socket:") for name in open_files())
        for _ in range(5):
            loop = make_loop()
            ask(loop, origin.url + "/f")
            ask(loop, "http://127.0.0.1:9/f")
            ask(loop, "http://169.254.169.254/f")
            ask(loop, origin.url + "/f", Collector(breaks=ValueError("bug")))
            site.answer = lambda _request: Response(delay=30)
            start(loop, origin.url + "/f", Collector())
            site.answer = lambda request: serve_content(request, CONTENT, etag='"e"')
            loop.stop(5)
        gc.collect()
        assert sum(not name.startswith("socket:") for name in open_files()) == before
        assert own_connections(origin) == []
        assert loops() == []


def loops():
    return [thread for thread in threading.enumerate() if thread.name == "nim-curl"]


def own_connections(origin):
    """Return this process's sockets that are connected to the origin: its own ends, seen as the remote port."""
    port = f"{int(origin.url.rpartition(':')[2]):04X}"
    inodes = {
        fields[9]
        for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())[2].endswith(f":{port}")
    }
    return [name for name in open_files() if name.removeprefix("socket:[").removesuffix("]") in inodes]


def wait_for(claim):
    for _ in range(1000):
        if claim():
            return
        time.sleep(0.005)
    pytest.fail("it never happened")


def inheritable():
    handles = (int(path.name) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    return {handle for handle in handles if os.get_inheritable(handle)}


def test_programs_that_are_started_inherit_nothing(origin):
    before = inheritable()
    loop = make_loop()
    ask(loop, origin.url + "/f")
    during = inheritable()
    loop.stop(5)
    assert during == before
