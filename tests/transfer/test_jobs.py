"""How a file is cut into parts, and which part is next."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nim_core.errors import DigestMismatchError, SizeMismatchError
from nim_core.transfer.jobs import MAX_PART_BYTES, SMALL_BYTES, FileTask, Job, Part, cut, part_size
from nim_core.transfer.journal import PartRecord, open_partial
from nim_core.transfer.routes import Route
from nim_core.types import Digest, HttpObject, ModelUri, RemoteFile

MIB = 1 << 20
MIN_PART_BYTES = 32 * MIB
FAR = 1 << 60

unhurried = settings(deadline=None)
sizes = st.one_of(
    st.integers(0, 1 << 43),
    st.builds(lambda parts, off: max(0, parts * MIB + off), st.integers(0, 1 << 22), st.integers(-2, 2)),
)


def make_task(size, *, digests=(), listed=None):
    file = RemoteFile(path="a/f", size=size if listed is None else listed, digests=digests)
    job = Job(
        id="f",
        identity=ModelUri(scheme="test", location="repo", file="a/f"),
        file=file,
        locate=lambda: HttpObject(url="http://127.0.0.1/f"),
    )
    return FileTask(job, size)


@pytest.fixture
def partial(tmp_path):
    partial = open_partial(tmp_path, "f")
    yield partial
    partial.close()


class TestCut:
    @unhurried
    @given(sizes)
    def test_parts_tile_the_file(self, size):
        step = part_size(size)
        position = 0
        for number, part in enumerate(cut(size, single=False)):
            assert (part.number, part.offset) == (number, position)
            assert part.length == step or (0 < part.length < step and position + part.length == size)
            assert part.last == part.offset + part.length - 1
            position += part.length
        assert position == size

    @unhurried
    @given(sizes)
    def test_sizes_of_parts_are_whole_mebibytes_within_bounds(self, size):
        assert MIN_PART_BYTES <= part_size(size) <= MAX_PART_BYTES
        assert part_size(size) % MIB == 0

    @unhurried
    @given(sizes, sizes)
    def test_larger_files_never_have_smaller_parts(self, one, other):
        small, large = sorted((one, other))
        assert part_size(small) <= part_size(large)

    @pytest.mark.parametrize("size", [0, 1, MIN_PART_BYTES, 1 << 40, None])
    def test_a_single_stream_is_one_part(self, size):
        (part,) = cut(size, single=True)
        assert (part.number, part.offset, part.length) == (0, 0, size)

    def test_an_unknown_size_is_one_part_that_is_never_complete(self):
        (part,) = cut(None, single=False)
        part.done = 1 << 40
        assert (part.length, part.last, part.complete) == (None, None, False)

    def test_an_empty_file_has_no_part(self):
        assert cut(0, single=False) == []

    def test_an_empty_stream_is_complete_at_once(self):
        (part,) = cut(0, single=True)
        assert part.complete

    @pytest.mark.parametrize(
        ("size", "lengths"),
        [
            (1, [1]),
            (MIN_PART_BYTES, [MIN_PART_BYTES]),
            (MIN_PART_BYTES + 1, [MIN_PART_BYTES, 1]),
            (2 * MIN_PART_BYTES - 1, [MIN_PART_BYTES, MIN_PART_BYTES - 1]),
        ],
    )
    def test_edges(self, size, lengths):
        assert [part.length for part in cut(size, single=False)] == lengths


class TestPart:
    def test_reset_forgets_everything_about_its_bytes(self):
        part = Part(3, 100, 10, done=10, crc=7, claimed=9)
        part.reset()
        assert (part.done, part.crc, part.claimed, part.complete) == (0, 0, None, False)
        assert (part.number, part.offset, part.length) == (3, 100, 10)


class TestNextPart:
    def task(self, *lengths):
        task = make_task(sum(lengths))
        offset = 0
        for number, length in enumerate(lengths):
            task.parts.append(Part(number, offset, length))
            offset += length
        return task

    def test_parts_come_in_order(self):
        task = self.task(10, 10, 10)
        order = []
        while (part := task.next_part(0.0, FAR)) is not None:
            part.in_flight = True
            order.append(part.number)
        assert order == [0, 1, 2]

    def test_complete_parts_are_passed_over(self):
        task = self.task(10, 10, 10)
        task.parts[0].done = task.parts[1].done = 10
        assert task.next_part(0.0, FAR) is task.parts[2]
        assert task.cursor == 2

    def test_nothing_is_left(self):
        task = self.task(10, 10)
        for part in task.parts:
            part.done = 10
        assert task.next_part(0.0, FAR) is None
        assert task.complete

    def test_a_part_that_has_to_wait_does_not_keep_the_others(self):
        task = self.task(10, 10)
        task.parts[0].not_before = 5.0
        assert task.next_part(4.9, FAR) is task.parts[1]
        assert task.next_part(5.0, FAR) is task.parts[0]

    def test_parts_beyond_the_window_wait(self):
        task = self.task(10, 10, 10)
        task.parts[0].in_flight = True
        assert task.next_part(0.0, 9) is None
        assert task.next_part(0.0, 10) is task.parts[1]

    def test_a_damaged_part_behind_the_cursor_is_found_when_the_cursor_goes_back(self):
        task = self.task(10, 10)
        for part in task.parts:
            part.done = 10
        assert task.next_part(0.0, FAR) is None
        task.parts[0].reset()
        task.cursor = 0
        assert task.next_part(0.0, FAR) is task.parts[0]

    @given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=8))
    def test_only_parts_that_can_be_asked_for(self, states):
        task = self.task(*(10 for _ in states))
        for part, (complete, in_flight, early) in zip(task.parts, states, strict=True):
            part.done, part.in_flight, part.not_before = 10 * complete, in_flight, 9.0 * early
        candidates = [number for number, state in enumerate(states) if not any(state)]
        found = task.next_part(1.0, FAR)
        assert (found.number if found else None) == next(iter(candidates), None)


class TestFileTask:
    @pytest.mark.parametrize(
        ("size", "small"), [(0, True), (SMALL_BYTES, True), (SMALL_BYTES + 1, False), (None, False)]
    )
    def test_small_files_are_those_of_known_size(self, size, small):
        assert make_task(size).small is small

    def test_adopting_a_partial(self, partial):
        task = make_task(3 * MIN_PART_BYTES)
        task.partial = partial
        partial.begin(task.record())
        partial.finish_part(PartRecord(number=0, crc=11))
        partial.finish_part(PartRecord(number=2, crc=22))
        partial.finish_part(PartRecord(number=7, crc=33))
        task.adopt()
        assert [part.claimed for part in task.parts] == [MIN_PART_BYTES, None, MIN_PART_BYTES]
        assert [part.crc for part in task.parts] == [11, 0, 22]
        assert [part.complete for part in task.parts] == [True, False, True]
        assert task.received == 2 * MIN_PART_BYTES

    def test_adopting_a_part_that_is_not_finished(self, partial):
        task = make_task(2 * MIN_PART_BYTES)
        task.partial = partial
        partial.begin(task.record())
        partial.finish_part(PartRecord(number=0, crc=11, done=1000))
        partial.finish_part(PartRecord(number=1, crc=22, done=MIN_PART_BYTES + 1))
        task.adopt()
        assert [(part.done, part.crc, part.complete) for part in task.parts] == [
            (1000, 11, False),
            (MIN_PART_BYTES, 22, True),
        ]

    def test_a_single_stream_adopts_nothing(self, partial):
        task = make_task(MIN_PART_BYTES)
        task.partial, task.single = partial, True
        partial.begin(task.record())
        partial.finish_part(PartRecord(number=0, crc=11))
        task.adopt()
        assert [(part.done, part.claimed) for part in task.parts] == [(0, None)]

    def test_forgetting_forgets_the_journal_too(self, partial, tmp_path):
        task = make_task(2 * MIN_PART_BYTES)
        task.partial = partial
        partial.begin(task.record())
        partial.finish_part(PartRecord(number=0, crc=11))
        task.cursor, task.stale = 1, True
        task.forget()
        assert (task.parts, task.cursor, task.stale) == ([], 0, False)
        partial.close()
        again = open_partial(tmp_path, "f")
        again.begin(task.record())
        assert again.finished == {}
        again.close()

    def test_a_single_stream_leaves_no_claim(self, partial):
        task = make_task(MIN_PART_BYTES)
        task.partial, task.single = partial, True
        partial.begin(task.record())
        task.adopt()
        task.finish_part(task.parts[0])
        assert partial.finished == {}

    def test_what_a_partial_is_a_partial_of(self):
        digest = Digest("md5", "0" * 32)
        task = make_task(100 * MIB, digests=(digest,))
        task.validator = '"v"'
        record = task.record()
        assert (record.size, record.part_size) == (100 * MIB, part_size(100 * MIB))
        assert (record.validator, record.digests) == ('"v"', (f"md5:{'0' * 32}",))


class TestMismatch:
    RIGHT = Digest("sha256", "1" * 64)
    WRONG = Digest("sha256", "2" * 64)
    CONTENT = Digest("blake3", "3" * 64)

    def test_nothing_promised(self):
        assert make_task(5).mismatch((self.CONTENT,), verify=True) is None

    def test_what_was_promised(self):
        assert make_task(5, digests=(self.RIGHT,)).mismatch((self.CONTENT, self.RIGHT), verify=True) is None

    def test_another_content(self):
        task = make_task(5, digests=(self.RIGHT,))
        task.route = Route(host="example.com")
        error = task.mismatch((self.CONTENT, self.WRONG), verify=True)
        assert type(error) is DigestMismatchError
        assert (
            str(error)
            == f"wrong content of test://repo?file=a/f from example.com: got {self.WRONG}, expected {self.RIGHT}"
        )

    def test_digests_that_do_not_count(self):
        assert make_task(5, digests=(self.RIGHT,)).mismatch((self.WRONG,), verify=False) is None

    def test_the_size_always_counts(self):
        error = make_task(5, listed=6).mismatch((), verify=False)
        assert type(error) is SizeMismatchError
        assert str(error) == "wrong size of test://repo?file=a/f: 5, listed as 6"
