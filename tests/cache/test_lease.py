"""Leases among real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from nim_core.cache.layout import Layout
from nim_core.cache.lease import Holder, lease

HOLD = """
import sys, time
from pathlib import Path
from nim_core.cache.layout import Layout
from nim_core.cache.lease import lease
with lease(Layout(Path(sys.argv[1])), sys.argv[2:], print) as held:
    held.report(42, 100)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "cache")


@pytest.fixture
def other(layout):
    """A process that holds the lease of ``a`` and ``b``."""
    command = [sys.executable, "-c", HOLD, str(layout.path), "b", "a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_nobody_waits_for_nobody(layout):
    with lease(layout, ["a"], pytest.fail) as held:
        assert not held.waited
    assert list(layout.partials.iterdir()) == []


def test_another_target_does_not_wait(layout, other):
    with lease(layout, ["c"], pytest.fail) as held:
        assert not held.waited


def test_who_waits_sees_whom_for_and_takes_over_when_that_one_dies(layout, other):
    seen = []

    def waiting(holder):
        seen.append(holder)
        if len(seen) == 2:
            os.kill(other.pid, signal.SIGKILL)

    with lease(layout, ["a"], waiting) as held:
        assert held.waited
    assert seen[0] == Holder(pid=other.pid, host=os.uname().nodename, done=42, total=100)
    assert str(seen[0]) == f"process {other.pid} on {os.uname().nodename} (42%)"


def test_many_take_turns(layout):
    inside, most = [], []

    def work():
        with lease(layout, ["x", "y"], lambda _holder: None):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5
    assert list(layout.partials.iterdir()) == []


def test_a_cache_that_cannot_be_written_excludes_nobody(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with lease(Layout(tmp_path / "cache"), ["a"], pytest.fail) as held:
        assert not held.waited


def test_an_interrupt_ends_the_wait(layout, other):
    def interrupt(_holder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lease(layout, ["a"], interrupt):
        pytest.fail("held")
