"""
Answers that the real server does not give: other regions, requester pays, archives, faults, other stores' habits.

A stand-in gives them in the form that S3's documentation has. Signatures are not what these tests are about.
"""

from __future__ import annotations

import base64
import re
from itertools import cycle

import pytest

from nim_core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    SourceError,
    TransientError,
    UnsupportedError,
)
from nim_core.testing.corpus import inline
from nim_core.testing.harness import object_uri as uri_of
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response
from nim_core.types import Digest

SIZE = 5
ETAG = '"5d41402abc4b2a76b9719d911017c592"'
OBJECT = {"Content-Length": str(SIZE), "ETag": ETAG}
SHA256 = bytes(range(32))
URI = uri_of("s3://bucket/key")
PREFIX = uri_of("s3://bucket/prefix/")
REGION = re.compile(r"/(?P<region>[a-z0-9-]+)/s3/aws4_request")

ENTRY = "<Contents><Key>prefix/file</Key><Size>5</Size><ETag>&quot;e&quot;</ETag>{more}</Contents>"


class Store:
    """What a test makes of a store: ``answer`` is called with each request."""

    def __init__(self):
        self.answer = lambda request: stored()
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
def source(open_source, store):
    with HttpOrigin("store", store.handle, log=RequestLog()) as origin:
        keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_REGION": "us-east-1"}
        yield lambda **more: open_source({"AWS_ENDPOINT_URL": origin.url, **keys, **more})


