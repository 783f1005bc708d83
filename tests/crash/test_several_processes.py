"""
Several processes, as if on several machines, download the same model into one cache.

Where locks work, each byte is fetched about once. Where they are missing, or hold on one machine only, what becomes
visible is right all the same: a machine that was asleep may come back and go on writing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from nim_core import errors
from nim_core.testing import bad_answers as bad
from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.misbehaving import well_behaved
from nim_core.testing.storage import failing
from nim_core.transfer.ownership import STALE_SECONDS
from tests.crash.commands import PART_BYTES, command, environment
from tests.faults.invariants import Digests, violations
from tests.faults.shelf import Shelf

FILES = {
    "model.bin": PatternContent(length=6 * PART_BYTES + 1, seed=1),
    "nested/other.bin": PatternContent(length=PART_BYTES + 1, seed=2),
    "config.json": inline('{"a": 1}\n'),
    "empty.txt": inline(b""),
}
TOTAL = sum(content.size for content in FILES.values())
SECONDS = 60

OTHER_MACHINE = """
import errno, fcntl, os, types, uuid
from nim_core.transfer import locking, ownership
def flock(handle, operation):
    if {code!r} != "lies":
        raise OSError(getattr(errno, {code!r}), os.strerror(getattr(errno, {code!r})))
