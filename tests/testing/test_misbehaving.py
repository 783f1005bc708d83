"""The misbehaving origin, looked at with a plain socket: it does what it says, and nothing else."""

from __future__ import annotations

import gzip
import re
import socket
import threading
import time

import httpx
import pytest
from attrs import frozen

from nim_core.testing import bad_answers as bad
from nim_core.testing.corpus import PatternContent, inline, with_flipped_byte
from nim_core.testing.faults import Faults
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog, Response
from nim_core.testing.misbehaving import (
    MisbehavingFiles,
    after,
    always,
    every_fault,
    expiring,
    in_turn,
    never_accepting,
    random_faults,
    refusing,
)
from nim_core.testing.ranged import strong_etag
from nim_core.transfer.retry import parse_retry_after

pytest_plugins = ["nim_core.testing"]

CONTENT = PatternContent(length=200_000)
PATIENCE = 5.0


@frozen(kw_only=True)
class Answer:
    """All that came over one connection, how that ended, and how long it took."""

    head: bytes
    body: bytes
    ended: str
    seconds: float

    def header(self, name):
        found = re.search(rf"(?im)^{name}: (.*?)\r$", self.head.decode("latin-1") + "\r\n")
        return found and found[1]


def port_of(url):
    return int(url.rpartition(":")[2])


def connected(url, timeout=PATIENCE):
    return socket.create_connection(("127.0.0.1", port_of(url)), timeout=timeout)


