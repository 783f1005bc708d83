"""Sinks at a store that answers as a test says: what it does not know, refuses, or says elsewhere."""

from __future__ import annotations

import re

import pytest
from attrs import evolve

from nim_core.errors import (
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RemoteChangedError,
    SourceError,
    TransientError,
    UnsupportedError,
)
from nim_core.testing.corpus import inline
from nim_core.testing.harness import object_uri as uri_of
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response
from nim_core.types import Body, Digest, NewObject, Part, Secret, StoredObject, StoredPart, Upload

CRC = Digest("crc32c", "9a71bb4c")
SHA256 = Digest("sha256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
NEW = NewObject(key="key", size=5, digests=(SHA256, CRC))
HELLO = Body(path=None, size=5, data=b"hello")
OLD = StoredObject(key="key", size=3, version='"old"')
UPLOAD = Upload(token=Secret("token"), part_bytes=5 << 20)
PARTS = (StoredPart(number=1, size=5, tag='"part"', digests=(CRC,)),)
DIGESTS = "x-amz-meta-nim-digests"
REGION = re.compile(r"(?:/|%2F)(?P<region>[a-z0-9-]+)(?:/|%2F)s3(?:/|%2F)aws4_request")


def failure(status, code, **headers):
    text = f"<Error><Code>{code}</Code><Message>hunter2 hates this</Message></Error>"
    return Response(status=status, body=inline(text), headers={"Content-Type": "application/xml", **headers})


def document(text):
    return Response(body=inline(text), headers={"Content-Type": "application/xml"})


def stored(data=b"hello", **headers):
    return Response(headers={"ETag": '"new"', **headers}, body=inline(data))


TAKEN = Response(headers={"ETag": '"new"'})
OURS = stored(**{DIGESTS: f"{SHA256},{CRC}"})
COMPLETED = document("<CompleteMultipartUploadResult><ETag>&quot;new-1&quot;</ETag></CompleteMultipartUploadResult>")
NO_UPLOADS = document("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
CREATED = document("<InitiateMultipartUploadResult><UploadId>fresh</UploadId></InitiateMultipartUploadResult>")


class Store:
    """What a test makes of a store: ``answer`` is called with each request."""

    def __init__(self):
        self.answer = lambda request: TAKEN
        self.requests = []

    def handle(self, request):
        self.requests.append(request)
        return "store", self.answer(request)

    def methods(self):
        return [request.method for request in self.requests]


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def open_here(open_sink, store):
    with HttpOrigin("store", store.handle, log=RequestLog()) as origin:
        keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_REGION": "us-east-1"}
        yield lambda **more: open_sink({"AWS_ENDPOINT_URL": origin.url, **keys, **more}, bucket="bucket")


@pytest.fixture
def sink(open_here):
    return open_here()


# ---------------------------------------------------------------------------------------------------- what is asked for
def test_a_new_object_may_replace_nothing(sink, store):
    sink.put(NEW, HELLO)
    [request] = store.requests
    assert (request.method, request.raw_path, request.body) == ("PUT", "/bucket/key", b"hello")
    wanted = {"if-none-match": "*", "if-match": None, "x-amz-checksum-crc32c": "mnG7TA==", DIGESTS: f"{SHA256},{CRC}"}
    assert {name: request.header(name) for name in wanted} == wanted


def test_a_known_object_is_named_by_its_version(sink, store):
    sink.put(evolve(NEW, replaces=OLD), HELLO)
    assert [store.requests[0].header(name) for name in ("if-match", "if-none-match")] == ['"old"', None]


def test_a_store_that_confirms_no_checksum_gets_another_one(sink, store):
    confirmed = evolve(TAKEN, headers={"ETag": '"new"', "x-amz-checksum-crc32c": "mnG7TA=="})
    for store.answer in (lambda _: confirmed, lambda _: TAKEN, lambda _: TAKEN, lambda _: confirmed, lambda _: TAKEN):
        sink.put(NEW, HELLO)
    md5 = "XUFAKrxLKna5cZ2REBfFkg=="
    assert [request.header("content-md5") for request in store.requests] == [None, None, md5, md5, None]


def test_an_object_without_a_version_is_replaced_unconditionally(sink, store):
    sink.put(evolve(NEW, replaces=evolve(OLD, version=None)), HELLO)
    assert [store.requests[0].header(name) for name in ("if-match", "if-none-match")] == [None, None]


def test_the_requester_pays(open_here, store):
    sink = open_here(AWS_REQUEST_PAYER="requester")
    sink.put(NEW, HELLO)
    sink.put_part(NEW, UPLOAD, Part(number=1, body=HELLO, crc32c=CRC))
    sink.head("key")
    assert [request.header("x-amz-request-payer") for request in store.requests] == ["requester"] * 3


def test_an_object_is_asked_about_once(sink, store):
    store.answer = lambda request: OURS
    assert sink.head("key") == StoredObject(key="key", size=5, digests=(SHA256, CRC), version='"new"')
    assert store.methods() == ["HEAD"]


@pytest.mark.parametrize(
    ("text", "digests"),
    [
        ("", ()),
        ("sha256:no", ()),
        ("sha512:00,sha256:00", ()),
        (f"new:00, {CRC}", (CRC,)),
        (f"{CRC}," * 30, (CRC,)),
    ],
)
def test_metadata_that_is_not_well_formed(sink, store, text, digests):
    store.answer = lambda request: stored(**{DIGESTS: text})
    assert sink.head("key").digests == digests


def test_the_store_s_own_checksum_wins_over_metadata(sink, store):
    store.answer = lambda request: stored(**{DIGESTS: f"{SHA256},{CRC}", "x-amz-checksum-crc32c": "AAAAAA=="})
    assert sink.head("key").digests == (SHA256, Digest("crc32c", "00000000"))


# ---------------------------------------------------------------------------------- what old stores, and some new, lack
LACKING = [
    ({"if-none-match"}, ["*", None]),
    ({"x-amz-checksum-crc32c"}, ["*", None, "*"]),
    ({"if-none-match", "x-amz-checksum-crc32c"}, ["*", None, "*", None]),
]


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument"), (400, "InvalidRequest")]
)
@pytest.mark.parametrize(("unknown", "conditions"), LACKING)
def test_what_a_store_does_not_know_is_left_out(sink, store, status, code, unknown, conditions):
    def answer(request):
        return failure(status, code) if any(request.header(name) for name in unknown) else TAKEN

    store.answer = answer
    sink.put(NEW, HELLO)
    assert [request.header("if-none-match") for request in store.requests] == conditions
    store.requests.clear()
    sink.put(NEW, HELLO)
    assert len(store.requests) == 1


def test_a_refusal_for_another_reason_is_not_taken_for_that(sink, store):
    store.answer = lambda request: failure(400, "InvalidArgument")
    with pytest.raises(SourceError, match="InvalidArgument"):
        sink.put(NEW, HELLO)
    store.answer = lambda request: TAKEN
    sink.put(NEW, HELLO)
    assert store.requests[-1].header("if-none-match") == "*"


# ------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "AccessDenied", PermissionDeniedError, "access denied"),
        (404, "NoSuchBucket", NotFoundError, "no such bucket: bucket"),
        (503, "SlowDown", RateLimitedError, "fewer requests"),
        (500, "InternalError", TransientError, "the store failed"),
        (400, "BadDigest", TransientError, "other bytes"),
        (400, "RequestTimeout", TransientError, "busy"),
        (409, "ConditionalRequestConflict", TransientError, "busy"),
        (400, "KeyTooLongError", UnsupportedError, "1024 bytes"),
        (400, "EntityTooLarge", UnsupportedError, "larger than"),
        (405, "MethodNotAllowed", UnsupportedError, "cannot do"),
    ],
)
def test_refusals(sink, store, status, code, kind, words):
    store.answer = lambda request: failure(status, code)
    with pytest.raises(kind, match=words) as caught:
        sink.put(NEW, HELLO)
    assert type(caught.value) is kind
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_how_long_to_wait(sink, store):
    store.answer = lambda request: failure(503, "SlowDown", **{"Retry-After": "7"})
    with pytest.raises(RateLimitedError) as caught:
        sink.put(NEW, HELLO)
    assert caught.value.retry_after == 7.0


