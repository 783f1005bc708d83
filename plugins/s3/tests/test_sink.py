"""Objects written to a real server, read back by boto3."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import google_crc32c
import httpx
import pytest
from attrs import evolve

from nim_core.errors import (
    AuthenticationError,
    InvalidUriError,
    PermissionDeniedError,
    RemoteChangedError,
    TransientError,
    UnsupportedError,
)
from nim_core.testing.harness import object_uri as uri_of
from nim_core.types import Body, CopyingSink, Digest, NewObject, PartedSink, StoredObject

BUCKET = "mirror"
KEYS = (
    "nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json",
    "a%252Fb",
    "with blank and + plus",
    "übergrößé 模型.bin",
    "q?a=b&c#d;e:f@g=h,i!j'k(l)m*n~o$p[q]",
    "prefix/nim%2Fx",
)


def crc32c(data):
    return Digest("crc32c", f"{google_crc32c.value(data):08x}")


def new_object(key, data, replaces=None):
    """Return what is to be written, with the digests that core computes."""
    digests = (Digest("sha256", hashlib.sha256(data).hexdigest()), crc32c(data))
    return NewObject(key=key, size=len(data), digests=digests, replaces=replaces)


@pytest.fixture
def body(tmp_path):
    """Return a function that puts bytes in a file, among others, to be sent."""

    def make(data):
        (tmp_path / "file").write_bytes(b"before" + data + b"after")
        return Body(path=tmp_path / "file", offset=len(b"before"), size=len(data))

    return make


@pytest.fixture
def put(sink, body):
    """Return a function that writes an object."""

    def write(key, data, replaces=None):
        sink.put(new_object(key, data, replaces), body(data))

    return write


# ------------------------------------------------------------------------------------------------------------- at once
def test_a_sink_has_all_abilities(sink):
    assert isinstance(sink, PartedSink)
    assert isinstance(sink, CopyingSink)


@pytest.mark.parametrize("key", KEYS)
def test_objects_are_read_back_by_their_literal_keys(sink, put, server, key):
    data = f"content of {key}".encode()
    put(key, data)
    assert server.read(key) == data
    found = sink.head(key)
    assert (found.key, found.size) == (key, len(data))
    assert set(found.digests) == set(new_object(key, data).digests)
    assert list(sink.list_objects(key)) == [StoredObject(key=key, size=len(data), version=found.version)]


def test_a_source_sees_the_digests_that_were_stored(put, source):
    data = b"the content"
    put("for%2Fsource", data)
    [file] = source.list_files(uri_of("s3://mirror/for%2Fsource")).files
    assert set(new_object("for%2Fsource", data).digests) <= set(file.digests)


@pytest.mark.parametrize("bucket", ["", "-", "a b"])
def test_what_no_bucket_is_called(open_sink, server, bucket):
    with pytest.raises(InvalidUriError, match="not a name of a bucket"):
        open_sink(server.environment(), bucket=bucket)


def test_bytes_that_change_on_the_way_are_refused(sink, body, server):
    new = new_object("damaged", b"as it was read")
    with pytest.raises(TransientError, match=r"other bytes of s3://mirror/damaged arrived than were sent"):
        sink.put(new, body(b"as it was sent"))
    assert server.read("damaged") is None


def test_a_connection_that_is_cut_leaves_nothing(sink, tmp_path, server):
    data = b"x" * 100_000
    (tmp_path / "short").write_bytes(data[:50_000])
    with pytest.raises(TransientError):
        sink.put(new_object("cut", data), Body(path=tmp_path / "short", size=len(data)))
    assert (server.read("cut"), sink.head("cut")) == (None, None)


def test_a_long_key(put):
    with pytest.raises(UnsupportedError, match="keys of up to 1024 bytes") as caught:
        put("a%2F" * 400, b"x")
    assert "prefix" in caught.value.hint


# ------------------------------------------------------------------------------------------------------- other writers


def test_an_object_that_has_gone_is_not_replaced(sink, put, server):
    put("gone", b"first")
    seen = sink.head("gone")
    server.client().delete_object(Bucket=BUCKET, Key="gone")
    with pytest.raises(RemoteChangedError):
        put("gone", b"second", seen)


def test_writing_again_what_is_there_is_no_conflict(put, server):
    put("twice", b"same")
    put("twice", b"same")
    assert server.read("twice") == b"same"


def test_of_two_writers_one_wins_and_nothing_is_torn(sink, server, tmp_path):
    contents = [bytes([letter]) * 300_000 for letter in b"abcd"]

    def write(data):
        path = tmp_path / str(data[0])
        path.write_bytes(data)
        with suppress(RemoteChangedError):
            sink.put(new_object("contested", data), Body(path=path, size=len(data)))
            return data
        return None

    with ThreadPoolExecutor(4) as threads:
        wrote = Counter(threads.map(write, contents))
    assert wrote[server.read("contested")] == 1
    assert wrote[None] == 3


# ------------------------------------------------------------------------------------------------- who asks, and where
def test_a_session_token(open_sink, server, body):
    sink = open_sink(server.environment() | server.session())
    sink.put(new_object("token%2F", b"x"), body(b"x"))
    assert (server.read("token%2F"), sink.head("token%2F").size) == (b"x", 1)


def test_tls_with_an_authority_of_its_own(open_sink, server, certificates, body):
    environment = server.environment() | {"AWS_ENDPOINT_URL": server.tls_url, "AWS_CA_BUNDLE": str(certificates.ca)}
    sink = open_sink(environment, trust=certificates.client_context())
    sink.put(new_object("tls%2F", b"x"), body(b"x"))
    assert (server.read("tls%2F"), sink.head("tls%2F").size) == (b"x", 1)


@pytest.mark.parametrize("style", ["virtual", "path"])
def test_both_styles(open_sink, server, sender, body, names, style):
    environment = server.environment() | {"AWS_ENDPOINT_URL": server.host_url, "AWS_S3_ADDRESSING_STYLE": style}
    open_sink(environment).put(new_object(f"{style}%2F", b"x"), body(b"x"))
    assert server.read(f"{style}%2F") == b"x"
    assert httpx.URL(sender.sent[0].url.reveal()).host == (
        "mirror.s3.localhost" if style == "virtual" else "s3.localhost"
    )


def test_a_reader_may_not_write(open_sink, server, body):
    with pytest.raises(PermissionDeniedError, match="access denied") as caught:
        open_sink(server.environment(server.reader)).put(new_object("no", b"x"), body(b"x"))
    assert "s3:PutObject" in caught.value.hint


def test_strangers_may_not_write(open_sink, server, body):
    with pytest.raises(AuthenticationError, match="strangers have no access"):
        open_sink({"AWS_ENDPOINT_URL": server.url}).put(new_object("no", b"x"), body(b"x"))


def test_a_wrong_secret_is_not_shown(open_sink, server):
    with pytest.raises(AuthenticationError, match="secret key does not fit") as caught:
        open_sink(server.environment() | {"AWS_SECRET_ACCESS_KEY": "hunter2"}).head("x")
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


# ------------------------------------------------------------------------------------------------------------- copying
DATA = b"0123456789" * 1_200_000


@pytest.fixture
def origin(server, body, open_sink):
    """An object that a mirror has written to another bucket."""
    other = open_sink(server.environment(), bucket="models")
    if other.head("from%2Fhere") is None:
        other.put(new_object("from%2Fhere", DATA), body(DATA))
    return uri_of("s3://models/from%2Fhere")


@pytest.mark.parametrize("limit", [len(DATA), 5 << 20], ids=["by one request", "in parts"])
def test_the_store_copies(sink, sender, server, origin, monkeypatch, limit):
    monkeypatch.setattr("nim_source_s3.sink._COPY_BYTES", limit)
    key, before = f"copied%2F{limit}", len(sender.sent)
    assert sink.copy(new_object(key, DATA), origin)
    assert [upload.method for upload in sender.sent[before:]] == []
    assert server.read(key) == DATA
    assert set(new_object(key, DATA).digests) <= set(sink.head(key).digests)
    assert server.unfinished(key) == []


def test_a_copy_is_right_by_the_store_s_own_checksum(sink, server):
    server.client().put_object(Bucket="models", Key="plain", Body=b"plain", ChecksumAlgorithm="SHA256")
    assert sink.copy(new_object("copied-plain", b"plain"), uri_of("s3://models/plain"))
    assert server.read("copied-plain") == b"plain"


def test_a_copy_writes_over_nothing(sink, put, server, origin):
    put("taken", b"x")
    assert not sink.copy(new_object("taken", DATA), origin)
    assert server.read("taken") == b"x"


@pytest.mark.parametrize(
    "text", ["s3://models/from%2Fhere/", "s3://models", "s3://models/nothing", "gs://models/from%2Fhere"]
)
def test_what_cannot_be_copied(sink, origin, text):
    assert not sink.copy(new_object("uncopied", DATA), uri_of(text))
    assert sink.head("uncopied") is None


def test_another_content_is_not_copied(sink, origin):
    other = evolve(new_object("uncopied", DATA), digests=(Digest("sha256", "0" * 64), crc32c(DATA)))
    assert not sink.copy(other, origin)
    assert not sink.copy(evolve(new_object("uncopied", DATA), size=1), origin)
    assert sink.head("uncopied") is None


def test_what_nothing_vouches_for_is_not_copied(sink, origin):
    unknown = evolve(new_object("uncopied", DATA), digests=(Digest("blake3", "0" * 64),))
    assert not sink.copy(unknown, origin)


def test_who_may_not_write_copies_nothing(open_sink, server, origin):
    assert not open_sink(server.environment(server.reader)).copy(new_object("uncopied", DATA), origin)