def receive(connection):
    """Return all that comes, and how it ended: ``closed``, ``reset``, or ``open`` when nothing came any more."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        return received, "reset"
    except TimeoutError:
        return received, "open"
    return received, "closed"


def ask(origin, target="/f", *, last=None, headers="", method="GET"):
    """Ask over a connection of its own; ``last`` makes it a request for the bytes from 1000 up to that one."""
    ranged = f"Range: bytes=1000-{last}\r\n" if last else ""
    request = f"{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{ranged}{headers}\r\n"
    began = time.monotonic()
    with connected(origin.url) as connection:
        connection.sendall(request.encode())
        received, ended = receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    return Answer(head=head, body=body, ended=ended, seconds=time.monotonic() - began)


@pytest.fixture
def serving():
    """Return a function that runs an origin with the file ``/f`` for the rest of the test."""
    running = []

    def start(script, content=CONTENT, **options):
        origin = HttpOrigin("bad", MisbehavingFiles({"/f": content}, script), log=RequestLog(), **options)
        running.append(origin.__enter__())
        return origin

    yield start
    for origin in running:
        origin.__exit__(None, None, None)


@pytest.fixture
def answer(serving):
    """Return a function that asks an origin that always has one fault; arguments as :func:`ask`."""
    return lambda fault, **how: ask(serving(always(fault)), **how)


# ------------------------------------------------------------------------------------------------------- the connection
@pytest.mark.parametrize("at", [0, 1, 1000, 100_000, 200_000])
def test_cut_and_reset_come_at_the_byte_told(answer, at):
    cut = answer(bad.cut(at))
    assert (cut.body, cut.ended) == (CONTENT.read(0, at), "closed")
    reset = answer(bad.reset(at))
    assert (reset.body, reset.ended) == (CONTENT.read(0, at), "reset")
    assert cut.header("Content-Length") == reset.header("Content-Length") == "200000"


def test_an_answer_may_be_missing(answer):
    assert answer(bad.no_answer()).head == b""
    assert answer(bad.no_answer()).ended == "closed"
    assert (answer(bad.reset_at_once()).head, answer(bad.reset_at_once()).ended) == (b"", "reset")
    assert answer(bad.not_http()).head.startswith(b"220 smtp")


def test_silence_and_stalls_last_as_long_as_told(answer):
    late = answer(bad.late(0.3))
    assert (0.3 <= late.seconds < 2, late.body) == (True, CONTENT.data())
    stalled = answer(bad.stall(5000, 0.3))
    assert (0.3 <= stalled.seconds < 2, stalled.body) == (True, CONTENT.data())


@pytest.mark.parametrize("fault", [bad.stall(5000), bad.late(float("inf"))], ids=str)
def test_an_endless_stall_ends_with_the_origin(fault):
    before = threading.active_count()
    with HttpOrigin("bad", MisbehavingFiles({"/f": CONTENT}, always(fault)), log=RequestLog()) as origin:
        connection = connected(origin.url, timeout=0.3)
        connection.sendall(b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n")
        received, ended = receive(connection)
        began = time.monotonic()
    assert received.partition(b"\r\n\r\n")[2] == (CONTENT.read(0, 5000) if fault == bad.stall(5000) else b"")
    assert (ended, time.monotonic() - began < 2) == ("open", True)
    assert threading.active_count() == before
    connection.close()


def test_a_trickle_has_the_rate_told(serving):
    slow = ask(serving(always(bad.trickle(100_000))), last=50_999)
    assert slow.body == CONTENT.read(1000, 51_000)
    assert 0.4 < slow.seconds < 2


def test_a_port_that_refuses():
    with refusing() as url, pytest.raises(ConnectionRefusedError):
        connected(url)


def test_a_port_that_never_accepts():
    with never_accepting() as url, pytest.raises(TimeoutError):
        connected(url, timeout=0.5)


def test_a_handshake_that_takes_its_time(serving, certificates):
    origin = serving(
        always(bad.cut(0)), certificates=certificates, keep_waiting=lambda number: (0.0, 0.4, float("inf"))[number]
    )
    context = certificates.client_context()
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        with connected(origin.url) as plain:
            context.wrap_socket(plain, server_hostname="127.0.0.1").close()
        seconds.append(time.monotonic() - began)
    assert seconds[0] < 0.3 < seconds[1]
    with (
        connected(origin.url, timeout=0.5) as plain,
        pytest.raises(TimeoutError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_resets_within_tls(serving, certificates):
    origin = serving(always(bad.reset(1000)), certificates=certificates)
    context = certificates.client_context()
    with (
        connected(origin.url) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n")
        received, _ = receive(connection)
        with pytest.raises(OSError, match="not connected"):  # as after a reset only; the TLS module hides it
            connection.getpeername()
    assert received.endswith(CONTENT.read(0, 1000))


# ------------------------------------------------------------------------------------------------- framing and headers
def test_chunks_and_closing_are_understood(serving):
    for fault, header in [(bad.chunked(), "Transfer-Encoding"), (bad.close_delimited(), "Connection")]:
        origin = serving(always(fault))
        told = httpx.get(f"{origin.url}/f", trust_env=False)
        assert told.content == CONTENT.data()
        assert header in told.headers
        assert "Content-Length" not in told.headers


def test_an_empty_file_in_chunks(serving):
    origin = serving(always(bad.chunked()), content=inline(b""))
    assert ask(origin).body == b"0\r\n\r\n"


def test_broken_chunks_and_what_is_no_http_are_not_understood(serving):
    for fault in (bad.broken_chunks(), bad.not_http()):
        origin = serving(always(fault))
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{origin.url}/f", trust_env=False)


def test_chunks_that_are_cut_have_no_end(serving):
    rules = Faults()
    rules.add(bad.chunked())
    rules.add(bad.cut(4))
    handler = lambda request: ("f", rules.apply("f", request, Response(body=inline("0123456789"))))  # noqa: E731
    with HttpOrigin("both", handler, log=RequestLog()) as origin:
        assert ask(origin).body == b"4\r\n0123\r\n"


def test_headers_are_as_many_and_as_long_as_told(answer):
    assert len(answer(bad.huge_header(1 << 20)).header("X-Huge")) == 1 << 20
    assert answer(bad.many_headers(5000)).head.count(b"\r\nX-Number-") == 5000


# ------------------------------------------------------------------------------------------------------------- the body
@pytest.mark.parametrize(
    ("fault", "body", "length"),
    [
        (bad.short_body(7), CONTENT.read(0, 199_993), "199993"),
        (bad.long_body(7), CONTENT.data() + b"xxxxxxx", "200007"),
        (bad.overrun(7), CONTENT.data() + b"xxxxxxx", "200000"),
        (bad.wrong_bytes(5), with_flipped_byte(CONTENT, 5).data(), "200000"),
    ],
    ids=str,
)
def test_bodies_are_wrong_in_the_way_told(answer, fault, body, length):
    told = answer(fault)
    assert (told.body, told.header("Content-Length"), told.ended) == (body, length, "closed")
    assert told.header("ETag") == strong_etag(CONTENT)


def test_a_wrong_byte_is_at_its_place_in_the_file(serving):
    origin = serving(always(bad.wrong_bytes(1005)))
    assert ask(origin, last=1009).body == with_flipped_byte(CONTENT, 1005).read(1000, 1010)
    assert ask(origin, last=1004).body == CONTENT.read(1000, 1005)


def test_compression_is_real_and_said(answer):
    told = answer(bad.gzipped())
    assert (gzip.decompress(told.body), told.header("Content-Encoding")) == (CONTENT.data(), "gzip")


def test_another_version_is_one_version(serving):
    origin = serving(always(bad.other_version()))
    whole = ask(origin)
    assert (len(whole.body), whole.body != CONTENT.data()) == (CONTENT.size, True)
    part = ask(origin, last=150_000)
    assert part.body == whole.body[1000:150_001]
    assert part.header("ETag") == whole.header("ETag") == '"another"'


def test_another_entity_tag_comes_with_the_same_bytes(answer):
    told = answer(bad.other_etag())
    assert (told.body, told.header("ETag")) == (CONTENT.data(), '"another"')


# --------------------------------------------------------------------------------------------------------------- ranges
@pytest.mark.parametrize(
    ("fault", "status", "content_range", "body"),
    [
        (bad.whole_file(), b"200", None, CONTENT.data()),
        (bad.shifted_range(3), b"206", "bytes 1003-1999/200000", CONTENT.read(1003, 2000)),
        (bad.other_total(3), b"206", "bytes 1000-1999/200003", CONTENT.read(1000, 2000)),
        (bad.no_content_range(), b"206", None, CONTENT.read(1000, 2000)),
    ],
    ids=str,
)
def test_ranges_are_wrong_in_the_way_told(answer, fault, status, content_range, body):
    told = answer(fault, last=1999)
    assert told.head.split()[1] == status
    assert (told.header("Content-Range"), told.body) == (content_range, body)


def test_a_range_in_several_parts(answer):
    told = answer(bad.multipart_range(), last=1999)
    assert told.header("Content-Type") == "multipart/byteranges; boundary=edge"
    assert told.body.startswith(b"--edge\r\nContent-Range: bytes 1000-1999/200000\r\n\r\n" + CONTENT.read(1000, 2000))


@pytest.mark.parametrize("fault", [bad.whole_file(), bad.shifted_range(3), bad.multipart_range()], ids=str)
def test_faults_of_ranges_leave_whole_answers_alone(answer, fault):
    told = answer(fault)
    assert (told.head.split()[1], told.body) == (b"200", CONTENT.data())


# ------------------------------------------------------------------------------------------------------------- refusals
def test_statuses_and_redirects(serving):
    origin = serving(in_turn(bad.status(451, {"X-Why": "law"}), bad.redirect("?again", 307)))
    refused, moved, proper = ask(origin), ask(origin), ask(origin)
    assert (refused.head.split()[1], refused.header("X-Why"), b"451" in refused.body) == (b"451", "law", True)
    assert (moved.head.split()[1], moved.header("Location")) == (b"307", "?again")
    assert proper.body == CONTENT.data()


UNDERSTOOD = {
    "seconds": 100,
    "a date": 100,
    "a date as in RFC 850": 100,
    "a date as of asctime": 100,
    "a past date": 0,
    "RateLimit": 100,
    "RateLimit of two policies": 100,
}


@pytest.fixture
def in_tokyo(monkeypatch):
    """This process in a time zone far from Greenwich."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
