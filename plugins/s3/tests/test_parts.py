"""Objects sent in parts to a real server: resumed, reused, dropped, finished by another."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from itertools import count

import google_crc32c
import pytest
from attrs import evolve
from nim_source_s3 import sink as module

from nim_core.errors import NotFoundError, RemoteChangedError, TransientError
from nim_core.types import Body, Digest, NewObject, Part, Secret

MIB = 1 << 20
PART = 5 * MIB
BUCKET = "mirror"
DATA = bytes(range(256)) * (2 * PART // 256) + b"the rest"
keys = (f"in%2Fparts%3A{number} +é" for number in count())


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """The smallest parts that S3 takes."""
    monkeypatch.setattr(module, "_PART_BYTES", PART)
    monkeypatch.setattr(module, "_AT_ONCE_BYTES", PART)


@pytest.fixture
def file(tmp_path):
    """A file that nothing is known of yet at the store."""
    (tmp_path / "file").write_bytes(DATA)
    return File(tmp_path / "file", next(keys))


class File:
    """A file, and the object it becomes."""

    def __init__(self, path, key):
        data = path.read_bytes()
        digests = (Digest("sha256", hashlib.sha256(data).hexdigest()), crc32c(data))
        self.new = NewObject(key=key, size=len(data), digests=digests)
        self.key, self.path, self.data = key, path, data

    def part(self, number):
        piece = self.data[(number - 1) * PART : number * PART]
        body = Body(path=self.path, offset=(number - 1) * PART, size=len(piece))
        return Part(number=number, body=body, crc32c=crc32c(piece))

    def send(self, sink, upload, *numbers):
        return [sink.put_part(self.new, upload, self.part(number)) for number in numbers]

    def known(self, stored):
        """Return a part that the store has, with the digest that core has computed of it."""
        return evolve(stored, digests=(self.part(stored.number).crc32c,))

    def is_right(self, stored):
        """Whether a part that the store has is this file's, as core compares."""
        piece = self.data[(stored.number - 1) * PART : stored.number * PART]
        known = {"crc32c": crc32c(piece), "md5": Digest("md5", hashlib.md5(piece).hexdigest())}
        return bool(stored.digests) and all(known[digest.algorithm] == digest for digest in stored.digests)


def crc32c(data):
    return Digest("crc32c", f"{google_crc32c.value(data):08x}")