def test_a_page_instead_of_an_answer_is_no_success(sink, store):
    store.answer = lambda request: Response(body=inline("<html>login</html>"))
    with pytest.raises(SourceError, match="cannot be understood"):
        sink.put(NEW, HELLO)


def test_a_refused_head_says_why(sink, store):
    store.answer = lambda request: Response(status=403) if request.method == "HEAD" else failure(403, "AccessDenied")
    with pytest.raises(PermissionDeniedError, match="AccessDenied"):
        sink.head("key")
    assert store.methods() == ["HEAD", "HEAD", "GET"]


# ------------------------------------------------------------------------------------------------------- other writers
@pytest.mark.parametrize("replaces", [None, OLD], ids=["new", "replaced"])
@pytest.mark.parametrize("found", [Response(status=404), stored(b"other"), stored()], ids=["none", "other", "unnamed"])
def test_somebody_else_has_written(sink, store, found, replaces):
    store.answer = lambda request: failure(412, "PreconditionFailed") if request.method == "PUT" else found
    with pytest.raises(RemoteChangedError):
        sink.put(evolve(NEW, replaces=replaces), HELLO)


def test_an_answer_that_was_lost_is_no_conflict(sink, store):
    store.answer = lambda request: failure(412, "PreconditionFailed") if request.method == "PUT" else OURS
    sink.put(NEW, HELLO)


