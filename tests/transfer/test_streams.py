"""Bytes that do not come over HTTP, and whose fault it is when they do not come."""

from __future__ import annotations

import errno
import io
import os

import pytest

from nim_core.errors import CacheError, PermissionDeniedError, PluginError, TransientError
from nim_core.testing.corpus import PatternContent
from nim_core.transfer.jobs import FileTask, Job, Part
from nim_core.transfer.routes import Route
from nim_core.transfer.sinks import MemorySink
from nim_core.transfer.streams import copy_stream, digest_file
from nim_core.types import Digest, ModelUri, RemoteFile, StreamObject

SIZE = (2 << 20) + 17
CONTENT = PatternContent(length=SIZE)


class Stream(io.BytesIO):
    """
    A plugin's stream.

    Args:
        data: What it has.
        breaks: Raised by the read that comes after the first.
        breaks_in_close: Raised by ``close``.
    """

    def __init__(self, data, *, breaks=None, breaks_in_close=None):
        super().__init__(data)
        self.reads = []
        self._breaks = breaks
        self._breaks_in_close = breaks_in_close

    def read(self, size=-1):
        self.reads.append(size)
        if self._breaks is not None and len(self.reads) > 1:
            raise self._breaks
        return super().read(size)

    def close(self):
        breaks, self._breaks_in_close = self._breaks_in_close, None
        super().close()
        if breaks is not None:
            raise breaks


class RefusingSink(MemorySink):
    """A sink on a full disk."""

    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


def make_sink(size=SIZE, kind=MemorySink):
    job = Job(
        id="f",
        identity=ModelUri(scheme="test", location="repo", file="f"),
        file=RemoteFile(path="f", size=size),
        locate=lambda: StreamObject(open=io.BytesIO),
    )
    task = FileTask(job, size)
    task.route = Route(host="stream")
    part = Part(0, 0, size)
    task.parts = [part]
    return kind(task, part)


def copy(stream, sink, stopped=lambda: False):
    return copy_stream(StreamObject(open=lambda: stream), sink, stopped)


class TestCopying:
    @pytest.mark.parametrize("size", [0, 1, 1 << 20, SIZE])
    def test_all_bytes_in_bounded_pieces(self, size):
        stream, sink = Stream(CONTENT.read(0, size)), make_sink(size)
        ended = copy(stream, sink)
        assert bytes(sink.data) == CONTENT.read(0, size)
        assert sink.part.complete
        assert (ended.error, ended.accepted, ended.code, ended.response.status) == (None, True, 0, 200)
        assert set(stream.reads) == {1 << 20}
        assert stream.closed

    def test_unknown_size(self):
        sink = make_sink(None)
        copy(Stream(b"abc"), sink)
        assert (bytes(sink.data), sink.part.done, sink.part.complete) == (b"abc", 3, False)

    def test_more_than_was_listed(self):
        sink = make_sink(5)
        stream = Stream(b"abcdef")
        ended = copy(stream, sink)
        assert type(ended.error) is TransientError
        assert bytes(sink.data) == b""
        assert stream.closed

    def test_stopped_before_the_first_byte(self):
        sink = make_sink()
        stream = Stream(CONTENT.data())
        ended = copy(stream, sink, stopped=lambda: True)
        assert type(ended.error) is InterruptedError
        assert sink.received == 0
        assert stream.closed

    def test_what_comes_after_a_stop_is_not_written(self):
        """While the source did not answer, the sink's file may have been closed, and its number be another's."""
        sink, stops = make_sink(), iter([False, True])
        ended = copy(Stream(CONTENT.data()), sink, stopped=lambda: next(stops))
        assert type(ended.error) is InterruptedError
        assert sink.received == 1 << 20


class TestFailures:
    @pytest.mark.parametrize(
        ("raised", "kind", "text"),
        [
            (ConnectionResetError(104, "Connection reset by peer"), TransientError, "Connection reset by peer"),
            (TimeoutError("timed out"), TransientError, "stream broke: TimeoutError"),
            (OSError(errno.ENOSPC, "No space left on device"), TransientError, "stream broke"),
            (ValueError("token=abc"), PluginError, "stream failed: ValueError"),
            (RuntimeError(), PluginError, "stream failed: RuntimeError"),
        ],
    )
    def test_what_a_stream_raises_is_its_source_s_failure(self, raised, kind, text):
        stream = Stream(CONTENT.data(), breaks=raised)
        error = copy(stream, make_sink()).error
        assert type(error) is kind
        assert text in str(error)
        assert "token" not in str(error)
        assert error.__cause__ is raised
        assert stream.closed

    def test_errors_of_the_contract_are_passed_on(self):
        error = PermissionDeniedError("gated")
        assert copy(Stream(CONTENT.data(), breaks=error), make_sink()).error is error

    def test_an_open_that_fails(self):
        def refuse():
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

        ended = copy_stream(StreamObject(open=refuse), make_sink(), lambda: False)
        assert type(ended.error) is TransientError

    def test_a_close_that_fails(self):
        sink = make_sink()
        ended = copy(Stream(CONTENT.data(), breaks_in_close=OSError(errno.EIO, "Input/output error")), sink)
        assert type(ended.error) is TransientError
        assert sink.part.complete

    def test_an_interrupt_is_handed_over_too(self):
        error = KeyboardInterrupt()
        assert copy(Stream(CONTENT.data(), breaks=error), make_sink()).error is error

    def test_storage_s_own_failure_stays_one(self):
        stream = Stream(CONTENT.data())
        error = copy(stream, make_sink(kind=RefusingSink)).error
        assert (type(error), error.errno) == (OSError, errno.ENOSPC)
        assert not isinstance(error, CacheError)
        assert stream.closed


class TestDigestOfAFile:
    @pytest.mark.parametrize("size", [0, 1, 1 << 20, SIZE])
    def test_size_and_digests(self, tmp_path, size):
        content = PatternContent(length=size)
        path = tmp_path / "f"
        path.write_bytes(content.data())
        expected = (content.digest("sha1-git"), content.digest("crc32c"))
        found = digest_file(path, expected, lambda: False)
        assert found == (size, (content.digest("blake3"), *expected))

    def test_nothing_expected(self, tmp_path):
        path = tmp_path / "f"
        path.write_bytes(b"abc")
        _, digests = digest_file(path, (), lambda: False)
        assert [digest.algorithm for digest in digests] == ["blake3"]

    def test_a_link_is_followed(self, tmp_path):
        (tmp_path / "f").write_bytes(b"abc")
        (tmp_path / "link").symlink_to("f")
        expected = (Digest("md5", "900150983cd24fb0d6963f7d28e17f72"),)
        assert digest_file(tmp_path / "link", expected, lambda: False)[1][1:] == expected

    def test_interrupted(self, tmp_path):
        path = tmp_path / "f"
        path.write_bytes(b"abc")
        with pytest.raises(InterruptedError):
            digest_file(path, (), lambda: True)

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            digest_file(tmp_path / "none", (), lambda: False)

    def test_no_handle_is_left(self, tmp_path):
        path = tmp_path / "f"
        path.write_bytes(b"abc")
        first = os.open(path, os.O_RDONLY)
        os.close(first)
        for _ in range(3):
            digest_file(path, (), lambda: False)
        with pytest.raises(InterruptedError):
            digest_file(path, (), lambda: True)
        last = os.open(path, os.O_RDONLY)
        os.close(last)
        assert first == last
