"""Threads for work that blocks: nothing is lost, nothing is waited for longer than said."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time

import pytest

from nim_core.transfer.workers import Batcher, Workers, available_cores, map_threads


def threads_named(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


@pytest.fixture
def gate():
    """Holds work until it is set; set when the test is over, so that no thread stays behind."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def failures():
    return queue.SimpleQueue()


def drained(items):
    found = []
    while not items.empty():
        found.append(items.get())
    return found


class TestWorkers:
    def test_work_is_done_in_order(self, failures):
        done = []
        workers = Workers("test-order", 1, failures.put)
        for number in range(100):
            workers.submit(lambda number=number: done.append(number))
        finished = threading.Event()
        workers.submit(finished.set)
        assert finished.wait(5)
        workers.stop(5)
        assert done == list(range(100))
        assert failures.empty()

    def test_as_many_at_once_as_there_are_threads(self, failures):
        together = threading.Barrier(4, timeout=5)
        workers = Workers("test-together", 4, failures.put)
        done = queue.SimpleQueue()
        for _ in range(4):
            workers.submit(lambda: done.put(together.wait()))
        assert sorted(done.get(timeout=5) for _ in range(4)) == [0, 1, 2, 3]
        workers.stop(5)

    def test_what_is_raised_is_handed_over_and_the_thread_goes_on(self, failures):
        errors = [ValueError("a"), KeyboardInterrupt(), SystemExit(3)]

        def fail(error):
            raise error

        workers = Workers("test-errors", 1, failures.put)
        for error in errors:
            workers.submit(lambda error=error: fail(error))
        done = threading.Event()
        workers.submit(done.set)
        assert done.wait(5)
        workers.stop(5)
        assert drained(failures) == errors

    def test_stop_begins_nothing_more(self, failures, gate):
        begun = threading.Event()
        later = []
        workers = Workers("test-stop", 1, failures.put)
        workers.submit(lambda: (begun.set(), gate.wait(10)))
        workers.submit(lambda: later.append(1))
        assert begun.wait(5)
        threading.Timer(0.1, gate.set).start()
        workers.stop(5)
        assert workers.stopping
        assert later == []
        assert threads_named("test-stop") == []

    def test_stop_waits_no_longer_than_said_in_all(self, failures, gate):
        workers = Workers("test-hang", 5, failures.put)
        begun = threading.Barrier(6, timeout=5)
        for _ in range(5):
            workers.submit(lambda: (begun.wait(), gate.wait(20)))
        begun.wait()
        started = time.monotonic()
        workers.stop(0.3)
        assert 0.25 < time.monotonic() - started < 1.0

    def test_the_interpreter_does_not_wait_for_them(self, failures):
        workers = Workers("test-daemons", 2, failures.put)
        assert [thread.daemon for thread in threads_named("test-daemons")] == [True, True]
        workers.stop(5)