def stored(**headers):
    """The head of the answer about an object."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(headers={"ETag": ETAG, **headers}, body=inline("hello"))


def failure(status, code, **more):
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in more.items())
    text = f"<Error><Code>{code}</Code><Message>hunter2 hates this</Message>{inner}</Error>"
    return Response(status=status, body=inline(text), headers={"Content-Type": "application/xml"})


def listing(more=""):
    entries = ENTRY.format(more=more)
    text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
    return Response(body=inline(text), headers={"Content-Type": "application/xml"})


def region_of(request):
    return REGION.search(request.header("Authorization"))["region"]


# ------------------------------------------------------------------------------------------------------------- regions
def test_a_bucket_is_followed_to_the_region_it_names(source, store):
    def answer(request):
        if region_of(request) == "eu-west-3":
            return stored()
        return Response(status=400, headers={"x-amz-bucket-region": "eu-west-3"})

    store.answer = answer
    opened = source()
    [file] = opened.list_files(URI).files
    assert file.size == SIZE
    assert "%2Feu-west-3%2Fs3%2F" in opened.locate(URI, file).url.reveal()
    assert [region_of(request) for request in store.requests] == ["us-east-1", "eu-west-3"]


def test_a_region_that_only_the_body_names(source, store):
    def answer(request):
        if region_of(request) == "eu-west-3":
            return listing()
        return failure(400, "AuthorizationHeaderMalformed", Region="eu-west-3")

    store.answer = answer
    opened = source()
    [file] = opened.list_files(PREFIX).files
    assert "%2Feu-west-3%2Fs3%2F" in opened.locate(PREFIX, file).url.reveal()


@pytest.mark.parametrize("uri", [URI, PREFIX], ids=["object", "prefix"])
@pytest.mark.parametrize(("status", "code"), [(301, "PermanentRedirect"), (400, "IllegalLocationConstraintException")])
def test_a_region_that_nobody_names(source, store, uri, status, code):
    store.answer = lambda request: failure(status, code)
    with pytest.raises(SourceError, match="bucket bucket is not in region us-east-1") as caught:
        source().list_files(uri)
    assert "AWS_REGION" in caught.value.hint


def test_a_store_that_sends_us_round_in_circles(source, store):
    regions = cycle(["eu-west-1", "eu-west-2"])
    store.answer = lambda request: Response(status=400, headers={"x-amz-bucket-region": next(regions)})
    with pytest.raises(SourceError, match="is not in region eu-west-1"):
        source().list_files(URI)
    assert len(store.requests) == 2


# ------------------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize("uri", [URI, PREFIX], ids=["object", "prefix"])
@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "AccessDenied", PermissionDeniedError, "access denied to .* with the keys from AWS_ACCESS_KEY_ID"),
        (403, "SomethingNew", PermissionDeniedError, "access denied"),
        (400, "ExpiredToken", AuthenticationError, "has expired"),
        (400, "InvalidToken", AuthenticationError, "session token"),
        (403, "RequestTimeTooSkewed", AuthenticationError, "clock"),
        (403, "InvalidObjectState", UnsupportedError, "archived"),
        (503, "SlowDown", RateLimitedError, "fewer requests"),
        (429, "TooManyRequests", RateLimitedError, "fewer requests"),
        (500, "InternalError", TransientError, "the store failed"),
        (503, "ServiceUnavailable", TransientError, "the store failed"),
        (400, "Nonsense", SourceError, "not an answer"),
    ],
)
def test_refusals(source, store, uri, status, code, kind, words):
    store.answer = lambda request: failure(status, code)
    with pytest.raises(kind, match=words) as caught:
        source().list_files(uri)
    assert type(caught.value) is kind
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_a_refusal_without_a_body(source, store):
    store.answer = lambda request: Response(status=403)
    with pytest.raises(PermissionDeniedError, match="HTTP 403"):
        source().list_files(URI)


@pytest.mark.parametrize(
    "text",
    [
        "<html>login</html>",
        "",
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>prefix/x</Key></Contents></ListBucketResult>",
        listing("<Size>many</Size>").body.data().decode(),
    ],
)
def test_a_page_that_is_no_listing(source, store, text):
    store.answer = lambda request: Response(body=inline(text), headers={"Content-Type": "text/html"})
    with pytest.raises(SourceError, match="cannot be understood") as caught:
        source().list_files(PREFIX)
    assert "AWS_ENDPOINT_URL" in caught.value.hint


@pytest.mark.parametrize("text", ["<html><br>login", "login"])
def test_a_page_that_is_not_even_xml(source, store, text):
    store.answer = lambda request: Response(body=inline(text))
    with pytest.raises(TransientError, match="the store failed") as caught:
        source().list_files(PREFIX)
    assert "AWS_ENDPOINT_URL" in caught.value.hint


def test_an_object_in_an_archive(source, store):
    store.answer = lambda request: stored(x_amz_storage_class="GLACIER")
    with pytest.raises(UnsupportedError, match="archived") as caught:
        source().list_files(URI)
    assert "restore" in caught.value.hint


def test_an_object_restored_from_an_archive(source, store):
    restore = 'ongoing-request="false", expiry-date="Fri, 21 Dec 2040 00:00:00 GMT"'
    store.answer = lambda request: stored(x_amz_storage_class="GLACIER", x_amz_restore=restore)
    assert source().list_files(URI).files[0].size == SIZE


def test_a_store_that_knows_no_head(source, store):
    def answer(request):
        if request.method == "HEAD":
            return Response(status=405)
        return Response(status=206, headers={"ETag": ETAG, "Content-Range": "bytes 0-0/5"}, body=inline("h"))

    store.answer = answer
    assert source().list_files(URI).files[0].size == SIZE


# ------------------------------------------------------------------------------------------------------ requester pays
def test_the_requester_pays_for_every_request(source, store):
    store.answer = lambda request: stored() if request.method == "HEAD" else listing()
    opened = source(AWS_REQUEST_PAYER="requester")
    [file] = opened.list_files(URI).files
    location = opened.locate(URI, file)
    opened.list_files(PREFIX)
    assert [request.header("x-amz-request-payer") for request in store.requests] == ["requester"] * 2
    assert [(name, value.reveal()) for name, value in location.headers] == [("x-amz-request-payer", "requester")]
    assert "X-Amz-SignedHeaders=host%3Bx-amz-request-payer" in location.url.reveal()


def test_nobody_else_pays(source, store):
    opened = source()
    [file] = opened.list_files(URI).files
    assert opened.locate(URI, file).headers == ()
    assert store.requests[0].header("x-amz-request-payer") is None


# ----------------------------------------------------------------------------------------------------------- checksums
WHOLE = base64.b64encode(SHA256).decode()
CRC = base64.b64encode(b"\1\2\3\4").decode()
MIRRORED = [Digest("sha256", SHA256.hex()), Digest("crc32c", "01020304")]
PARTS = {"ETag": '"5d41402abc4b2a76b9719d911017c592-3"'}


@pytest.mark.parametrize(
    ("headers", "digests"),
    [
        ({}, []),
        ({"x_amz_checksum_sha256": WHOLE}, [Digest("sha256", SHA256.hex())]),
        ({"x_amz_checksum_sha256": WHOLE, "x_amz_checksum_type": "FULL_OBJECT"}, [Digest("sha256", SHA256.hex())]),
        ({"x_amz_checksum_sha256": WHOLE, "x_amz_checksum_type": "COMPOSITE"}, []),
        ({"x_amz_checksum_sha256": f"{WHOLE}-3"}, []),
        ({"x_amz_checksum_sha256": WHOLE, **PARTS}, []),
        ({"x_amz_checksum_sha256": WHOLE, "x_amz_checksum_type": "FULL_OBJECT", **PARTS}, []),
        ({"x_amz_checksum_crc32c": CRC, "x_amz_checksum_type": "FULL_OBJECT", **PARTS}, [Digest("crc32c", "01020304")]),
        ({"x_amz_checksum_crc32": CRC, "x_amz_checksum_type": "COMPOSITE", **PARTS}, []),
        ({"x_amz_checksum_crc32": CRC, **PARTS}, []),
        ({"x_amz_meta_nim_digests": f"sha256:{SHA256.hex()},crc32c:01020304"}, MIRRORED),
        ({"x_amz_meta_nim_digests": f"sha256:{SHA256.hex()},crc32c:01020304", **PARTS}, MIRRORED),
        ({"x_amz_meta_nim_digests": "sha256:00, md5, x:y, ü"}, []),
        ({"x_amz_meta_nim_digests": "crc32c:00000000", "x_amz_checksum_crc32c": CRC}, [Digest("crc32c", "01020304")]),
        ({"x_amz_checksum_crc64nvme": "AAAAAAAAAAA=", "x_amz_checksum_type": "FULL_OBJECT"}, []),
    ],
)
def test_which_checksums_are_digests(source, store, headers, digests):
    store.answer = lambda request: stored(**headers)
    assert list(source().list_files(URI).files[0].digests) == digests


def test_a_checksum_that_is_none(source, store):
    store.answer = lambda request: stored(x_amz_checksum_sha256="AAAA", x_amz_checksum_crc32c="?")
    assert source().list_files(URI).files[0].digests == ()


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ("<ChecksumAlgorithm>SHA256</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>", True),
        ("<ChecksumAlgorithm>CRC32</ChecksumAlgorithm>", True),
        ("<ChecksumAlgorithm>SHA256</ChecksumAlgorithm><ChecksumType>COMPOSITE</ChecksumType>", False),
        ("<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>", False),
        ("", True),
    ],
)
def test_an_object_of_a_listing_is_asked_about_only_if_there_is_more_to_know(source, store, more, asked):
    store.answer = lambda request: stored() if request.method == "HEAD" else listing(more)
    opened = source()
    opened.list_files(PREFIX)
    [file] = opened.list_files(uri_of("s3://bucket/prefix/file")).files
    assert (file.path, file.size) == ("file", SIZE)
    assert store.methods() == (["GET", "HEAD"] if asked else ["GET"])


def test_weak_etags_pin_nothing(source, store):
    store.answer = lambda request: stored(ETag='W/"x"')
    opened = source()
    [file] = opened.list_files(URI).files
    assert opened.locate(URI, file).validator is None


def test_no_object_and_nothing_below(source, store):
    store.answer = lambda request: (
        Response(status=404)
        if request.method == "HEAD"
        else Response(body=inline("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"))
    )
    with pytest.raises(NotFoundError, match="no such object"):
        source().list_files(URI)
