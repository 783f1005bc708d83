"""The part of the writing level that is for sinks that write large objects in parts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import pytest
from attrs import evolve

from nim_core.errors import NimError, NotFoundError, RemoteChangedError
from nim_core.registry.guard import GuardedSink
from nim_core.testing.conformance.sink_bench import Bench, File
from nim_core.testing.conformance.suite import Suite, case
from nim_core.types import Digest, NewObject, Secret, Upload

__all__ = ["PartCases"]

_THREADS: Final = 4
_UNKNOWN: Final = Secret("nim-kit-no-such-upload")
_WRONG: Final = Digest("crc32c", "00000000")


class PartCases(Suite):
    """Tests for sinks that are a PartedSink; left out for others."""

    @pytest.fixture
    def file(self, bench: Bench, written: GuardedSink) -> File:
        """A file of several parts."""
        return bench.large(written)

    @case("writing")
    def test_an_object_in_parts(self, bench: Bench, written: GuardedSink, file: File) -> None:
        """It is readable when it is finished, and not before; parts in any order unless the upload is ordered."""
        new = file.new(bench.key("parts"))
        upload = _begun(written, new, file)
        numbers = list(range(1, file.count + 1)) if upload.ordered else list(range(file.count, 0, -1))
        parts = file.send(written, new, upload, *numbers[:-1])
        bench.check_absent(written, new.key, "though not all of its parts were sent")
        parts += file.send(written, new, upload, numbers[-1])
        for part in parts:
            assert part.size == file.part(part.number).body.size, f"put_part() tells a wrong size: {part}"
        written.finish(new, upload, sorted(parts, key=lambda part: part.number))
        bench.check_holds(written, new)

    @case("writing")
    def test_parts_sent_by_several_threads(self, bench: Bench, written: GuardedSink, file: File) -> None:
        """Core sends parts at once, unless the upload is ordered."""
        new = file.new(bench.key("threads"))
        upload = _begun(written, new, file)
        with ThreadPoolExecutor(1 if upload.ordered else _THREADS) as threads:
            sent = threads.map(lambda number: file.send(written, new, upload, number), range(1, file.count + 1))
            parts = [part for each in sent for part in each]
        written.finish(new, upload, parts)
        bench.check_holds(written, new)

    @case("writing")
    def test_another_process_goes_on(self, bench: Bench, written: GuardedSink, file: File) -> None:
        """What was sent is not sent again: the token is all that is left of the first process."""
        new = file.new(bench.key("resumed"))
        first = _begun(written, new, file)
        file.send(written, new, first, 1)
        sink = bench.open().sink
        again = sink.begin(new, first.token)
        assert [part.number for part in again.stored] == [1], (
            f"begin() with the token of an upload that has part 1 answers {list(again.stored)}; ask the service which "
            "parts it has, and say so in Upload.stored"
        )
        stored = again.stored[0]
        assert stored.size == file.part(1).body.size, f"the stored part has another size than was sent: {stored}"
        rest = file.send(sink, new, again, *range(2, file.count + 1))
        sink.finish(new, again, (file.known(again, stored), *rest))
        bench.check_holds(sink, new)

    @case("writing")
    def test_a_token_that_is_not_known(self, bench: Bench, written: GuardedSink, file: File) -> None:
        """Services forget uploads after some days, and tokens may be another program's: another upload begins."""
        new = file.new(bench.key("unknown"))
        upload = written.begin(new, _UNKNOWN)
        assert upload.token != _UNKNOWN, "begin() goes on with a token that the service does not know"
        assert upload.stored == (), f"a new upload has no parts: {upload.stored}"
        parts = file.send(written, new, upload, *range(1, file.count + 1))
        written.finish(new, upload, parts)
        bench.check_holds(written, new)

    @case("writing")
    def test_a_token_of_another_object(self, bench: Bench, written: GuardedSink, file: File) -> None:
        """What was sent for one key is no part of another's content."""
        one, other = file.new(bench.key("one")), file.new(bench.key("other"))
        first = _begun(written, one, file)
        file.send(written, one, first, 1)
        upload = written.begin(other, first.token)
        assert upload.token != first.token, (
            "begin() goes on with the upload of another key; keep in the token what it is for, and compare"
        )
        assert upload.stored == (), f"begin() tells of parts of another object: {upload.stored}"
        written.abort(other, upload)
        written.abort(one, first)

    @case("writing")
    def test_what_is_dropped_is_gone(self, bench: Bench, written: GuardedSink, file: File) -> None:
        """Nothing is readable, nothing goes on, and dropping again is no error."""
        new = file.new(bench.key("dropped"))
        upload = _begun(written, new, file)
        file.send(written, new, upload, 1)
        written.abort(new, upload)
        written.abort(new, upload)
        bench.check_absent(written, new.key, "though its upload was dropped")
        again = bench.open().sink.begin(new, upload.token)
        assert again.stored == (), f"abort() left parts, which begin() found: {again.stored}"

    @case("writing")
    def test_a_part_sent_twice(self, bench: Bench, written: GuardedSink, file: File) -> None:
        """When the answer to a part is lost, core sends it again."""
        new = file.new(bench.key("twice"))
        upload = _begun(written, new, file)
        file.send(written, new, upload, 1)
        parts = file.send(written, new, upload, *range(1, file.count + 1))
        written.finish(new, upload, parts)
        bench.check_holds(written, new)

    @case("writing")
    def test_a_damaged_part_is_found_out(self, bench: Bench, written: GuardedSink, file: File) -> None:
        """A part arrives as something else: the service refuses it, or ``finish`` sees that the whole is wrong."""
        new = evolve(file.new(bench.key("damaged")), digests=_other(file.hashed.digests))
        upload = _begun(written, new, file)
        rule = "a part's bytes are not those of Part.crc32c and NewObject.digests; send the checksum along, or compare"
        with bench.refused(NimError, rule=rule):
            sent = [
                written.put_part(new, upload, evolve(file.part(number), crc32c=_WRONG))
                for number in range(1, file.count + 1)
            ]
            written.finish(new, upload, [evolve(part, digests=(_WRONG,)) for part in sent])
        bench.check_absent(written, new.key, "whose content is not what its digests say; delete it")

    @case("writing")
    def test_nothing_is_made_of_some_of_the_parts(self, bench: Bench, written: GuardedSink, file: File) -> None:
        """A shorter object would be taken for the model."""
        new = file.new(bench.key("incomplete"))
        upload = _begun(written, new, file)
        parts = file.send(written, new, upload, *range(1, file.count))
        rule = "finish() got fewer bytes than NewObject.size; compare the sizes of the parts before making the object"
        with bench.refused(NimError, rule=rule):
            written.finish(new, upload, parts)
        bench.check_absent(written, new.key, "though one of its parts was never sent")

    @case("writing")
    def test_finishing_twice(self, bench: Bench, written: GuardedSink, file: File) -> None:
        """When the answer to the last request is lost, the object is there and the upload is not."""
        new = file.new(bench.key("finished"))
        upload = _begun(written, new, file)
        parts = file.send(written, new, upload, *range(1, file.count + 1))
        written.finish(new, upload, parts)
        with suppress(NotFoundError, RemoteChangedError):
            written.finish(new, upload, parts)
        bench.check_holds(written, new)

    @case("writing")
    def test_parts_do_not_replace_what_somebody_else_wrote(
        self, bench: Bench, written: GuardedSink, file: File
    ) -> None:
        """The key was empty when the upload began, and is taken when it ends."""
        new = file.new(bench.key("overtaken"))
        upload = _begun(written, new, file)
        other = bench.put(bench.open().sink, new.key, b"another mirror's")
        rule = "the key holds something, and `new.replaces` is None; make the object on the same condition as put()"
        with bench.refused(RemoteChangedError, rule=rule):
            parts = file.send(written, new, upload, *range(1, file.count + 1))
            written.finish(new, upload, parts)
        bench.check_reads(other)


def _begun(sink: GuardedSink, new: NewObject, file: File) -> Upload:
    """Begin an upload of which nothing is stored."""
    upload = sink.begin(new, None)
    assert upload.part_bytes == file.part_bytes, (
        f"begin() says parts of {upload.part_bytes} bytes, part_bytes({new.size}) says {file.part_bytes}"
    )
    assert upload.stored == (), f"a new upload has no parts: {upload.stored}"
    return upload


def _other(digests: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """Return digests of some other content."""
    return tuple(Digest(it.algorithm, "0" * len(it.value)) for it in digests)
