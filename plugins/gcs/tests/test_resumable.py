"""Large objects in sessions: killed, cut, continued by another process, refused."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import nim_source_gcs.sink
import pytest
from attrs import evolve, frozen

from nim_core.errors import (
    DigestMismatchError,
    NotFoundError,
    RemoteChangedError,
    TransientError,
)
from nim_core.testing.corpus import Content, PatternContent, inline, part_of
from nim_core.testing.faults import answer_with
from nim_core.testing.gcs_server import api_refusal
from nim_core.testing.http_server import Response, json_response
from nim_core.types import Body, Digest, NewObject, Part, Secret, StoredObject, StoredPart, Upload

PART = 512 * 1024
SIZE = 3 * PART - 1000
KEY = "nim%2Fmeta%2Fllama%3Ahf%3Ffile%3Dweights.bin"
CONTENT = PatternContent(length=SIZE, seed=3)
WHOLE = tuple(StoredPart(number=number, size=PART) for number in (1, 2))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of half a mebibyte, from an object of more than that on."""
    monkeypatch.setattr(nim_source_gcs.sink, "_PART", PART)
    monkeypatch.setattr(nim_source_gcs.sink, "_AT_ONCE", PART)


@frozen
class Sending:
    """
    What core does with a large file.

    Attributes:
        sink: Gets it.
        path: Where it lies.
        new: What it becomes.
        content: What is said to be in it.
    """

    sink: object
    path: Path
    new: NewObject
    content: Content = CONTENT

    def part(self, number: int) -> Part:
        """Return a part of the file."""
        begins = (number - 1) * PART
        size = min(PART, SIZE - begins)
        crc32c = part_of(self.content, begins, begins + size).digest("crc32c")
        return Part(number=number, body=Body(path=self.path, offset=begins, size=size), crc32c=crc32c)

    def put(self, upload: Upload, *numbers: int) -> list[StoredPart]:
        """Send parts."""
        return [self.sink.put_part(self.new, upload, self.part(number)) for number in numbers]

    def complete(self, upload: Upload) -> None:
        """Send what is not stored, and finish."""
        numbers = range(len(upload.stored) + 1, 4)
        self.sink.finish(self.new, upload, [*upload.stored, *self.put(upload, *numbers)])


@pytest.fixture
def new():
    """The object that is written."""
    digests = (CONTENT.digest("blake3"), CONTENT.digest("crc32c"))
    return NewObject(key=KEY, size=SIZE, digests=digests)


@pytest.fixture
def send_to(open_sink, key_file, tmp_path, new):
    """Return a function that makes what sends the file to a server, each time by a sink of its own."""

    def make(server, environment=None) -> Sending:
        (tmp_path / "weights.bin").write_bytes(CONTENT.data())
        sink = open_sink({**server.environment(), **key_file, **(environment or {})})
        return Sending(sink, tmp_path / "weights.bin", new)

    return make


@pytest.fixture
def sending(send_to, emulator):
    """It, to the server that knows sessions."""
    return send_to(emulator)


def session(emulator, upload):
    return emulator.direct_url + upload.token.reveal().partition(" ")[2]


def ranges(server):
    """Return what was sent to sessions, and what was asked about them."""
    puts = server.log.select(route="upload", method="PUT")
    return [exchange.request.header("Content-Range").removeprefix("bytes ") for exchange in puts]


def test_parts_are_multiples_of_what_google_demands(monkeypatch, open_sink):
    monkeypatch.undo()
    sink = open_sink({})
    sizes = {size: sink.part_bytes(size) for size in (0, 1, 8 << 20, (8 << 20) + 1, 5 << 40)}
    assert sizes == {0: None, 1: None, 8 << 20: None, (8 << 20) + 1: 64 << 20, 5 << 40: 64 << 20}
    assert (64 << 20) % (256 << 10) == 0


# --------------------------------------------------------------------------------------------------------------- whole
def test_googles_client_reads_back_what_was_sent_in_parts(send_to, server, signed_in):
    sending = send_to(server)
    upload = sending.sink.begin(sending.new, None)
    assert (upload.part_bytes, upload.ordered, upload.stored) == (PART, True, ())
    sending.complete(upload)
    blob = signed_in(server).bucket("models").blob(KEY)
    assert blob.download_as_bytes() == CONTENT.data()
    blob.reload()
    assert blob.metadata == {"nim-digests": f"{CONTENT.digest('blake3')},{CONTENT.digest('crc32c')}"}
    assert ranges(server) == [
        f"0-{PART - 1}/{SIZE}",
        f"{PART}-{2 * PART - 1}/{SIZE}",
        f"{2 * PART}-{SIZE - 1}/{SIZE}",
    ]


