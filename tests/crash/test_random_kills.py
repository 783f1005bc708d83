"""
Downloads that are killed at random moments, and resumed until they are complete.

After each kill, whatever is visible is right. A download that completes has everything, leaves nothing else behind, and
has cost no more bytes than its kills may: on each connection what came after the last checkpoint.

``NIM_TEST_KILLS`` is how many SIGKILLs there are, beside a few of the signals that can be caught;
``NIM_TEST_KILL_SEED``, which is printed with the table of what it cost, repeats the draws of an earlier run.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.http_server import HttpOrigin, RequestLog
from tests.crash.commands import ALL, PART_BYTES
from tests.crash.killing import SECONDS, Killings
from tests.crash.metering import Meter
from tests.crash.results import SEED, record

KILLS = int(os.environ.get("NIM_TEST_KILLS", "200" if ALL else "20"))
MIB = 1 << 20
SMALL_FILES = {
    "config.json": inline('{"a": 1}\n'),
    "empty.txt": inline(b""),
    **{
        f"nested/{number % 5}/small-{number}.bin": PatternContent(length=number * 977, seed=number)
        for number in range(40)
    },
}
REAL = {
    "model-1.bin": PatternContent(length=70 * MIB + 1, seed=101),
    "model-2.bin": PatternContent(length=40 * MIB, seed=102),
    "nested/model-3.bin": PatternContent(length=33 * MIB - 7, seed=103),
    **SMALL_FILES,
}
CUT_SMALL = {
    **{f"model-{number}.bin": PatternContent(length=9 * PART_BYTES + number, seed=200 + number) for number in range(6)},
    **SMALL_FILES,
}


@pytest.fixture
def killings(installed, tmp_path):
    """Return a function that begins a series of downloads."""
    origins = []

    def begin(name, files, rate, **options):
        meter = Meter(files, rate)
        origin = HttpOrigin("shelf", meter, log=RequestLog())
        origins.append(origin.__enter__())
        series = Killings(
            name=name,
            meter=meter,
            url=origin.url,
            installed=installed,
            folder=tmp_path,
            chance=random.Random(f"{SEED} {name}"),
            **options,
        )
        series.measure()
        return series

    yield begin
    for origin in origins:
        origin.__exit__(None, None, None)


def kill_and_resume(series, kills):
    while series.sent[signal.SIGKILL] < kills:
        while not series.run():
            pass
        series.finish()


def several_at_once(series, kills, processes=3):
    while series.sent[signal.SIGKILL] < kills:
        running = [series.start() for _ in range(processes)]
        while all(process.poll() is None for process in running):
            series.meter.begin()
            time.sleep(series.chance.uniform(0, series.usual))
            victim = series.chance.randrange(processes)
            running[victim].kill()
            code = running[victim].wait(SECONDS)
            series.check_end(code, signal.SIGKILL)
            series.count(signal.SIGKILL if code else None)
            running[victim] = series.start()
        assert [process.wait(SECONDS) for process in running] == [0] * processes, series.said
        series.finish()


@pytest.mark.timeout(3600)
def test_one_process(killings):
    series = killings("one process, parts of 32 MiB", REAL, 24e6, connections=4)
    kill_and_resume(series, KILLS * 0.6)
    record(series)
    assert series.cost <= series.allowed


@pytest.mark.timeout(3600)
def test_one_process_with_many_parts(killings):
    series = killings("one process, parts of 1 MiB", CUT_SMALL, 6e6, connections=8, small=True)
    kill_and_resume(series, KILLS * 0.4)
    record(series)
    assert series.cost <= series.allowed


@pytest.mark.timeout(3600)
def test_one_of_several_that_want_the_same(killings):
    series = killings("one of three processes, parts of 32 MiB", REAL, 24e6, connections=4)
    several_at_once(series, KILLS / 10)
    record(series)
    assert series.cost <= series.allowed


def test_a_kill_within_a_part_costs_what_came_after_its_last_checkpoint(killings):
    series = killings(
        "in the middle of a part", {"model.bin": PatternContent(length=33 * MIB, seed=1)}, 16e6, connections=1
    )
    before = series.meter.served
    process = series.start()
    while process.poll() is None and series.meter.served < before + 24 * MIB:
        time.sleep(0.001)
    process.kill()
    assert process.wait(SECONDS) == -signal.SIGKILL, series.said
    series.count(signal.SIGKILL)
    assert series.start().wait(SECONDS) == 0, series.said
    series.finish()
    assert series.cost <= series.allowed < 12 * MIB