boot = str(uuid.uuid4())
fcntl.flock, locking._LOCAL_KINDS = flock, frozenset()
locking._BOOT_ID = types.SimpleNamespace(read_text=lambda **options: boot)
"""
"""A process that finds the cache on a file system shared with other machines, whose locks do not reach those."""

LOCKS = {
    "locks": "",
    "locks that let everybody": "import fcntl; fcntl.flock = lambda handle, operation: None; ",
    **{code: OTHER_MACHINE.format(code=code) for code in ("ENOLCK", "ENOSYS", "EOPNOTSUPP", "lies")},
}


@pytest.fixture
def shelf():
    with HttpOrigin("shelf", Shelf(FILES), log=RequestLog()) as origin:
        yield origin


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def start(shelf, installed, tmp_path, cache):
    """Return a function that starts the command on the cache."""
    started = []

    def run(*arguments, locks):
        process = subprocess.Popen(
            command(*arguments, small=True, first=LOCKS[locks]),
            env=environment(shelf.url, cache, installed, NIM_LOG_LEVEL="DEBUG"),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def ended(process):
    _, stderr = process.communicate(timeout=SECONDS)
    return process.returncode, stderr


def fetched(shelf):
    return sum(exchange.sent for exchange in shelf.log if exchange.request.path.startswith("/files/"))


def until(condition):
    for _ in range(SECONDS * 100):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail("it never came to that")


def parts_of(cache):
    """How many parts of the model, of a mebibyte each, are whole in a journal."""
    count = 0
    for path in cache.glob("tmp/*/journal"):
        head, *lines = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        if head["size"] == FILES["model.bin"].size:
            count += len({line["part"] for line in lines if "done" not in line and line["part"] < 6})
    return count


def be_silent(cache):
    """Have all owners be silent for too long."""
    for owner in cache.glob("tmp/*/owner"):
        os.utime(owner, (time.time() - STALE_SECONDS - 1,) * 2)


@pytest.mark.parametrize("locks", LOCKS)
def test_four_at_once_fetch_each_byte_once(start, shelf, cache, locks):
    processes = [start(locks=locks) for _ in range(4)]
    for process in processes:
        code, stderr = ended(process)
        assert code == 0, stderr
    assert violations(cache, FILES, complete=True) == []
    assert TOTAL <= fetched(shelf) <= 1.1 * TOTAL
    assert list(cache.glob("tmp/*")) == []


def test_four_at_once_whose_kernel_has_no_locks(traceable, shelf, installed, tmp_path, cache):
    run = {"env": environment(shelf.url, cache, installed), "cwd": tmp_path}
    call = [*failing("flock", "ENOLCK"), *command(small=True)]
    processes = [subprocess.Popen(call, stderr=subprocess.PIPE, text=True, **run) for _ in range(4)]
    for process in processes:
        code, stderr = ended(process)
        assert code == 0, stderr
    assert violations(cache, FILES, complete=True) == []
    assert TOTAL <= fetched(shelf) <= 1.1 * TOTAL
    assert list(cache.glob("tmp/*")) == []


def stopped_half_way(start, cache, locks):
    process = start("--limit-rate", "2M", locks=locks)
    until(lambda: parts_of(cache) >= 1)
    process.send_signal(signal.SIGSTOP)
    return process


@pytest.mark.parametrize("locks", ["ENOLCK", "lies", "locks that let everybody"])
def test_who_was_asleep_and_comes_back_does_no_harm(start, shelf, cache, locks):
    sleeper = stopped_half_way(start, cache, locks)
    be_silent(cache)
    before = fetched(shelf)
    successor = stopped_half_way(start, cache, locks)
    sleeper.send_signal(signal.SIGCONT)
    successor.send_signal(signal.SIGCONT)
    code, stderr = ended(successor)
    assert code == 0, stderr
    assert violations(cache, FILES, complete=True) == []
    code, stderr = ended(sleeper)
    assert code in {0, errors.CacheBusyError.exit_code}, stderr
    assert violations(cache, FILES, complete=True) == []
    assert fetched(shelf) >= before
    code, stderr = ended(start("--use-cache", locks=locks))
    assert code == 0, stderr


@pytest.mark.parametrize("locks", ["ENOLCK", "lies", "locks that let everybody"])
def test_what_a_sleeper_has_is_gone_on_with(start, shelf, cache, locks):
    sleeper = stopped_half_way(start, cache, locks)
    whole = parts_of(cache)
    be_silent(cache)
    shelf.log.clear()
    code, stderr = ended(start(locks=locks))
    assert code == 0, stderr
    assert fetched(shelf) <= TOTAL - whole * PART_BYTES
    assert violations(cache, FILES, complete=True) == []
    sleeper.send_signal(signal.SIGCONT)
    code, stderr = ended(sleeper)
    assert code == errors.CacheBusyError.exit_code, stderr
    assert violations(cache, FILES, complete=True) == []
    assert list(cache.glob("tmp/*")) == []


def last_byte_wrong(request, _number):
    first = int((request.header("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
    return bad.wrong_bytes((first // PART_BYTES + 1) * PART_BYTES - 1) if "model" in request.path else None


@pytest.mark.parametrize("locks", ["ENOLCK", "lies", "locks that let everybody"])
def test_what_a_sleeper_writes_when_it_comes_back_is_nobody_else_s(start, shelf, cache, locks):
    """The last byte of each part it was sent is wrong; most of those are not written yet when it falls asleep."""
    shelf.handler.served.script = last_byte_wrong
    sleeper = stopped_half_way(start, cache, locks)
    assert parts_of(cache) < 6
    be_silent(cache)
    shelf.handler.served.script = well_behaved
    code, stderr = ended(start(locks=locks))
    assert code == 0, stderr
    assert violations(cache, FILES, complete=True) == []
    sleeper.send_signal(signal.SIGCONT)
    code, stderr = ended(sleeper)
    assert code in {errors.CacheBusyError.exit_code, errors.CacheError.exit_code}, stderr
    assert violations(cache, FILES, complete=True) == []


@pytest.mark.parametrize("locks", ["ENOLCK", "lies", "locks that let everybody"])
def test_who_waits_sees_whom_for_and_goes_on_when_that_one_is_silent(start, shelf, cache, locks):
    dead = stopped_half_way(start, cache, locks)
    whole = parts_of(cache)
    dead.kill()
    dead.wait()
    shelf.log.clear()
    waiting = start(locks=locks)
    said = iter(waiting.stderr.readline, "")
    assert any(f"waiting for process {dead.pid} on {os.uname().nodename} (" in line for line in said)
    be_silent(cache)
    code, stderr = ended(waiting)
    assert code == 0, stderr
    assert fetched(shelf) <= TOTAL - whole * PART_BYTES
    assert violations(cache, FILES, complete=True) == []
    assert list(cache.glob("tmp/*")) == []


def test_who_dies_is_succeeded_at_once_where_locks_work(start, shelf, cache):
    dead = stopped_half_way(start, cache, "locks")
    whole = parts_of(cache)
    waiting = start(locks="locks")
    said = iter(waiting.stderr.readline, "")
    assert any(f"waiting for process {dead.pid} on" in line for line in said)
    shelf.log.clear()
    dead.kill()
    dead.wait()
    code, stderr = ended(waiting)
    assert code == 0, stderr
    assert fetched(shelf) <= TOTAL - whole * PART_BYTES
    assert violations(cache, FILES, complete=True) == []
    assert list(cache.glob("tmp/*")) == []


MAY_END_WITH = {kind.exit_code for kind in (errors.CacheError, errors.CacheBusyError, errors.DigestMismatchError)}
HASTY = OTHER_MACHINE.format(code="lies") + "ownership.STALE_SECONDS = 0.0\n"


def test_who_takes_everybody_for_dead_does_no_harm(shelf, installed, tmp_path, cache):
    """All of them write at once, and each takes over from all others whatever it comes across."""
    digests = Digests()
    faults = random.Random(7)
    for seed in range(4):
        shutil.rmtree(cache, ignore_errors=True)
        shelf.handler.served.script = lambda _request, _number: bad.wrong_bytes(0) if faults.random() < 0.2 else None
        chance, processes = random.Random(seed), []
        for _ in range(5):
            rate = ("--limit-rate", f"{chance.randrange(2, 9)}M")
            process = subprocess.Popen(
                command(*rate, small=True, first=HASTY),
                env=environment(shelf.url, cache, installed),
                cwd=tmp_path,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            threading.Event().wait(chance.random())
            if chance.random() < 0.3:
                process.kill()
            assert violations(cache, FILES, digests=digests) == []
        for process in processes:
            code, stderr = ended(process)
            assert code in {0, -signal.SIGKILL, *MAY_END_WITH}, stderr
            assert violations(cache, FILES, digests=digests) == []
        shelf.handler.served.script = well_behaved
        again = subprocess.run(
            command(small=True, first=HASTY), env=environment(shelf.url, cache, installed), cwd=tmp_path, check=False
        )
        assert again.returncode == 0
        assert violations(cache, FILES, complete=True, digests=digests) == []
        assert list(cache.glob("tmp/*")) == []
