"""The engine against an origin over real sockets: the right bytes, or the right error and nothing published."""

from __future__ import annotations

import errno
import io
import resource
import signal
import threading
import time
from collections import Counter

import pytest

from nim_core.errors import (
    AuthenticationError,
    CacheError,
    DigestMismatchError,
    DiskFullError,
    EntitlementError,
    LicenseError,
    NimError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RegionBlockedError,
    RemoteChangedError,
    SizeMismatchError,
    SourceError,
    StalledError,
    TransientError,
    UnsupportedError,
)
from nim_core.testing.corpus import inline, part_of, with_flipped_byte
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response
from nim_core.testing.ranged import serve_content, strong_etag
from nim_core.transfer.exchange import Timeouts
from nim_core.types import Digest, HttpObject, LocalObject, StreamObject

SMALL = 100_000
MIDDLE = 3 << 20
LARGE = (70 << 20) + 17
SIZES = pytest.mark.parametrize("size", [0, 1, SMALL, MIDDLE, LARGE])
STREAMED = pytest.mark.parametrize("size", [SMALL, MIDDLE, LARGE])


@SIZES
def test_bytes_arrive_and_nothing_is_left_over(bench, site, pattern, size):
    site.files["/f"] = pattern(size)
    bench.run(bench.job("/f"))
    assert bench.contents["f"] == site.files["/f"].data()
    assert bench.published["f"].digests == (site.files["/f"].digest("blake3"),)
    assert bench.left_over() == []