@pytest.mark.parametrize(
    ("size", "part_bytes"),
    [
        (0, None),
        (64 * MIB, None),
        (64 * MIB + 1, 32 * MIB),
        (312 * 1024 * MIB, 32 * MIB),
        (320_000 * MIB, 32 * MIB),
        (320_000 * MIB + 1, 33 * MIB),
        (5 * 1024 * 1024 * MIB, 525 * MIB),
        (50_000 * 1024 * MIB, 5 * 1024 * MIB),
    ],
)
def test_sizes_of_parts(sink, monkeypatch, size, part_bytes):
    monkeypatch.undo()
    assert sink.part_bytes(size) == part_bytes
    assert part_bytes is None or -(-size // part_bytes) <= 10_000


def test_an_object_is_made_of_its_parts(sink, server, file):
    assert sink.part_bytes(file.new.size) == PART
    upload = sink.begin(file.new, None)
    assert (upload.part_bytes, upload.ordered, upload.stored) == (PART, False, ())
    parts = file.send(sink, upload, 3, 1, 2)
    assert [(part.number, part.size) for part in parts] == [(3, len(b"the rest")), (1, PART), (2, PART)]
    assert (server.read(file.key), sink.head(file.key)) == (None, None)
    sink.finish(file.new, upload, sorted(parts, key=lambda part: part.number))
    assert server.read(file.key) == DATA
    assert set(file.new.digests) <= set(sink.head(file.key).digests)
    assert server.unfinished(file.key) == []


def test_another_process_goes_on(sink, open_sink, server, file):
    first = sink.begin(file.new, None)
    file.send(sink, first, 1, 3)
    other = open_sink(server.environment())
    second = other.begin(file.new, first.token)
    assert second.token == first.token
    assert [(part.number, part.size, file.is_right(part)) for part in second.stored] == [
        (1, PART, True),
        (3, len(b"the rest"), True),
    ]
    other.finish(
        file.new, second, [file.known(second.stored[0]), *file.send(other, second, 2), file.known(second.stored[1])]
    )
    assert server.read(file.key) == DATA


def test_a_store_that_wants_checksums_and_does_not_list_them_is_sent_all_again(sink, server, file):
    upload = sink.begin(file.new, None)
    file.send(sink, upload, 1, 2, 3)
    with pytest.raises(NotFoundError, match="cannot go on"):
        sink.finish(file.new, upload, sink.begin(file.new, upload.token).stored)
    assert (server.unfinished(file.key), server.read(file.key)) == ([], None)


def test_an_upload_is_found_without_its_token(sink, server, file):
    first = sink.begin(file.new, None)
    file.send(sink, first, 2)
    assert sink.begin(evolve(file.new, key=file.key[:-1]), None).token != first.token
    second = sink.begin(file.new, Secret("forgotten"))
    assert second.token == first.token
    assert [part.number for part in second.stored] == [2]


def test_an_upload_of_other_parts_is_not_used(sink, server, file):
    client = server.client()
    other = client.create_multipart_upload(Bucket=BUCKET, Key=file.key)["UploadId"]
    client.upload_part(Bucket=BUCKET, Key=file.key, UploadId=other, PartNumber=1, Body=b"x" * (PART + 1))
    upload = sink.begin(file.new, Secret(other))
    assert (upload.token != Secret(other), upload.stored) == (True, ())


def test_a_part_of_another_content_is_told_by_its_digest(sink, server, file):
    client = server.client()
    place = {"Bucket": BUCKET, "Key": file.key}
    other = client.create_multipart_upload(**place)["UploadId"]
    client.upload_part(**place, UploadId=other, PartNumber=1, Body=b"x" * PART)
    upload = sink.begin(file.new, None)
    [part] = upload.stored
    assert (upload.token, part.digests != (), file.is_right(part)) == (Secret(other), True, False)


def test_an_upload_that_another_tool_began_gets_our_digests(sink, server, file, sender):
    begun = server.client().create_multipart_upload(Bucket=BUCKET, Key=file.key, Metadata={"other": "tool"})
    upload = sink.begin(file.new, None)
    assert upload.token == Secret(begun["UploadId"])
    sink.finish(file.new, upload, file.send(sink, upload, 1, 2, 3))
    assert server.read(file.key) == DATA
    assert set(file.new.digests) <= set(sink.head(file.key).digests)


def test_a_damaged_part_is_refused(sink, file):
    upload = sink.begin(file.new, None)
    damaged = evolve(file.part(1), crc32c=crc32c(b"other"))
    with pytest.raises(TransientError, match="other bytes"):
        sink.put_part(file.new, upload, damaged)
    assert sink.begin(file.new, upload.token).stored == ()


def test_a_part_that_is_cut_is_not_there(sink, tmp_path, file):
    upload = sink.begin(file.new, None)
    (tmp_path / "short").write_bytes(DATA[:1000])
    with pytest.raises(TransientError):
        sink.put_part(file.new, upload, evolve(file.part(1), body=Body(path=tmp_path / "short", size=PART)))
    assert sink.begin(file.new, upload.token).stored == ()


def test_dropping_leaves_nothing(sink, server, file):
    upload = sink.begin(file.new, None)
    file.send(sink, upload, 1)
    sink.abort(file.new, upload)
    sink.abort(file.new, upload)
    assert (server.unfinished(file.key), server.read(file.key)) == ([], None)
    assert sink.begin(file.new, upload.token).token != upload.token


def test_an_upload_that_was_dropped_meanwhile(sink, server, file):
    upload = sink.begin(file.new, None)
    parts = file.send(sink, upload, 1, 2, 3)
    server.client().abort_multipart_upload(Bucket=BUCKET, Key=file.key, UploadId=upload.token.reveal())
    with pytest.raises(NotFoundError, match="has dropped what was sent"):
        sink.finish(file.new, upload, parts)
    with pytest.raises(NotFoundError):
        file.send(sink, upload, 1)
    assert server.read(file.key) is None


def test_finishing_what_has_been_finished(sink, open_sink, server, file):
    upload = sink.begin(file.new, None)
    parts = file.send(sink, upload, 1, 2, 3)
    sink.finish(file.new, upload, parts)
    open_sink(server.environment()).finish(file.new, upload, parts)
    assert server.read(file.key) == DATA


def test_a_part_that_another_mirror_has_replaced_is_not_used(sink, server, tmp_path, file):
    upload = sink.begin(file.new, None)
    parts = file.send(sink, upload, 1, 2, 3)
    (tmp_path / "other").write_bytes(DATA[::-1])
    File(tmp_path / "other", file.key).send(sink, upload, 1)
    sink.finish(file.new, upload, parts)
    assert server.read(file.key) == DATA


def test_an_object_that_appears_meanwhile_stays(sink, server, file):
    upload = sink.begin(file.new, None)
    parts = file.send(sink, upload, 1, 2, 3)
    server.client().put_object(Bucket=BUCKET, Key=file.key, Body=b"other")
    with pytest.raises(RemoteChangedError):
        sink.finish(file.new, upload, parts)
    assert server.read(file.key) == b"other"
    new = evolve(file.new, replaces=sink.head(file.key))
    sink.finish(new, upload, parts)
    assert server.read(file.key) == DATA


def test_what_was_left_long_ago_is_dropped(sink, server, file, monkeypatch):
    abandoned = server.client().create_multipart_upload(Bucket=BUCKET, Key=file.key)["UploadId"]
    upload = sink.begin(file.new, Secret(sink._create(file.new).reveal()))
    parts = file.send(sink, upload, 1, 2, 3)
    assert abandoned in server.unfinished(file.key)
    monkeypatch.setattr(module, "_STALE", timedelta(seconds=-1))
    sink.finish(file.new, upload, parts)
    assert server.unfinished(file.key) == []
