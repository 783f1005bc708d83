"""Ranges, conditions and presigned URLs of the storage."""

from __future__ import annotations

import hashlib
import time

import pytest

from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.http_server import Request, Response
from nim_core.testing.ranged import serve_content, strong_etag
from nim_core.testing.signed_storage import SignedStorage

CONTENT = inline("0123456789")
ETAG = strong_etag(CONTENT)


def ask(method="GET", **headers) -> Response:
    sent = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return serve_content(Request(origin="s", method=method, target="/f", headers=sent), CONTENT, etag=ETAG)


@pytest.mark.parametrize(
    ("wanted", "content_range", "body"),
    [
        ("bytes=0-9", "bytes 0-9/10", b"0123456789"),
        ("bytes=2-4", "bytes 2-4/10", b"234"),
        ("bytes=7-", "bytes 7-9/10", b"789"),
        ("bytes=7-1000", "bytes 7-9/10", b"789"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=-99", "bytes 0-9/10", b"0123456789"),
    ],
)
def test_range(wanted, content_range, body):
    answer = ask(Range=wanted)
    assert (answer.status, answer.headers["Content-Range"], answer.body.data()) == (206, content_range, body)
    assert answer.headers["ETag"] == ETAG


@pytest.mark.parametrize(
    "wanted", ["bytes=0--1", "bytes=5-2", "bytes=0-1,3-4", "bytes=-", "lines=1-2", "bytes=a-b", ""]
)
def test_what_is_no_single_range_is_ignored(wanted):
    answer = ask(Range=wanted)
    assert (answer.status, answer.body) == (200, CONTENT)


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_range_that_cannot_be_satisfied(wanted):
    answer = ask(Range=wanted)
    assert (answer.status, answer.headers["Content-Range"], answer.body.size) == (416, "bytes */10", 0)


def test_if_range():
    assert ask(Range="bytes=1-2", If_Range=ETAG).status == 206
    assert ask(Range="bytes=1-2", If_Range=ask().headers["Last-Modified"]).status == 206
    assert (ask(Range="bytes=1-2", If_Range='"other"').status, ask(Range="bytes=10-", If_Range='"x"').status) == (
        200,
        200,
    )


def test_if_match():
    assert [ask(If_Match=value).status for value in (ETAG, "*", f'"a", {ETAG}', '"other"')] == [200, 200, 200, 412]


def test_empty_content():
    request = Request(origin="s", method="GET", target="/e", headers=(("Range", "bytes=0--1"),))
    answer = serve_content(request, inline(b""), etag='"e"')
    assert (answer.status, answer.body.size) == (200, 0)


def test_entity_tags_are_like_those_of_s3():
    assert strong_etag(CONTENT) == f'"{hashlib.md5(b"0123456789").hexdigest()}"'
    large = PatternContent(length=1 << 40)
    assert strong_etag(large).endswith('-16384"')
    assert strong_etag(large) != strong_etag(PatternContent(length=1 << 40, seed=1))


@pytest.fixture
def storage():
    """A store with one object."""
    store = SignedStorage(lifetime=60)
    store.put("/bucket/a b+c.bin", CONTENT)
    return store


def get(storage, target, method="GET", **headers):
    sent = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return storage.answer(Request(origin="storage", method=method, target=target, headers=sent))


def test_signed_url_gives_the_object(storage):
    target = storage.sign("/bucket/a b+c.bin")
    assert target.startswith("/bucket/a%20b%2Bc.bin?Expires=")
    assert get(storage, target).body == CONTENT
    assert get(storage, target, method="HEAD").status == 200
    assert get(storage, target, Range="bytes=0-1").body.data() == b"01"


def code(answer):
    assert answer.headers["Content-Type"] == "application/xml"
    return (answer.status, answer.body.data().decode().partition("<Code>")[2].partition("</Code>")[0])


def test_refusals(storage):
    target = storage.sign("/bucket/a b+c.bin")
    tampered = [
        target.replace("b%2Bc", "other"),
        target.replace("Expires=", "Expires=9"),
        target[:-1] + ("0" if target[-1] != "0" else "1"),
        target.partition("?")[0],
        target.partition("&Signature")[0],
        target.partition("&Signature")[0] + "&Signature=%C3%BC",
    ]
    assert {code(get(storage, bad)) for bad in tampered} == {(403, "SignatureDoesNotMatch")}
    assert code(get(storage, storage.sign("/bucket/absent"))) == (404, "NoSuchKey")
    assert code(get(storage, target, method="PUT")) == (405, "MethodNotAllowed")


def test_urls_expire(storage):
    target = storage.sign("/bucket/a b+c.bin")
    storage.expire_urls()
    assert code(get(storage, target)) == (403, "AccessDenied")
    assert get(storage, storage.sign("/bucket/a b+c.bin")).status == 200
    short = SignedStorage(lifetime=-1)
    short.put("/f", CONTENT)
    assert code(get(short, short.sign("/f"))) == (403, "AccessDenied")
    assert float(target.partition("Expires=")[2].partition("&")[0]) <= time.time() + 60


@pytest.mark.parametrize("name", ["Authorization", "authorization", "X_NGC_Guest_Token", "Cookie"])
def test_a_credential_is_refused_and_kept_as_evidence(storage, name):
    answer = get(storage, storage.sign("/bucket/a b+c.bin"), **{name: "secret"})
    assert code(answer) == (403, "InvalidArgument")
    assert [leak.path for leak in storage.leaks] == ["/bucket/a b+c.bin"]


def test_flipped_byte_keeps_the_tag_and_replaced_object_does_not(storage):
    target = storage.sign("/bucket/a b+c.bin")
    storage.flip("/bucket/a b+c.bin", 4)
    flipped = get(storage, target)
    assert (flipped.headers["ETag"], flipped.body.data()) == (ETAG, b"0123\xcb56789")
    assert get(storage, target, Range="bytes=4-4").body.data() == b"\xcb"
    storage.put("/bucket/a b+c.bin", inline("new"))
    assert get(storage, target).headers["ETag"] != ETAG