class TestBatcher:
    def test_what_gathers_meanwhile_is_one_batch(self, failures, gate):
        batches, begun = [], threading.Event()

        def handle(batch):
            batches.append(batch)
            begun.set()
            gate.wait(10)

        batcher = Batcher("test-batch", 3, handle, failures.put)
        batcher.put(0)
        assert begun.wait(5)
        for number in range(1, 6):
            batcher.put(number)
        gate.set()
        wait_for(lambda: sum(map(len, batches)) == 6)
        batcher.stop(5)
        assert batches == [[0], [1, 2, 3], [4, 5]]

    def test_nothing_is_lost_or_doubled(self, failures):
        handled = []
        batcher = Batcher("test-all", 7, handled.extend, failures.put)
        threads = [
            threading.Thread(target=lambda start=start: [batcher.put(n) for n in range(start, 2000, 4)])
            for start in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: len(handled) >= 2000)
        batcher.stop(5)
        assert sorted(handled) == list(range(2000))

    def test_what_is_raised_is_handed_over_and_the_thread_goes_on(self, failures):
        handled, error = [], OSError("full")

        def handle(batch):
            if batch == ["bad"]:
                raise error
            handled.extend(batch)

        batcher = Batcher("test-batch-errors", 1, handle, failures.put)
        batcher.put("bad")
        batcher.put("good")
        wait_for(lambda: handled == ["good"])
        batcher.stop(5)
        assert drained(failures) == [error]

    def test_stop_begins_no_further_batch(self, failures, gate):
        batches, begun = [], threading.Event()

        def handle(batch):
            batches.append(batch)
            begun.set()
            gate.wait(10)

        batcher = Batcher("test-batch-stop", 1, handle, failures.put)
        batcher.put(0)
        assert begun.wait(5)
        batcher.put(1)
        threading.Timer(0.1, gate.set).start()
        batcher.stop(5)
        assert batches == [[0]]
        assert threads_named("test-batch-stop") == []

    def test_an_end_that_comes_together_with_items_is_an_end(self, failures, gate):
        """Items and the end gather while a batch is handled; the thread must not wait for more after them."""
        begun = threading.Event()

        def handle(_batch):
            begun.set()
            gate.wait(10)

        batcher = Batcher("test-batch-end", 100, handle, failures.put)
        batcher.put(0)
        assert begun.wait(5)
        batcher.put(1)
        batcher._items.put(None)
        gate.set()
        wait_for(lambda: threads_named("test-batch-end") == [])

    def test_stop_waits_no_longer_than_said(self, failures, gate):
        begun = threading.Event()
        batcher = Batcher("test-batch-hang", 1, lambda _batch: (begun.set(), gate.wait(20)), failures.put)
        batcher.put(0)
        assert begun.wait(5)
        started = time.monotonic()
        batcher.stop(0.3)
        assert 0.25 < time.monotonic() - started < 1.0


class TestMapThreads:
    def test_results_are_in_order(self):
        def slow(number):
            time.sleep(0.01 * (5 - number % 5))
            return number * 2

        assert map_threads("test-map", slow, range(20), 8) == [number * 2 for number in range(20)]

    def test_nothing_to_do(self):
        assert map_threads("test-map-nothing", str, [], 8) == []
        assert threads_named("test-map-nothing") == []

    def test_results_that_are_none_or_exceptions(self):
        results = [None, ValueError("a value"), 0]
        assert map_threads("test-map", lambda index: results[index], range(3), 2) == results

    def test_the_first_error_ends_it_without_waiting_for_the_rest(self, gate):
        error, begun = ValueError("bad"), []

        def work(number):
            begun.append(number)
            if number == 1:
                raise error
            gate.wait(20)

        started = time.monotonic()
        with pytest.raises(ValueError, match="bad") as caught:
            map_threads("test-map-error", work, range(10), 2)
        assert caught.value is error
        assert time.monotonic() - started < 1.0
        gate.set()
        wait_for(lambda: threads_named("test-map-error") == [])
        assert 1 in begun
        assert len(begun) < 10

    def test_an_interrupt_does_not_wait(self, gate):
        main = threading.main_thread()
        assert threading.current_thread() is main
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            map_threads("test-map-interrupt", lambda _number: gate.wait(20), range(4), 2)
        assert time.monotonic() - started < 1.2

    def test_no_more_threads_than_items(self):
        seen = set()
        together = threading.Barrier(2, timeout=5)

        def work(_number):
            together.wait()
            seen.add(threading.current_thread().ident)

        map_threads("test-map", work, range(2), 50)
        assert len(seen) == 2


def wait_for(claim):
    for _ in range(1000):
        if claim():
            return
        time.sleep(0.005)
    pytest.fail("it never happened")


class TestAvailableCores:
    @pytest.mark.parametrize("text", ["max 100000\n", "", "a b", "1 0", "100000000 100000"])
    def test_those_it_may_run_on(self, tmp_path, text):
        (tmp_path / "cpu.max").write_text(text)
        assert available_cores(tmp_path / "cpu.max") == len(os.sched_getaffinity(0))
        assert available_cores(tmp_path / "missing") == len(os.sched_getaffinity(0))

    @pytest.mark.parametrize("quota", [100000, 1000])
    def test_a_share(self, tmp_path, quota):
        (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
        assert available_cores(tmp_path / "cpu.max") == 1