def test_nothing_is_readable_before_the_last_part(sending):
    upload = sending.sink.begin(sending.new, None)
    sending.put(upload, 1, 2)
    assert sending.sink.head(KEY) is None
    assert list(sending.sink.list_objects("")) == []
    [last] = sending.put(upload, 3)
    assert last.tag == sending.sink.head(KEY).version


def test_the_last_part_carries_the_digest_of_all(sending, emulator):
    sending.complete(sending.sink.begin(sending.new, None))
    hashes = [exchange.request.header("X-Goog-Hash") for exchange in emulator.log.select(route="upload", method="PUT")]
    assert hashes == [None, None, f"crc32c={nim_source_gcs.sink.crc32c(sending.new)}"]


# ------------------------------------------------------------------------------------------------------------ continued
def test_another_process_goes_on_where_one_was_killed(sending, send_to, emulator, signed_in):
    token = sending.sink.begin(sending.new, None).token
    sending.put(sending.sink.begin(sending.new, token), 1, 2)
    emulator.log.clear()

    other = send_to(emulator)
    upload = other.sink.begin(other.new, Secret(token.reveal()))
    assert upload.stored == WHOLE
    other.complete(upload)
    assert ranges(emulator) == [f"*/{SIZE}", f"{2 * PART}-{SIZE - 1}/{SIZE}"]
    assert signed_in(emulator).bucket("models").blob(KEY).download_as_bytes() == CONTENT.data()


def test_a_part_of_which_some_is_there_is_not_sent_whole(sending, send_to, emulator, signed_in):
    upload = sending.sink.begin(sending.new, None)
    sending.put(upload, 1)
    kill_while_sending(session(emulator, upload), PART, 300_000)
    emulator.log.clear()

    other = send_to(emulator)
    upload = other.sink.begin(other.new, upload.token)
    assert upload.stored == WHOLE[:1]
    other.complete(upload)
    assert ranges(emulator)[1] == f"{PART + 300_000}-{2 * PART - 1}/{SIZE}"
    assert signed_in(emulator).bucket("models").blob(KEY).download_as_bytes() == CONTENT.data()


def kill_while_sending(url, begins, count):
    """Send the first ``count`` bytes of a part, then go away."""
    parts = urlsplit(url)
    lines = [
        f"PUT {parts.path}?{parts.query} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Content-Length: {PART}",
        f"Content-Range: bytes {begins}-{begins + PART - 1}/{SIZE}",
    ]
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + CONTENT.read(begins, begins + count))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


def test_a_body_that_is_in_memory_is_narrowed_too(sending, emulator):
    upload = sending.sink.begin(sending.new, None)
    kill_while_sending(session(emulator, upload), 0, 1000)
    upload = sending.sink.begin(sending.new, upload.token)
    first = sending.part(1)
    first = evolve(first, body=evolve(first.body, path=Path("/nowhere"), data=CONTENT.read(0, PART)))
    sending.sink.put_part(sending.new, upload, first)
    assert ranges(emulator) == [f"*/{SIZE}", f"1000-{PART - 1}/{SIZE}"]
    sending.put(upload, 2, 3)
    assert CONTENT.digest("crc32c") in sending.sink.head(KEY).digests


def test_a_part_whose_answer_was_lost_is_not_sent_again(sending, emulator):
    upload = sending.sink.begin(sending.new, None)
    for number in (1, 2, 3):
        emulator.log.clear()
        emulator.faults.add(answer_with(api_refusal(503)), route="upload", method="PUT", times=1)
        with pytest.raises(TransientError, match="HTTP 503"):
            sending.put(upload, number)
        [stored] = sending.put(upload, number)
        assert [text.startswith("*") for text in ranges(emulator)] == [False, True]
    sending.sink.finish(sending.new, upload, [*WHOLE, stored])


def test_what_google_keeps_less_of_than_was_sent_is_sent_again(sending, emulator):
    upload = sending.sink.begin(sending.new, None)
    kept = iter([262143, PART - 1])
    emulator.faults.add(lambda _: Response(status=308, headers={"Range": f"bytes=0-{next(kept)}"}), method="PUT")
    sending.put(upload, 1)
    assert ranges(emulator) == [f"0-{PART - 1}/{SIZE}", f"262144-{PART - 1}/{SIZE}"]


def test_a_session_that_does_not_get_on_is_tried_again_by_core(sending, emulator):
    upload = sending.sink.begin(sending.new, None)
    emulator.faults.add(answer_with(Response(status=308)), method="PUT", times=2)
    with pytest.raises(TransientError, match="does not get on"):
        sending.put(upload, 1)
    with pytest.raises(TransientError, match="does not get on"):
        sending.put(upload, 2)
    sending.complete(sending.sink.begin(sending.new, upload.token))


