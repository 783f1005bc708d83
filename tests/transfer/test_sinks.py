"""Which answers are the data that was asked for, and where their bytes go."""

from __future__ import annotations

import errno
import os
import resource
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nim_core.errors import CacheError, DiskFullError, RemoteChangedError, TransientError
from nim_core.transfer.digests import crc32c
from nim_core.transfer.exchange import Response
from nim_core.transfer.jobs import SMALL_BYTES, FileTask, Job, Part
from nim_core.transfer.journal import open_partial
from nim_core.transfer.outcomes import Refusal
from nim_core.transfer.routes import Route
from nim_core.transfer.sinks import FileSink, MemorySink, refusal_of, strong_etag
from nim_core.types import HttpObject, ModelUri, RemoteFile


def answer(status, **headers):
    return Response(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def make_task(size, *parts):
    job = Job(
        id="f",
        identity=ModelUri(scheme="test", location="repo", file="f"),
        file=RemoteFile(path="f", size=size),
        locate=lambda: HttpObject(url="http://127.0.0.1/f"),
    )
    task = FileTask(job, size)
    task.route = Route(host="example.com")
    task.parts = list(parts)
    return task


class TestRefusal:
    """Of a file of 1000 bytes where not said otherwise."""

    @pytest.mark.parametrize(
        ("response", "refusal"),
        [
            (answer(200, content_length="1000"), None),
            (answer(200), None),
            (answer(200, content_length="999"), Refusal.WRONG_SIZE),
            (answer(200, content_length="1001"), Refusal.WRONG_SIZE),
            (answer(200, content_length="many"), None),
            (answer(200, content_length="\xb2"), None),
            (answer(200, content_length="9" * 5000), None),
            (answer(200, content_length="1000", content_encoding="gzip"), Refusal.ENCODED),
            (answer(200, content_length="1000", content_encoding="identity"), None),
            (answer(200, content_length="1000", content_encoding="Identity"), None),
            (answer(200, content_length="1000", content_encoding=""), None),
            (answer(206, content_range="bytes 0-999/1000"), None),
            (answer(206), Refusal.WRONG_RANGE),
        ],
    )
    def test_the_whole_file(self, response, refusal):
        assert refusal_of(response, first=0, last=None, size=1000) is refusal

    @pytest.mark.parametrize(
        ("content_range", "refusal"),
        [
            ("bytes 100-199/1000", None),
            ("BYTES 100-199/1000", None),
            ("bytes 100-199/*", None),
            ("bytes 100-150/1000", None),
            ("bytes 100-200/1000", Refusal.WRONG_RANGE),
            ("bytes 99-199/1000", Refusal.WRONG_RANGE),
            ("bytes 0-999/1000", Refusal.WRONG_RANGE),
            ("bytes 101-199/1000", Refusal.WRONG_RANGE),
            ("bytes 100-199/1001", Refusal.WRONG_SIZE),
            ("bytes 100-199/200", Refusal.WRONG_SIZE),
            ("bytes */1000", Refusal.WRONG_RANGE),
            ("bytes 100-199", Refusal.WRONG_RANGE),
            ("items 100-199/1000", Refusal.WRONG_RANGE),
            ("bytes 100-199/1000, bytes 300-399/1000", Refusal.WRONG_RANGE),
            (f"bytes 100-199/{'9' * 5000}", Refusal.WRONG_RANGE),
            ("bytes 1\xb20-199/1000", Refusal.WRONG_RANGE),
            ("", Refusal.WRONG_RANGE),
        ],
    )
    def test_a_range(self, content_range, refusal):
        response = answer(206, content_range=content_range, content_length="100")
        assert refusal_of(response, first=100, last=199, size=1000) is refusal

    @pytest.mark.parametrize(("first", "last"), [(0, 99), (100, 199), (100, None)])
    def test_the_whole_file_instead_of_a_range(self, first, last):
        response = answer(200, content_length="1000")
        assert refusal_of(response, first=first, last=last, size=1000) is Refusal.RANGE_IGNORED

    def test_several_ranges_in_one_answer(self):
        response = answer(206, content_type="multipart/byteranges; boundary=x")
        assert refusal_of(response, first=100, last=199, size=1000) is Refusal.WRONG_RANGE

    def test_an_encoded_range(self):
        response = answer(206, content_range="bytes 100-199/1000", content_encoding="br")
        assert refusal_of(response, first=100, last=199, size=1000) is Refusal.ENCODED

    @pytest.mark.parametrize(
        ("response", "first", "refusal"),
        [
            (answer(200), 0, None),
            (answer(200, content_length="5"), 0, None),
            (answer(200, content_length="5"), 3, Refusal.RANGE_IGNORED),
            (answer(206, content_range="bytes 3-4/5"), 3, None),
            (answer(206, content_range="bytes 3-4/*"), 3, None),
            (answer(206, content_range="bytes 3-4/500"), 3, Refusal.WRONG_RANGE),
            (answer(206, content_range="bytes 0-99/1000"), 0, Refusal.WRONG_RANGE),
        ],
    )
    def test_a_file_of_unknown_size_has_to_come_to_its_end(self, response, first, refusal):
        assert refusal_of(response, first=first, last=None, size=None) is refusal

    @given(st.text(max_size=40), st.text(max_size=40), st.sampled_from([200, 206]))
    def test_no_header_is_an_error(self, content_range, content_length, status):
        response = answer(status, content_range=content_range, content_length=content_length)
        assert refusal_of(response, first=1, last=5, size=9) in {Refusal.RANGE_IGNORED, Refusal.WRONG_RANGE}


@pytest.mark.parametrize(
    ("etag", "expected"),
    [('"v1"', '"v1"'), ('W/"v1"', None), ("", None), ("unquoted", "unquoted"), ('"W/x"', '"W/x"')],
)
def test_strong_etag(etag, expected):
    assert strong_etag(answer(200, etag=etag)) == expected


def test_no_etag():
    assert strong_etag(answer(200)) is None


class TestVersions:
    def ask(self, task, etag):
        sink = MemorySink(task, Part(0, 0, 5))
        accepted = sink.accepts(answer(200, content_length="5", **({"etag": etag} if etag else {})))
        return accepted, sink.refusal

    def test_the_first_answer_settles_the_version(self):
        task = make_task(5)
        assert self.ask(task, '"v1"') == (True, None)
        assert task.validator == '"v1"'
        assert self.ask(task, '"v2"') == (False, Refusal.CHANGED)
        assert self.ask(task, '"v1"') == (True, None)

    def test_the_source_may_have_settled_it_before(self):
        task = make_task(5)
        task.validator = '"v0"'
        assert self.ask(task, '"v1"') == (False, Refusal.CHANGED)

    @pytest.mark.parametrize("etag", [None, 'W/"v2"'])
    def test_an_answer_that_names_none_is_taken(self, etag):
        task = make_task(5)
        task.validator = '"v1"'
        assert self.ask(task, etag) == (True, None)
        assert task.validator == '"v1"'

    def test_a_refused_answer_settles_nothing(self):
        task = make_task(6)
        assert self.ask(task, '"v1"') == (False, Refusal.WRONG_SIZE)
        assert task.validator is None


class TestMemorySink:
    def test_bytes_are_kept(self):
        part = Part(0, 0, 5)
        sink = MemorySink(make_task(5, part), part)
        for data in (b"ab", b"c", b"de"):
            sink.write(data)
        assert (bytes(sink.data), sink.received, part.complete) == (b"abcde", 5, True)

    def test_more_than_asked_for(self):
        part = Part(0, 0, 5)
        sink = MemorySink(make_task(5, part), part)
        sink.write(b"abcd")
        with pytest.raises(TransientError, match=r"more bytes than asked for: example\.com"):
            sink.write(b"ef")
        assert (bytes(sink.data), part.done) == (b"abcd", 4)

    @pytest.mark.parametrize("status", [204, 301, 304, 401, 404, 416, 429, 500])
    def test_other_statuses_are_no_data_and_say_so_themselves(self, status):
        sink = MemorySink(make_task(5), Part(0, 0, 5))
        assert (sink.accepts(answer(status)), sink.refusal) == (False, None)

    @pytest.mark.parametrize(
        ("length", "refusal", "size", "single"),
        [
            ("5", None, None, False),
            (str(SMALL_BYTES), None, None, False),
            (str(SMALL_BYTES + 1), Refusal.TOO_LARGE, SMALL_BYTES + 1, False),
            (None, Refusal.TOO_LARGE, None, True),
        ],
    )
    def test_the_first_answer_tells_whether_a_file_of_unknown_size_fits(self, length, refusal, size, single):
        part = Part(0, 0, None)
        task = make_task(None, part)
        sink = MemorySink(task, part)
        headers = {} if length is None else {"content_length": length}
        assert (sink.accepts(answer(200, **headers)), sink.refusal) == (refusal is None, refusal)
        assert (task.size, task.single, task.unranged) == (size, single, single)

    def test_a_file_that_has_started_anew(self):
        part = Part(0, 0, 5)
        task = make_task(5, part)
        sink = MemorySink(task, part)
        sink.write(b"ab")
        task.generation += 1
        with pytest.raises(RemoteChangedError):
            sink.write(b"c")
        assert part.done == 2

    def test_what_is_expected_is_what_was_asked_for(self):
        part = Part(1, 100, 100, done=20)
        sink = MemorySink(make_task(1000, part), part)
        sink.expect(120, 199)
        assert sink.accepts(answer(206, content_range="bytes 120-199/1000"))
        assert not sink.accepts(answer(206, content_range="bytes 100-199/1000"))


class TestFileSink:
    @pytest.fixture
    def partial(self, tmp_path):
        partial = open_partial(tmp_path, "f")
        yield partial
        partial.close()

    def sink(self, partial, part, size=1000, poke=lambda: None):
        task = make_task(size, part)
        task.partial = partial
        return FileSink(task, part, partial.data, poke)

    def test_bytes_go_to_their_place(self, partial):
        part = Part(1, 100, 6, done=2, crc=crc32c(b"ab"))
        os.pwrite(partial.data, b"ab", 100)
        sink = self.sink(partial, part)
        sink.write(b"cd")
        sink.write(b"ef")
        assert partial.path.read_bytes() == bytes(100) + b"abcdef"
        assert (part.done, part.crc, part.complete) == (6, crc32c(b"abcdef"), True)

    def test_more_than_asked_for_is_not_written(self, partial):
        sink = self.sink(partial, Part(0, 0, 3))
        with pytest.raises(TransientError):
            sink.write(b"abcd")
        assert partial.path.read_bytes() == b""

    def test_the_digest_is_poked_every_eight_mebibytes(self, partial):
        pokes = []
        sink = self.sink(partial, Part(0, 0, None), size=None, poke=lambda: pokes.append(sink.received))
        for _ in range(20):
            sink.write(bytes(1 << 20))
        assert pokes == [8 << 20, 16 << 20]

    def test_more_pieces_than_the_system_takes_at_once(self, partial):
        part = Part(0, 0, 3000)
        sink = self.sink(partial, part, size=3000)
        for number in range(3000):
            sink.write(b"%d" % (number % 10))
        assert partial.path.read_bytes() == b"0123456789" * 300
        assert part.crc == crc32c(b"0123456789" * 300)

    def test_bytes_that_are_not_worth_a_call_are_written_in_the_end(self, partial):
        part = Part(0, 0, None)
        sink = self.sink(partial, part, size=None)
        sink.write(b"abc")
        assert (part.done, sink.received, sink.waiting) == (0, 3, 3)
        sink.finish()
        sink.finish()
        assert (part.done, sink.received, sink.waiting) == (3, 3, 0)
        assert partial.path.read_bytes() == b"abc"

    def test_short_writes_are_continued(self, partial, monkeypatch):
        pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: pwrite(handle, data[:3], offset))
        monkeypatch.setattr(os, "pwritev", lambda handle, data, offset: pwrite(handle, data[0][:3], offset))
        part = Part(0, 0, 10)
        self.sink(partial, part).write(b"0123456789")
        assert partial.path.read_bytes() == b"0123456789"
        assert part.crc == crc32c(b"0123456789")

    def test_a_file_that_may_not_grow(self, partial):
        part = Part(0, 0, 100)
        sink = self.sink(partial, part)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
        try:
            with pytest.raises(CacheError) as caught:
                sink.write(bytes(100))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, previous)
        assert str(caught.value) == f"file too large: {partial.folder}"
        assert (part.done, part.crc) == (0, 0)

    def test_a_full_disk_is_named_with_its_folder(self, partial, monkeypatch):
        def refuse(*_arguments):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwritev", refuse)
        with pytest.raises(DiskFullError) as caught:
            self.sink(partial, Part(0, 0, 1)).write(b"x")
        assert str(caught.value) == f"no space left on device: {partial.folder}"
