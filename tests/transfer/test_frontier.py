"""The digest that follows: right whatever order bytes come in, and whatever an earlier process claims to have."""

from __future__ import annotations

import os
import queue
import random
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nim_core.errors import CacheError
from nim_core.testing.corpus import PatternContent, with_flipped_byte
from nim_core.transfer.digests import crc32c
from nim_core.transfer.frontier import Frontier, HashPool
from nim_core.transfer.jobs import FileTask, Job, Part
from nim_core.transfer.journal import open_partial
from nim_core.types import HttpObject, ModelUri, RemoteFile

MIB = 1 << 20

unhurried = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


class File:
    """
    A file of which a test says which bytes have come.

    Args:
        folder: Where its partial is.
        lengths: Of its parts.
        known: Whether its size is known from the beginning.
    """

    def __init__(self, folder, lengths, *, known=True):
        size = sum(lengths)
        self.content = PatternContent(length=size, seed=size % 89)
        self.expected = (self.content.digest("blake3"), self.content.digest("sha256"))
        self.partial = open_partial(folder, "f")
        job = Job(
            id="f",
            identity=ModelUri(scheme="test", location="repo", file="f"),
            file=RemoteFile(path="f", size=size, digests=self.expected[1:]),
            locate=lambda: HttpObject(url="http://127.0.0.1/f"),
        )
        self.task = FileTask(job, size if known else None)
        self.task.partial = self.partial
        self.task.parts = [
            Part(number, sum(lengths[:number]), length if known else None) for number, length in enumerate(lengths)
        ]
        self.damaged = []
        self.finished = queue.SimpleQueue()
        self.frontier = None

    def follow(self):
        self.frontier = Frontier(self.task, damaged=self.damaged.append, finished=self.finished.put)
        return self.frontier

    def receive(self, number, count=None):
        """Have the next ``count`` bytes of a part come, or all that are missing."""
        part = self.task.parts[number]
        stop = part.length if count is None else part.done + count
        os.pwrite(self.partial.data, self.bytes_of(part, part.done, stop), part.offset + part.done)
        part.done = stop

    def claim(self, number, *, damaged=False):
        """Have an earlier process claim a part, whose bytes are on disk, or were."""
        part = self.task.parts[number]
        content = with_flipped_byte(self.content, part.offset + part.length // 2) if damaged else self.content
        os.pwrite(self.partial.data, content.read(part.offset, part.offset + part.length), part.offset)
        part.done = part.claimed = part.length
        part.crc = crc32c(self.bytes_of(part, 0, part.length))

    def bytes_of(self, part, start, stop):
        return self.content.read(part.offset + start, part.offset + stop)

    def advance(self, size=MIB):
        self.frontier.advance(memoryview(bytearray(size)), lambda: False)

    def digests(self):
        """Return what was reported as the digests; each must have been reported once."""
        found = self.finished.get_nowait()
        assert self.finished.empty()
        return found


@pytest.fixture
def make(tmp_path):
    files = []

    def make_file(*lengths, known=True):
        files.append(File(tmp_path, lengths, known=known))
        return files[-1]

    yield make_file
    for file in files:
        file.partial.discard()


@pytest.fixture
def failures():
    return queue.SimpleQueue()


@pytest.fixture
def pool(failures):
    pool = HashPool(2, failures.put)
    yield pool
    pool.stop(5)
    assert failures.empty()


lengths_of_parts = st.lists(st.integers(1, 5000), min_size=1, max_size=8)


class TestOrder:
    @unhurried
    @given(lengths=lengths_of_parts, order=st.randoms(use_true_random=False), buffer=st.integers(100, 6000))
    def test_parts_in_any_order(self, make, lengths, order, buffer):
        file = make(*lengths)
        file.follow()
        for number in order.sample(range(len(lengths)), len(lengths)):
            file.advance(buffer)
            assert file.finished.empty()
            file.receive(number)
        file.advance(buffer)
        assert file.digests() == file.expected
        assert file.frontier.position == file.content.size

    @unhurried
    @given(lengths=lengths_of_parts, order=st.randoms(use_true_random=False))
    def test_bytes_in_any_pieces(self, make, lengths, order):
        file = make(*lengths)
        file.follow()
        while open_parts := [part for part in file.task.parts if not part.complete]:
            part = order.choice(open_parts)
            file.receive(part.number, order.randint(1, part.length - part.done))
            file.advance(700)
        assert file.digests() == file.expected

    @pytest.mark.parametrize("lengths", [(1,), (MIB,), (MIB, MIB), (3 * MIB + 1, 1, MIB - 1), (5 * MIB, 2 * MIB)])
    def test_around_a_mebibyte(self, make, lengths):
        file = make(*lengths)
        file.follow()
        for number in reversed(range(len(lengths))):
            file.advance(2 * MIB)
            file.receive(number)
        file.advance(2 * MIB)
        assert file.digests() == file.expected

    def test_no_part_at_all(self, make):
        file = make()
        file.follow()
        assert file.frontier.waiting()
        file.advance()
        assert file.digests() == file.expected

    def test_few_bytes_of_an_incomplete_part_are_not_worth_a_turn(self, make):
        file = make(3 * MIB, 10)
        file.follow()
        file.receive(0, MIB - 1)
        assert not file.frontier.waiting()
        file.advance()
        assert file.frontier.position == 0
        file.receive(0, 1)
        assert file.frontier.waiting()
        file.advance()
        assert file.frontier.position == MIB

    def test_bytes_beyond_a_gap_wait(self, make):
        file = make(10, MIB)
        file.follow()
        file.receive(1)
        assert not file.frontier.waiting()
        file.receive(0)
        assert file.frontier.waiting()


class TestClaims:
    @pytest.mark.parametrize("damaged", [(), (0,), (2,), (4,), (0, 1), (0, 4), (1, 2, 3), (0, 1, 2, 3, 4)])
    def test_damaged_parts_are_found_and_the_others_kept(self, make, damaged):
        file = make(300, 4000, 1, 2000, 777)
        for number in range(5):
            file.claim(number, damaged=number in damaged)
        file.follow()
        file.advance(512)
        while file.damaged and not file.damaged[-1].complete:
            file.receive(file.damaged[-1].number)
            file.advance(512)
        assert [part.number for part in file.damaged] == list(damaged)
        assert file.digests() == file.expected
        assert [part.claimed for part in file.task.parts] == [None] * 5

    @unhurried
    @given(
        states=st.lists(
            st.tuples(st.integers(1, 4000), st.sampled_from(["absent", "good", "damaged"])), min_size=1, max_size=8
        ),
        order=st.randoms(use_true_random=False),
        buffer=st.integers(100, 5000),
    )
    def test_any_mixture(self, make, states, order, buffer):
        file = make(*(length for length, _ in states))
        for number, (_, state) in enumerate(states):
            if state != "absent":
                file.claim(number, damaged=state == "damaged")
        file.follow()
        file.advance(buffer)
        while missing := [part for part in file.task.parts if not part.complete]:
            part = order.choice(missing)
            file.receive(part.number, order.randint(1, part.length - part.done))
            file.advance(buffer)
        assert [part.number for part in file.damaged] == [
            n for n, (_, state) in enumerate(states) if state == "damaged"
        ]
        assert file.digests() == file.expected

    def test_a_damaged_part_is_forgotten_before_it_is_told(self, make):
        file = make(100, 100)
        file.claim(0, damaged=True)
        seen = []
        frontier = Frontier(
            file.task,
            damaged=lambda part: seen.append((part.number, part.done, part.crc, part.claimed)),
            finished=file.finished.put,
        )
        frontier.advance(memoryview(bytearray(64)), lambda: False)
        assert seen == [(0, 0, 0, None)]
        assert frontier.position == 0

    def test_a_claim_of_zeros_that_were_never_written(self, make):
        """The journal reached the disk before the power went, the data did not."""
        file = make(100, 5000, 100)
        for number in range(3):
            file.claim(number)
        os.pwrite(file.partial.data, bytes(5000), 100)
        file.follow()
        file.advance()
        assert [part.number for part in file.damaged] == [1]
        file.receive(1)
        file.advance()
        assert file.digests() == file.expected


class TestRaces:
    @pytest.mark.parametrize("claimed", [False, True])
    def test_a_part_that_becomes_complete_while_it_is_read(self, make, monkeypatch, claimed):
        """What has come meanwhile belongs to this part, not to the next one and not to nobody."""
        file = make(2 * MIB, 1000)
        if claimed:
            file.claim(1)
        file.follow()
        file.receive(0, MIB)
        preadv = os.preadv

        def read_and_complete(handle, buffers, offset):
            count = preadv(handle, buffers, offset)
            for part in file.task.parts:
                if not part.complete:
                    file.receive(part.number)
            return count

        with monkeypatch.context() as patched:
            patched.setattr(os, "preadv", read_and_complete)
            file.advance()
        assert file.damaged == []
        assert file.digests() == file.expected

    def test_short_reads(self, make, monkeypatch):
        file = make(5000, 3000)
        file.claim(1)
        file.follow()
        file.receive(0)
        preadv = os.preadv
        monkeypatch.setattr(os, "preadv", lambda handle, buffers, offset: preadv(handle, [buffers[0][:7]], offset))
        file.advance()
        assert file.damaged == []
        assert file.digests() == file.expected

    @pytest.mark.parametrize("seed", range(6))
    def test_threads_that_write_while_threads_read(self, make, pool, seed):
        order = random.Random(seed)
        lengths = [order.randint(1, 3 * MIB) for _ in range(8)]
        file = make(*lengths)
        for number in order.sample(range(8), 3):
            file.claim(number, damaged=order.random() < 0.5)
        frontier = file.follow()
        absent = [part for part in file.task.parts if part.claimed is None]
        writers = [
            threading.Thread(target=fetch_in_pieces, args=(file, absent[start::2], pool, frontier)) for start in (0, 1)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        wait_for(lambda: fetch_damaged(file, pool, frontier))
        assert file.digests() == file.expected


class TestUnknownSize:
    def test_the_end_is_told_when_the_size_is(self, make):
        file = make(5000, known=False)
        file.follow()
        file.receive(0, 5000)
        file.advance()
        assert file.finished.empty()
        file.task.parts[0].length = 5000
        file.advance()
        assert file.digests() == file.expected

    def test_the_end_is_told_although_all_bytes_have_been_read_before(self, make, pool):
        """As when the last bytes have long come and the end of the answer takes its time."""
        file = make(2 * MIB, known=False)
        frontier = file.follow()
        file.receive(0, 2 * MIB)
        pool.poke(frontier)
        wait_for(lambda: frontier.position == 2 * MIB and not frontier.scheduled)
        assert file.finished.empty()
        file.task.parts[0].length = 2 * MIB
        pool.poke(frontier)
        assert file.finished.get(timeout=5) == file.expected

    def test_nothing_at_all(self, make, pool):
        file = make(0, known=False)
        frontier = file.follow()
        pool.poke(frontier)
        file.task.parts[0].length = 0
        pool.poke(frontier)
        assert file.finished.get(timeout=5) == file.expected


class TestEnds:
    def test_an_abandoned_frontier_says_nothing(self, make):
        file = make(100, 100)
        file.claim(0, damaged=True)
        frontier = file.follow()
        frontier.abandoned = True
        assert not frontier.waiting()
        file.advance()
        assert (frontier.position, file.damaged) == (0, [])
        assert file.finished.empty()

    def test_a_frontier_that_is_abandoned_while_it_reads_says_nothing(self, make, monkeypatch):
        file = make(100)
        file.claim(0, damaged=True)
        frontier = file.follow()
        preadv = os.preadv

        def read_and_abandon(*arguments):
            frontier.abandoned = True
            return preadv(*arguments)

        monkeypatch.setattr(os, "preadv", read_and_abandon)
        file.advance()
        assert file.damaged == []
        assert file.finished.empty()

    def test_the_end_is_told_once(self, make, pool):
        file = make(100)
        frontier = file.follow()
        file.receive(0)
        for _ in range(20):
            pool.poke(frontier)
        assert file.finished.get(timeout=5) == file.expected
        wait_for(lambda: not frontier.scheduled)
        for _ in range(20):
            pool.poke(frontier)
        pool.stop(5)
        assert file.finished.empty()

    def test_stopped(self, make):
        file = make(100)
        frontier = file.follow()
        file.receive(0)
        frontier.advance(memoryview(bytearray(10)), lambda: True)
        assert frontier.position == 0

    def test_a_partial_cut_short_by_somebody_else(self, make, failures):
        pool = HashPool(1, failures.put)
        file = make(100)
        frontier = file.follow()
        file.receive(0)
        os.ftruncate(file.partial.data, 40)
        pool.poke(frontier)
        error = failures.get(timeout=5)
        assert type(error) is CacheError
        assert str(error) == f"partial was cut short by another program: {file.partial.path}"
        pool.stop(5)

    def test_other_work_is_done_too(self, pool):
        done = queue.SimpleQueue()
        pool.submit(lambda: done.put(threading.current_thread().name))
        assert done.get(timeout=5) == "nim-hash"


def fetch_in_pieces(file, parts, pool, frontier):
    for part in parts:
        while not part.complete:
            file.receive(part.number, min(300_000, part.length - part.done))
            pool.poke(frontier)


def fetch_damaged(file, pool, frontier):
    """Fetch parts that were found damaged; say whether the digest has been told."""
    for part in [part for part in file.damaged if not part.complete]:
        file.receive(part.number)
    pool.poke(frontier)
    return not file.finished.empty()


def wait_for(claim):
    for _ in range(1000):
        if claim():
            return
        time.sleep(0.005)
    pytest.fail("it never happened")