def test_a_session_that_was_completed_is_told_so(sending, emulator):
    upload = sending.sink.begin(sending.new, None)
    sending.put(upload, 1, 2, 3)
    found = sending.sink.head(KEY)
    resource = {
        "name": KEY,
        "generation": found.version,
        "size": str(SIZE),
        "crc32c": nim_source_gcs.sink.crc32c(sending.new),
    }
    resource["metadata"] = {"nim-digests": ",".join(map(str, sending.new.digests))}
    emulator.faults.add(answer_with(json_response(resource)), method="PUT", times=1)  # as Google answers

    upload = sending.sink.begin(sending.new, upload.token)
    assert [(stored.number, stored.size) for stored in upload.stored] == [(1, PART), (2, PART), (3, PART - 1000)]
    sending.complete(upload)


# --------------------------------------------------------------------------------------------------------- other tokens
def test_a_session_for_something_else_is_not_continued(sending, emulator):
    upload = sending.sink.begin(sending.new, None)
    sending.put(upload, 1)
    replaces = StoredObject(key=KEY, size=1, version="17")
    others = [
        evolve(sending.new, digests=(Digest("sha256", "0" * 64), Digest("crc32c", "00000000"))),
        evolve(sending.new, key="another"),
        evolve(sending.new, size=SIZE + 1),
        evolve(sending.new, replaces=replaces),
    ]
    for new in others:
        begun = sending.sink.begin(new, upload.token)
        assert begun.stored == ()
        assert begun.token != upload.token


@pytest.mark.parametrize("text", ["", "x", "https://elsewhere.test/upload?upload_id=1"])
def test_a_token_of_nobodys_starts_anew(sending, text):
    assert sending.sink.begin(sending.new, Secret(text)).stored == ()


def test_a_token_of_another_endpoint_starts_anew(sending, send_to, emulator, gcs_server):
    upload = sending.sink.begin(sending.new, None)
    gcs_server.make_bucket("models")
    other = send_to(gcs_server)
    other.complete(other.sink.begin(other.new, upload.token))
    assert ranges(gcs_server)[0] == f"0-{PART - 1}/{SIZE}"


@pytest.mark.parametrize("status", [400, 404, 410, 412, 499])
def test_a_session_that_is_over_is_started_anew(sending, emulator, status):
    upload = sending.sink.begin(sending.new, None)
    sending.put(upload, 1)
    emulator.faults.add(answer_with(api_refusal(status)), method="PUT", times=1)
    begun = sending.sink.begin(sending.new, upload.token)
    assert begun.stored == ()
    sending.complete(begun)


@pytest.mark.parametrize("status", [404, 410])
def test_a_session_that_ends_on_the_way_is_named(sending, emulator, status):
    upload = sending.sink.begin(sending.new, None)
    emulator.faults.add(answer_with(api_refusal(status)), method="PUT")
    with pytest.raises(NotFoundError, match="the upload is not known any more: gs://models/nim%2F"):
        sending.put(upload, 1)


def test_tokens_go_to_the_named_endpoint_whatever_is_answered(sending, emulator):
    elsewhere = {"Location": "https://elsewhere.test/upload/storage/v1/b/models/o?upload_id=1"}
    emulator.faults.add(answer_with(Response(headers=elsewhere)), method="POST")
    upload = sending.sink.begin(sending.new, None)
    with pytest.raises(NotFoundError):
        sending.put(upload, 1)
    assert emulator.log.select(method="PUT")[-1].request.parameter("upload_id") == "1"


def test_a_token_does_not_show(sending):
    upload = sending.sink.begin(sending.new, None)
    assert "upload_id" not in repr(upload)


def test_a_login_that_expired_on_the_way_is_renewed(sending, google_auth):
    upload = sending.sink.begin(sending.new, None)
    sending.put(upload, 1)
    google_auth.expire_tokens()
    sending.put(upload, 2, 3)
    google_auth.expire_tokens()
    sending.sink.begin(sending.new, upload.token)
    assert google_auth.holders == ["service account"] * 3


# ------------------------------------------------------------------------------------------------- conditions, content
def test_an_object_that_appeared_meanwhile_is_not_written_over(sending, emulator):
    upload = sending.sink.begin(sending.new, None)
    sending.put(upload, 1, 2)

    def overtaken(_):
        emulator.put("models", KEY, inline("another"))
        return api_refusal(412)  # as Google answers

    emulator.faults.add(overtaken, method="PUT")
    stored = sending.put(upload, 3)
    with pytest.raises(RemoteChangedError, match="gs://models/nim%2F"):
        sending.sink.finish(sending.new, upload, [*WHOLE, *stored])
    assert sending.sink.head(KEY).size == 7