def test_what_is_to_be_replaced_has_gone(sink, store):
    store.answer = lambda request: failure(404, "NoSuchKey")
    with pytest.raises(RemoteChangedError, match="has removed"):
        sink.put(evolve(NEW, replaces=OLD), HELLO)


# -------------------------------------------------------------------------------------------------------------- regions
def test_a_bucket_is_followed_to_its_region(sink, store):
    def answer(request):
        text = request.query or request.header("Authorization")
        if REGION.search(text)["region"] == "eu-west-3":
            return TAKEN
        return Response(status=400, headers={"x-amz-bucket-region": "eu-west-3"})

    store.answer = answer
    sink.put(NEW, HELLO)
    sink.put_part(NEW, UPLOAD, Part(number=1, body=HELLO, crc32c=CRC))
    assert store.methods() == ["PUT", "PUT", "PUT"]


def test_a_region_that_nobody_names(sink, store):
    store.answer = lambda request: failure(301, "PermanentRedirect")
    with pytest.raises(SourceError, match="bucket bucket is not in region us-east-1"):
        sink.put(NEW, HELLO)


# -------------------------------------------------------------------------------------------------------------- uploads
def listing(*uploads):
    entries = "".join(
        f"<Upload><Key>{key}</Key><UploadId>{token}</UploadId><Initiated>{begun}</Initiated></Upload>"
        for key, token, begun in uploads
    )
    return document(
        f"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{entries}</ListMultipartUploadsResult>"
    )


def parts(more=""):
    return document(f"<ListPartsResult><IsTruncated>false</IsTruncated>{more}</ListPartsResult>")


def test_the_newest_upload_of_the_key_is_used(sink, store):
    uploads = [("key", "old", "2026-01-01T00:00:00Z"), ("key", "new", "2026-01-02T00:00:00Z")]
    others = [("key2", "other", "2026-01-03T00:00:00Z")]
    store.answer = lambda request: parts() if request.parameter("uploadId") else listing(*uploads, *others)
    assert sink.begin(NEW, None).token == Secret("new")


def test_checksums_of_parts_are_preferred(sink, store):
    part = "<Part><PartNumber>1</PartNumber><Size>5</Size><ETag>{}</ETag>{}</Part>"
    md5 = "5d41402abc4b2a76b9719d911017c592"
    for text, digests in [
        (part.format(md5, ""), (Digest("md5", md5),)),
        (part.format(md5, "<ChecksumCRC32C>mnG7TA==</ChecksumCRC32C>"), (CRC,)),
        (part.format("opaque", ""), ()),
        (part.format("opaque", "<ChecksumCRC32C>?</ChecksumCRC32C>"), ()),
    ]:
        store.answer = lambda request, text=text: parts(text)
        assert sink.begin(NEW, Secret("known")).stored[0].digests == digests


@pytest.mark.parametrize(
    "answer",
    [
        parts("<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"),
        parts("<Part><PartNumber>2</PartNumber><Size>5</Size><ETag>x</ETag></Part>"),
        failure(404, "NoSuchUpload"),
        failure(403, "AccessDenied"),
    ],
    ids=["other checksums", "other parts", "gone", "not ours"],
)
@pytest.mark.parametrize(
    "unlisted",
    [NO_UPLOADS, failure(403, "AccessDenied"), failure(501, "NotImplemented"), failure(404, "NoSuchUpload")],
    ids=["none", "denied", "unknown", "rclone"],
)
def test_an_upload_that_is_of_no_use(sink, store, answer, unlisted):
    def reply(request):
        if request.method == "POST":
            return CREATED
        return answer if request.parameter("uploadId") else unlisted

    store.answer = reply
    assert sink.begin(NEW, Secret("known")) == Upload(token=Secret("fresh"), part_bytes=32 << 20)
    assert store.requests[-1].header("x-amz-checksum-algorithm") == "CRC32C"
    assert store.requests[-1].header(DIGESTS) == f"{SHA256},{CRC}"