def test_a_large_file_is_fetched_in_parts(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    bench.run(bench.job("/f"))
    assert sorted(site.ranges()) == [
        "bytes=0-33554431",
        "bytes=33554432-67108863",
        f"bytes=67108864-{LARGE - 1}",
    ]


def test_many_files_in_one_run(bench, site, pattern):
    for number in range(60):
        site.files[f"/{number}"] = pattern(number * 1000)
    bench.run(*(bench.job(path) for path in site.files))
    assert bench.contents == {path.strip("/"): content.data() for path, content in site.files.items()}


@pytest.mark.parametrize("algorithm", ["sha256", "sha1-git", "sha1", "md5", "crc32c", "crc32"])
@pytest.mark.parametrize("size", [SMALL, MIDDLE])
def test_every_digest_is_checked(bench, site, pattern, algorithm, size):
    site.files["/f"] = pattern(size)
    right = site.files["/f"].digest(algorithm)
    bench.run(bench.job("/f", digests=(right,)))
    assert right in bench.published["f"].digests
    wrong = Digest(algorithm, "0" * len(right.value))
    with pytest.raises(DigestMismatchError, match=f"got {right}, expected {wrong}"):
        bench.run(bench.job("/f", digests=(wrong,)))


@STREAMED
def test_unknown_size(bench, site, pattern, size):
    site.files["/f"] = pattern(size)
    bench.run(bench.job("/f", size=None))
    assert bench.contents["f"] == site.files["/f"].data()


@pytest.mark.parametrize("size", [0, 1, SMALL])
def test_a_small_file_of_unknown_size_takes_one_request(bench, site, pattern, size):
    site.files["/f"] = pattern(size)
    bench.run(bench.job("/f", size=None))
    assert bench.contents["f"] == site.files["/f"].data()
    assert site.ranges() == [None]


def test_a_large_file_of_unknown_size_is_fetched_in_parts_once_its_size_is_known(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    bench.run(bench.job("/f", size=None))
    assert bench.contents["f"] == site.files["/f"].data()
    assert sorted(text for text in site.ranges() if text) == [
        "bytes=0-33554431",
        "bytes=33554432-67108863",
        f"bytes=67108864-{LARGE - 1}",
    ]
    assert site.ranges().count(None) == 1
    assert set(bench.kinds()) <= {"started", "progress", "published"}


@STREAMED
def test_a_server_that_never_tells_a_size(bench, site, pattern, size):
    site.files["/f"] = pattern(size)
    site.script = lambda _request, _count: Response(body=site.files["/f"], framing="chunked")
    bench.run(bench.job("/f", size=None))
    assert bench.contents["f"] == site.files["/f"].data()


def test_no_digest_known(bench, site, pattern):
    site.files["/f"] = pattern(SMALL)
    bench.run(bench.job("/f", digests=()))
    assert bench.published["f"].digests == (site.files["/f"].digest("blake3"),)


@STREAMED
def test_a_flipped_byte_is_fetched_again(bench, site, pattern, size):
    site.files["/f"] = pattern(size)
    bad = with_flipped_byte(site.files["/f"], size // 2)

    def script(request, count):
        return serve_content(request, bad, etag='"x"') if count <= (3 if size == LARGE else 1) else None

    site.script = script
    bench.run(bench.job("/f"))
    assert bench.contents["f"] == site.files["/f"].data()
    assert "restart" in bench.kinds()


@STREAMED
def test_wrong_content_is_never_published(bench, site, pattern, size):
    good = pattern(size)
    site.files["/f"] = with_flipped_byte(good, size // 3)
    with pytest.raises(DigestMismatchError) as caught:
        bench.run(bench.job("/f", digests=(good.digest("blake3"),)))
    assert "127.0.0.1" in str(caught.value)
    assert str(good.digest("blake3")) in str(caught.value)
    assert str(site.files["/f"].digest("blake3")) in str(caught.value)
    assert bench.published == {}
    assert bench.left_over() == []


@STREAMED
def test_a_cut_resumes_where_it_was(bench, site, pattern, size):
    site.files["/f"] = pattern(size)

    def script(request, count):
        if count > 1:
            return None
        answer = serve_content(request, site.files["/f"], etag=strong_etag(site.files["/f"]))
        return Response(status=answer.status, headers=answer.headers, body=answer.body, cut_at=answer.body.size // 2)

    site.script = script
    engine = bench.run(bench.job("/f"))
    assert bench.contents["f"] == site.files["/f"].data()
    assert "retry" in bench.kinds()
    if size > SMALL:
        assert engine.bytes_received == size


def test_cuts_without_end_are_an_error(bench, site, pattern):
    site.files["/f"] = pattern(MIDDLE)
    site.script = lambda _request, _count: Response(body=site.files["/f"], cut_at=0)
    with pytest.raises(TransientError):
        bench.run(bench.job("/f"))
    assert len(site.requests) == 4


def test_the_file_that_ended_the_run_is_known(bench, site, pattern):
    site.files |= {"/f": pattern(SMALL), "/wrong": pattern(SMALL)}
    assert bench.run(bench.job("/f")).failed is None
    wrong = bench.job("/wrong", digests=(Digest("sha256", "0" * 64),))
    with pytest.raises(DigestMismatchError):
        bench.run(bench.job("/f"), wrong)
    assert bench.engines[-1].failed is wrong


@pytest.mark.parametrize("size", [MIDDLE, LARGE])
def test_a_server_without_ranges(bench, site, pattern, size):
    site.files["/f"] = pattern(size)
    site.script = lambda _request, _count: Response(body=site.files["/f"])
    bench.run(bench.job("/f"))
    assert bench.contents["f"] == site.files["/f"].data()


def test_a_server_without_ranges_that_cuts_starts_again(bench, site, pattern):
    site.files["/f"] = pattern(MIDDLE)
    site.script = lambda _request, count: Response(body=site.files["/f"], cut_at=1_000_000 if count == 1 else None)
    bench.run(bench.job("/f", locate=lambda: HttpObject(url=bench.url("/f"), ranges=False)))
    assert bench.contents["f"] == site.files["/f"].data()


def test_a_source_that_knows_it_has_no_ranges_is_asked_for_none(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    bench.run(bench.job("/f", locate=lambda: HttpObject(url=bench.url("/f"), ranges=False)))
    assert site.ranges() == [None]


def test_another_version_in_the_middle_starts_the_file_again(bench, site, pattern):
    old, new = pattern(LARGE), pattern(LARGE + 0)
    new = with_flipped_byte(new, 5)
    site.script = lambda request, count: serve_content(
        request, old if count == 1 else new, etag='"old"' if count == 1 else '"new"'
    )
    bench.run(bench.job("/f", size=LARGE, digests=(new.digest("blake3"),)), connections=1)
    assert bench.contents["f"] == new.data()


def test_servers_that_never_agree_on_a_version(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    site.script = lambda request, count: serve_content(request, site.files["/f"], etag=f'"{count}"')
    with pytest.raises(RemoteChangedError):
        bench.run(bench.job("/f", digests=()), connections=1)
    bench.run(bench.job("/f"), connections=1)
    assert bench.contents["f"] == site.files["/f"].data()


@STREAMED
def test_another_size_than_listed(bench, site, pattern, size):
    site.files["/f"] = pattern(size + 1)
    with pytest.raises(SizeMismatchError):
        bench.run(bench.job("/f", size=size))
    assert bench.published == {}


def test_wrong_content_range(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)

    def script(request, _count):
        part = part_of(site.files["/f"], 0, 32 << 20)
        return Response(status=206, headers={"Content-Range": f"bytes 1-33554432/{LARGE}"}, body=part)

    site.script = script
    with pytest.raises(TransientError, match="another range"):
        bench.run(bench.job("/f"))


def test_encoded_content(bench, site, pattern):
    site.script = lambda _request, _count: Response(headers={"Content-Encoding": "gzip"}, body=inline(b"x" * SMALL))
    with pytest.raises(UnsupportedError):
        bench.run(bench.job("/f", size=SMALL))


@pytest.mark.parametrize(
    ("status", "kind", "requests", "locates"),
    [
        (400, SourceError, 2, 2),
        (401, AuthenticationError, 2, 2),
        (402, EntitlementError, 1, 1),
        (403, PermissionDeniedError, 2, 2),
        (404, NotFoundError, 2, 2),
        (410, NotFoundError, 2, 2),
        (412, LicenseError, 1, 1),
        (418, SourceError, 1, 1),
        (429, RateLimitedError, 4, 1),
        (451, RegionBlockedError, 1, 1),
        (500, TransientError, 4, 1),
        (503, TransientError, 4, 1),
    ],
)
def test_statuses(bench, site, status, kind, requests, locates):
    site.script = lambda _request, _count: Response(status=status, body=inline(b"<html>no</html>"))
    with pytest.raises(kind) as caught:
        bench.run(bench.job("/f", size=SMALL))
    assert type(caught.value) is kind
    assert f"HTTP {status} from 127.0.0.1" in str(caught.value)
    assert caught.value.uri == "test://repo?file=f"
    assert (len(site.requests), bench.locates) == (requests, locates)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_expired_url_is_asked_for_anew(bench, site, pattern, status):
    site.files["/f"] = pattern(LARGE)
    site.script = lambda _request, _count: Response(status=status) if bench.locates < 2 else None
    bench.run(bench.job("/f"), connections=2)
    assert bench.contents["f"] == site.files["/f"].data()
    assert bench.locates >= 2


@pytest.mark.parametrize("value", ["1", "date"])
def test_retry_after_is_obeyed(bench, site, pattern, value):
    site.files["/f"] = pattern(SMALL)
    when = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2)) if value == "date" else value
    site.script = lambda _request, count: Response(status=429, headers={"Retry-After": when}) if count == 1 else None
    started = time.monotonic()
    bench.run(bench.job("/f"))
    assert 0.9 < time.monotonic() - started < 5


def test_waiting_for_ever_is_refused(bench, site):
    site.script = lambda _request, _count: Response(status=503, headers={"Retry-After": "86400"})
    with pytest.raises(TransientError):
        bench.run(bench.job("/f", size=SMALL))
    assert len(site.requests) == 1


def test_a_stall_is_an_error_that_names_the_host(bench, site, pattern):
    hold = threading.Event()

    def script(_request, _count):
        hold.wait(10)
        return Response()

    site.script = script
    with pytest.raises(StalledError, match=r"no answer from 127\.0\.0\.1 for [12] s"):
        bench.run(bench.job("/f", size=SMALL), retries=0, timeouts=Timeouts(answer=1))
    hold.set()


def test_a_refused_connection(bench, site):
    url = bench.url("/f").replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(TransientError, match=r"connection to 127\.0\.0\.2 failed"):
        bench.run(bench.job("/f", size=SMALL, locate=lambda: HttpObject(url=url)))


def test_a_redirect_to_another_origin_loses_the_credential(bench, site, pattern):
    content = pattern(LARGE)
    seen = []

    def storage(request):
        seen.append(request)
        return "file", serve_content(request, content, etag='"e"')

    with HttpOrigin("storage", storage, log=RequestLog()) as other:
        site.script = lambda _request, _count: Response(status=302, headers={"Location": other.url + "/x%252Fy?sig=1"})
        bench.run(bench.job("/f", size=LARGE, digests=(content.digest("blake3"),)), connections=2)
    assert bench.contents["f"] == content.data()
    assert {request.header("Authorization") for request in site.requests} == {"Bearer secret"}
    assert {request.header("Authorization") for request in seen} == {None}
    assert {request.target for request in seen} == {"/x%252Fy?sig=1"}
    assert len(site.requests) <= 2


def test_a_redirect_within_the_origin_keeps_it(bench, site, pattern):
    site.files["/there"] = pattern(SMALL)
    site.script = lambda request, _count: (
        Response(status=307, headers={"Location": "/there"}) if request.path == "/f" else None
    )
    bench.run(bench.job("/f", size=SMALL, digests=()))
    assert [request.header("Authorization") for request in site.requests] == ["Bearer secret"] * 2


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_that_are_refused(bench, site, target):
    site.script = lambda _request, _count: Response(status=302, headers={"Location": target})
    with pytest.raises(SourceError):
        bench.run(bench.job("/f", size=SMALL))
    assert len(site.requests) == 1


def test_a_circle_of_redirects(bench, site):
    site.script = lambda _request, _count: Response(status=302, headers={"Location": "/f"})
    with pytest.raises(SourceError, match="too many redirects"):
        bench.run(bench.job("/f", size=SMALL))


def test_link_local_urls_are_refused(bench):
    locate = lambda: HttpObject(url="http://169.254.169.254/latest/meta-data/")  # noqa: E731
    with pytest.raises(SourceError, match="link-local or metadata"):
        bench.run(bench.job("/f", size=SMALL, locate=locate))


@STREAMED
def test_streams(bench, pattern, size):
    content = pattern(size)
    job = bench.job(
        "/f", size=size, digests=(content.digest("sha256"),), locate=lambda: StreamObject(open=lambda: _stream(content))
    )
    bench.run(job)
    assert bench.contents["f"] == content.data()


def _stream(content):
    return io.BytesIO(content.data())


def test_a_stream_that_breaks_is_opened_again(bench, pattern):
    content = pattern(MIDDLE)
    opened = []

    class Broken(io.BytesIO):
        def read(self, size=-1):
            if len(opened) == 1 and self.tell():
                raise TransientError("lost")
            return super().read(size)

    def locate():
        def open_stream():
            opened.append(1)
            return Broken(content.data())

        return StreamObject(open=open_stream)

    bench.run(bench.job("/f", size=MIDDLE, digests=(content.digest("blake3"),), locate=locate))
    assert bench.contents["f"] == content.data()
    assert len(opened) == 2


def test_local_files_are_linked_where_they_are(bench, tmp_path, pattern):
    content = pattern(MIDDLE)
    path = tmp_path / "model.bin"
    path.write_bytes(content.data())
    bench.run(bench.job("/f", size=MIDDLE, digests=(content.digest("sha256"),), locate=lambda: LocalObject(path=path)))
    assert bench.published["f"].path == path
    with pytest.raises(DigestMismatchError):
        bench.run(
            bench.job("/f", size=MIDDLE, digests=(Digest("md5", "0" * 32),), locate=lambda: LocalObject(path=path))
        )
    assert path.exists()


def test_what_a_source_raises_ends_the_run(bench, pattern, site):
    def locate():
        raise PermissionDeniedError("gated", hint="ask")

    with pytest.raises(PermissionDeniedError, match="gated"):
        bench.run(bench.job("/f", size=SMALL, locate=locate))


def test_what_publishing_raises_ends_the_run(bench, site, pattern):
    site.files["/f"] = pattern(SMALL)

    bench.refuse = OSError(errno.ENOSPC, "No space left on device", "blob")
    with pytest.raises(DiskFullError, match="no space left on device: blob"):
        bench.run(bench.job("/f"))


def test_a_full_disk_ends_the_run_at_once(bench, site, pattern):
    site.files["/f"] = pattern(MIDDLE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIDDLE // 2, hard))
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(CacheError, match="file too large"):
            bench.run(bench.job("/f", size=None))
    finally:
        signal.signal(signal.SIGXFSZ, previous)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(site.requests) == 1


def test_resume_in_another_process_fetches_only_what_is_missing(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    site.script = lambda request, _count: (
        Response(status=402) if (request.header("Range") or "").startswith("bytes=67108864") else None
    )
    with pytest.raises(EntitlementError):
        bench.run(bench.job("/f"), connections=1)
    site.script = None
    site.requests.clear()
    bench.run(bench.job("/f"))
    assert site.ranges() == [f"bytes=67108864-{LARGE - 1}"]
    assert bench.contents["f"] == site.files["/f"].data()


def _stop_at(site, size):
    """Let the last part of a file be cut in the middle, then refused."""

    def script(request, _count):
        wanted = request.header("Range") or ""
        if wanted == f"bytes=67108864-{size - 1}":
            answer = serve_content(request, site.files["/f"], etag=strong_etag(site.files["/f"]))
            return Response(status=206, headers=answer.headers, body=answer.body, cut_at=4_000_000)
        return Response(status=402) if wanted > "bytes=67108864" else None

    return script


def test_resume_goes_on_within_a_part(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    site.script = _stop_at(site, LARGE)
    with pytest.raises(EntitlementError):
        bench.run(bench.job("/f"), connections=1)
    site.script = None
    site.requests.clear()
    bench.run(bench.job("/f"))
    (wanted,) = site.ranges()
    assert int(wanted.removeprefix("bytes=").partition("-")[0]) > 67108864
    assert bench.contents["f"] == site.files["/f"].data()


def test_damage_within_an_unfinished_part_is_found(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    site.script = _stop_at(site, LARGE)
    with pytest.raises(EntitlementError):
        bench.run(bench.job("/f"), connections=1)
    (folder,) = bench.partials.iterdir()
    with (folder / "data").open("r+b") as data:
        data.seek(67108864 + 10)
        data.write(b"damage")
    site.script = None
    bench.run(bench.job("/f"))
    assert bench.contents["f"] == site.files["/f"].data()


def test_a_damaged_part_is_fetched_again_alone(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    site.script = lambda request, _count: (
        Response(status=402) if (request.header("Range") or "").startswith("bytes=67108864") else None
    )
    with pytest.raises(EntitlementError):
        bench.run(bench.job("/f"), connections=1)
    (folder,) = bench.partials.iterdir()
    with (folder / "data").open("r+b") as data:
        data.seek(1000)
        data.write(b"damage")
    site.script = None
    site.requests.clear()
    bench.run(bench.job("/f"))
    assert sorted(site.ranges()) == ["bytes=0-33554431", f"bytes=67108864-{LARGE - 1}"]
    assert bench.contents["f"] == site.files["/f"].data()


def test_a_partial_of_another_version_is_not_used(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    site.script = lambda request, _count: (
        Response(status=402) if (request.header("Range") or "").startswith("bytes=67108864") else None
    )
    with pytest.raises(EntitlementError):
        bench.run(bench.job("/f"), connections=1)
    other = with_flipped_byte(site.files["/f"], 3)
    site.files["/f"] = other
    site.script = None
    site.requests.clear()
    bench.run(bench.job("/f"))
    assert len(site.requests) == 3
    assert bench.contents["f"] == other.data()


def test_interrupt_ends_within_a_second_and_keeps_the_partial(bench, site, pattern):
    site.files["/f"] = pattern(MIDDLE)
    hold = threading.Event()

    def script(_request, _count):
        hold.wait(20)
        return Response(body=site.files["/f"])

    site.script = script
    bench.events = _Interrupting()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        bench.run(bench.job("/f"))
    assert time.monotonic() - started < 1.5
    hold.set()
    assert len(bench.left_over()) == 1


class _Interrupting(list):
    def append(self, event):
        super().append(event)
        if event.kind == "started":
            raise KeyboardInterrupt


def test_progress_adds_up(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    bench.run(bench.job("/f"))
    assert sum(event.bytes or 0 for event in bench.events if event.kind in {"started", "progress", "restart"}) == LARGE


def test_secrets_are_in_no_event_and_no_error(bench, site):
    site.script = lambda _request, _count: Response(status=403, body=inline(b"Bearer secret"))
    with pytest.raises(NimError) as caught:
        bench.run(bench.job("/f?sig=abc", size=SMALL, locate=lambda: bench.locate("/f?sig=abc")))
    assert "secret" not in f"{caught.value!r} {caught.value} {bench.events!r}".replace("Secret", "")


def test_a_run_in_which_nearly_everything_fails_ends(bench, site, pattern, monkeypatch):
    asked = Counter()

    def fails_at_first(request, _count):
        asked[request.path] += 1
        return Response(status=503) if asked[request.path] == 1 else None

    site.files = {f"/{number}": pattern(1000) for number in range(40)}
    site.script = fails_at_first
    jobs = [bench.job(path) for path in site.files]
    monkeypatch.setattr("nim_core.transfer.engine._RUN_RETRIES", 1)
    with pytest.raises(TransientError):
        bench.run(*jobs, retries=3, connections=8)
    asked.clear()
    monkeypatch.undo()
    bench.run(*jobs, retries=3, connections=8)
    assert len(bench.published) == 40


def test_a_location_is_renewed_before_it_expires(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)

    def slow(_request, _count):
        time.sleep(0.3)

    def locate():
        bench.locates += 1
        return HttpObject(url=bench.url(f"/f?{bench.locates}"), expires_at=time.time() + 0.2)

    site.script = slow
    bench.run(bench.job("/f", locate=locate), connections=1, max_connections=1)
    assert bench.contents["f"] == site.files["/f"].data()
    parts = len(site.requests)
    assert parts > 1
    assert bench.locates == parts


def test_a_location_that_has_expired_by_another_clock_is_used(bench, site, pattern):
    site.files["/f"] = pattern(LARGE)
    bench.run(bench.job("/f", locate=lambda: HttpObject(url=bench.url("/f"), expires_at=time.time() - 3600)))
    assert bench.contents["f"] == site.files["/f"].data()
