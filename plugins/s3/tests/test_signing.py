"""Presigned URLs are boto3's to the letter."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from attrs import frozen
from nim_source_s3.signing import presign

NOW = 1_700_000_000.0
HEADERS = {
    "x-amz-meta-nim-digests": "sha256:00,crc32c:11",
    "if-none-match": "*",
    "x-amz-checksum-crc32c": "AAAA+/==",
    "x-amz-request-payer": "requester",
}


@frozen
class Keys:
    """A credential as botocore freezes it."""

    access_key: str = "AKIA"
    secret_key: str = "s3cr3t/+"
    token: str | None = None


@pytest.fixture(autouse=True)
def one_time(monkeypatch):
    """The same second for both."""
    import botocore.auth

    moment = time.gmtime(NOW)
    monkeypatch.setattr(time, "gmtime", lambda *_: moment)
    now = datetime.fromtimestamp(NOW, UTC).replace(tzinfo=None)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda **_: now)


def as_boto_does(method, url, query, headers, keys, region, seconds):
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    request = AWSRequest(method, url, params=dict(query), headers=dict(headers))
    S3SigV4QueryAuth(keys, "s3", region, seconds).add_auth(request)
    return request.url


@pytest.mark.parametrize("keys", [Keys(), Keys(token="to/k+en==")], ids=["keys", "temporary"])
@pytest.mark.parametrize("key", ["a", "nim%2Fmeta%3Ahf", "q?a=b&c#d;e f+g'(h)*~", "über/模型"])
@pytest.mark.parametrize("url", ["https://bucket.s3.eu-west-1.amazonaws.com/", "http://127.0.0.1:9000/bucket/"])
def test_urls(url, key, keys):
    target = url + quote(key, safe="/~")
    for query in ({}, {"partNumber": "7", "uploadId": "a/b+c=="}):
        ours = presign("PUT", target, query, HEADERS, keys=keys, region="eu-west-1", seconds=600)
        theirs = as_boto_does("PUT", target, query, HEADERS, keys, "eu-west-1", 600)
        assert parts(ours) == parts(theirs)


@pytest.mark.parametrize("url", ["https://host:443/x", "http://host:80/x", "https://host:80/x"])
def test_ports(url):
    ours = presign("HEAD", url, {}, {}, keys=Keys(), region="us-east-1", seconds=1)
    assert parts(ours) == parts(as_boto_does("HEAD", url, {}, {}, Keys(), "us-east-1", 1))


def parts(url):
    """Return what is before the query, and the query's parts in any order."""
    before, _, query = url.partition("?")
    return before, sorted(query.split("&"))