@pytest.mark.parametrize("form", bad.WAIT_FORMS)
def test_the_time_to_come_back_is_told_in_every_form(answer, form):
    told = answer(bad.rate_limited(form, 100))
    assert told.head.split()[1] == b"429"
    lines = [line.split(": ", 1) for line in told.head.decode().split("\r\n")[1:]]
    wait = parse_retry_after(dict(lines), time.time())
    expected = UNDERSTOOD.get(form)
    assert wait == (expected if expected is None else pytest.approx(expected, abs=2))


# -------------------------------------------------------------------------------------------------- which request, when
def bodies(origin, count, target="/f"):
    return [len(ask(origin, target).body) for _ in range(count)]


def test_scripts_choose_requests(serving):
    assert bodies(serving(in_turn(bad.cut(1), None, bad.cut(2))), 4) == [1, 200_000, 2, 200_000]
    assert bodies(serving(always(bad.cut(1))), 3) == [1, 1, 1]
    assert bodies(serving(after(2, bad.cut(1))), 4) == [200_000, 200_000, 1, 1]


def test_urls_expire_one_by_one(serving):
    origin = serving(expiring(2, 401))
    statuses = [ask(origin, target).head.split()[1] for target in ("/f?1", "/f?1", "/f?1", "/f?2", "/f?1")]
    assert statuses == [b"200", b"200", b"401", b"200", b"401"]