def test_another_mirror_that_wrote_the_very_same_is_no_harm(sending, send_to, emulator):
    upload = sending.sink.begin(sending.new, None)
    sending.put(upload, 1, 2)
    other = send_to(emulator)
    other.complete(other.sink.begin(other.new, None))
    emulator.faults.add(answer_with(api_refusal(412)), method="PUT")  # as Google answers
    stored = sending.put(upload, 3)
    sending.sink.finish(sending.new, upload, [*WHOLE, *stored])


def test_a_session_names_what_it_may_write_over(sending, emulator):
    sending.sink.begin(sending.new, None)
    emulator.put("models", KEY, inline("old"))
    found = sending.sink.head(KEY)
    new = evolve(sending, new=evolve(sending.new, replaces=found))
    new.complete(new.sink.begin(new.new, None))
    conditions = [exchange.request.parameter("ifGenerationMatch") for exchange in emulator.log.select(method="POST")]
    assert conditions == ["0", found.version]
    assert sending.sink.head(KEY).size == SIZE


def test_a_session_is_refused_where_the_key_is_taken(sending, emulator):
    emulator.faults.add(answer_with(api_refusal(412)), method="POST")
    with pytest.raises(RemoteChangedError):
        sending.sink.begin(sending.new, None)


def test_other_content_leaves_no_object(send_to, server):
    sending = send_to(server)
    upload = sending.sink.begin(sending.new, None)
    sending.put(upload, 1)
    sending.path.write_bytes(bytes(SIZE))
    with pytest.raises(DigestMismatchError, match="other content arrived than was sent: gs://models/nim%2F"):
        sending.put(upload, 2, 3)
    assert sending.sink.head(KEY) is None


def test_an_object_that_is_not_right_in_the_end_is_deleted(sending, emulator):
    upload = sending.sink.begin(sending.new, None)
    stored = sending.put(upload, 1, 2, 3)
    resource = {"name": KEY, "generation": stored[-1].tag, "size": str(SIZE), "crc32c": "AAAAAA=="}
    emulator.faults.add(answer_with(json_response(resource)), method="GET", times=1)
    with pytest.raises(DigestMismatchError):
        sending.sink.finish(sending.new, upload, stored)
    assert sending.sink.head(KEY) is None


def test_an_object_that_was_replaced_in_the_end_is_left_alone(sending, emulator):
    upload = sending.sink.begin(sending.new, None)
    stored = sending.put(upload, 1, 2, 3)
    emulator.put("models", KEY, inline("another"))
    with pytest.raises(RemoteChangedError):
        sending.sink.finish(sending.new, upload, stored)
    assert sending.sink.head(KEY).size == 7


def test_an_object_that_is_gone_in_the_end_is_named(sending, emulator):
    upload = sending.sink.begin(sending.new, None)
    stored = sending.put(upload, 1, 2, 3)
    emulator.delete("models", KEY)
    with pytest.raises(RemoteChangedError):
        sending.sink.finish(sending.new, upload, stored)


def test_an_upload_is_not_finished_before_it_is_complete(sending):
    upload = sending.sink.begin(sending.new, None)
    stored = sending.put(upload, 1, 2)
    with pytest.raises(TransientError, match="not complete"):
        sending.sink.finish(sending.new, upload, stored)


# ------------------------------------------------------------------------------------------------------------- given up
def test_an_upload_is_given_up(send_to, gcs_server):
    gcs_server.make_bucket("models")
    sending = send_to(gcs_server)
    upload = sending.sink.begin(sending.new, None)
    sending.sink.abort(sending.new, upload)
    [deletion] = gcs_server.log.select(method="DELETE")
    assert (deletion.route, deletion.status) == ("upload", 499)


@pytest.mark.parametrize("status", [204, 404, 410, 499])
def test_an_upload_that_is_over_is_as_good_as_given_up(sending, emulator, status):
    emulator.faults.add(answer_with(Response(status=status)), method="DELETE")
    sending.sink.abort(sending.new, sending.sink.begin(sending.new, None))


def test_an_upload_that_cannot_be_given_up_is_tried_again_by_core(sending, emulator):
    emulator.faults.add(answer_with(api_refusal(503)), method="DELETE")
    upload = sending.sink.begin(sending.new, None)
    with pytest.raises(TransientError):
        sending.sink.abort(sending.new, upload)