def test_a_store_that_fails_to_list_uploads_is_asked_again_later(sink, store):
    store.answer = lambda request: failure(503, "SlowDown")
    with pytest.raises(RateLimitedError):
        sink.begin(NEW, None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("InternalError", TransientError), ("SlowDown", RateLimitedError), ("InvalidPart", TransientError)],
)
def test_an_error_within_a_success_is_an_error(sink, store, code, kind):
    error = document(f"<?xml version='1.0'?>\n<Error><Code>{code}</Code></Error>")
    store.answer = lambda request: error if request.method == "POST" else Response(status=404)
    with pytest.raises(kind):
        sink.finish(NEW, UPLOAD, PARTS)


def test_an_upload_that_another_mirror_has_finished(sink, store):
    store.answer = lambda request: failure(404, "NoSuchUpload") if request.method == "POST" else OURS
    sink.finish(NEW, UPLOAD, PARTS)


def test_an_upload_that_is_gone(sink, store):
    store.answer = lambda request: failure(404, "NoSuchUpload") if request.method == "POST" else stored(b"other")
    with pytest.raises(NotFoundError, match="has dropped what was sent"):
        sink.finish(NEW, UPLOAD, PARTS)


def test_completing_names_parts_and_condition(sink, store):
    store.answer = lambda request: {"POST": COMPLETED, "HEAD": OURS}.get(request.method, NO_UPLOADS)
    sink.finish(evolve(NEW, replaces=OLD), UPLOAD, PARTS)
    request = store.requests[0]
    assert request.header("if-match") == '"old"'
    assert b"<PartNumber>1</PartNumber>" in request.body
    assert b"<ChecksumCRC32C>mnG7TA==</ChecksumCRC32C>" in request.body
    assert store.methods() == ["POST", "HEAD", "GET"]


def test_digests_that_a_store_does_not_keep_are_tried_once(sink, store):
    copied = document("<CopyObjectResult><ETag>&quot;new&quot;</ETag></CopyObjectResult>")
    store.answer = lambda request: {"POST": COMPLETED, "HEAD": stored(), "PUT": copied}.get(request.method, NO_UPLOADS)
    sink.finish(NEW, UPLOAD, PARTS)
    assert store.methods() == ["POST", "HEAD", "PUT", "GET"]
    assert [store.requests[2].header(name) for name in ("if-match", DIGESTS)] == ['"new"', f"{SHA256},{CRC}"]


def test_what_is_left_is_left_where_it_may_not_be_listed(sink, store):
    replies = {"POST": COMPLETED, "HEAD": OURS}
    store.answer = lambda request: replies.get(request.method, failure(403, "AccessDenied"))
    sink.finish(NEW, UPLOAD, PARTS)


# -------------------------------------------------------------------------------------------------------------- copying
@pytest.mark.parametrize(
    "refusal", [failure(403, "AccessDenied"), failure(501, "NotImplemented"), failure(412, "PreconditionFailed")]
)
def test_a_store_that_does_not_copy(sink, store, refusal):
    def answer(request):
        return refusal if request.method == "PUT" else stored(**{DIGESTS: str(SHA256)})

    store.answer = answer
    assert not sink.copy(NEW, uri_of("s3://other/key"))
    assert [store.requests[1].header(name) for name in ("x-amz-copy-source", "x-amz-copy-source-if-match")] == [
        "other/key",
        '"new"',
    ]


def test_a_copy_that_fails_is_tried_again(sink, store):
    def answer(request):
        return failure(503, "SlowDown") if request.method == "PUT" else stored(**{DIGESTS: str(SHA256)})

    store.answer = answer
    with pytest.raises(RateLimitedError):
        sink.copy(NEW, uri_of("s3://other/key"))


def test_a_copy_that_breaks_off_leaves_no_parts(sink, store, monkeypatch):
    monkeypatch.setattr("nim_source_s3.sink._COPY_BYTES", 1)

    def answer(request):
        if request.method == "PUT":
            return failure(503, "SlowDown")
        return {"HEAD": stored(**{DIGESTS: str(SHA256)}), "POST": CREATED}.get(request.method, Response(status=204))

    store.answer = answer
    with pytest.raises(RateLimitedError):
        sink.copy(NEW, uri_of("s3://other/key"))
    assert store.methods() == ["HEAD", "POST", "PUT", "DELETE"]