def test_requests_are_counted_by_method_and_path(serving):
    origin = serving(in_turn(bad.status(500)))
    statuses = [
        ask(origin, target, method=method).head.split()[1] for target, method in [("/f", "HEAD"), ("/f", "GET")]
    ]
    assert statuses == [b"500", b"500"]
    assert ask(origin, "/none").head.split()[1] == b"404"
    assert [exchange.route for exchange in origin.log] == ["answers 500", "answers 500", "nothing"]


def test_faults_work_in_the_servers_of_the_kit(ngc_server):
    ngc_server.faults.add(bad.cut(10), route="storage", times=1)
    request = Request(origin="o", method="GET", target="/")
    assert ngc_server.faults.apply("storage", request, Response(body=CONTENT)).stop == 10


def test_random_faults_are_the_same_for_the_same_seed():
    drawn = random_faults(7, 50, 1000)
    assert random_faults(7, 50, 1000) == drawn
    assert random_faults(8, 50, 1000) != drawn
    assert len({fault.name for fault in drawn}) > 15
    assert random_faults(7, 3, 0) == random_faults(7, 3, 0)


def test_names_tell_faults_apart():
    names = [str(fault) for fault in every_fault(CONTENT.size)]
    assert len(names) == len(set(names)) > 50
    assert bad.cut(3) == bad.cut(3) != bad.cut(4)
    assert repr(bad.cut(3)) == "Misbehaviour(name='cuts after 3 bytes')"


PROPER = Response(status=206, headers={"Content-Range": "bytes 0-199998/200000", "ETag": '"e"'})


@pytest.mark.parametrize("fault", every_fault(CONTENT.size), ids=str)
def test_every_fault_changes_an_answer(fault):
    request = Request(origin="o", method="GET", target="/f", headers=(("Range", "bytes=0-199998"),))
    proper = MisbehavingFiles({"/f": CONTENT})(request)[1]
    assert MisbehavingFiles({"/f": CONTENT}, always(fault))(request) != ("file", proper)
    assert fault(proper) != proper
