"""Programs on storage that fails or is watched: real processes, and strace between them and the kernel."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from nim_core.testing.power_loss import Sync, Tree, after_power_loss, tree_after
from nim_core.testing.storage import failing, killing, recorded, small_disk, why_not
from nim_core.testing.traces import read_trace

BUSY = """
import os, sys, threading
root = sys.argv[1]
os.chdir(root)
os.makedirs("a/b")
with open("a/b/näme, with = \\"signs\\"", "wb") as file:
    file.write(b"0123456789")
    file.seek(3)
    file.write(b"xyz")
with open("a/b/appended", "ab") as file:
    file.write(b"one")
    file.flush()
    os.fsync(file.fileno())
    file.write(b"two")
folder = os.open("a", os.O_DIRECTORY)
os.mkdir("inside", dir_fd=folder)
os.symlink("../b/appended", "inside/link", dir_fd=folder)
os.fsync(folder)
os.close(folder)
os.rename("a/b/appended", "moved")
os.link("moved", "twin")
handle = os.open("sparse", os.O_RDWR | os.O_CREAT)
os.ftruncate(handle, 100_000)
os.posix_fallocate(handle, 0, 110_000)
os.pwritev(handle, [b"ab", b"cd"], 5000)
twin = os.dup(handle)
os.close(handle)
os.writev(twin, [b"be", b"gin"])
os.close(twin)
os.truncate("sparse", 9_000)
def work(number):
    for count in range(40):
        with open(f"{root}/t{number}-{count}", "wb", buffering=0) as file:
            file.write(b"x" * number)
            os.fsync(file.fileno())
        os.rename(f"{root}/t{number}-{count}", f"{root}/a/t{number}-{count}")
        if count % 2:
            os.unlink(f"{root}/a/t{number}-{count}")
threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
open("before/kept", "ab").write(b" and more")
os.remove("before/gone")
open("before/emptied", "wb").close()
os.sync()
"""


@pytest.fixture(scope="module", autouse=True)
def traceable():
    """Skips where nothing can be traced; in CI that is a failure."""
    reason = why_not()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture
def script(tmp_path):
    """Return a function that gives the command that runs a program."""

    def command(text, *arguments):
        path = tmp_path / "program.py"
        path.write_text(text, encoding="utf-8")
        return [sys.executable, str(path), *map(str, arguments)]

    return command


@pytest.fixture
def root(tmp_path):
    """A folder with something in it."""
    folder = tmp_path / "root"
    Tree(
        folders=frozenset({"before"}), files={"before/kept": b"kept", "before/gone": b"", "before/emptied": b"full"}
    ).write_to(folder)
    return folder


def test_a_recording_says_everything_that_was_done(script, root, tmp_path):
    recording = recorded(script(BUSY, root), root, environment=dict(os.environ), cwd=tmp_path)
    assert (recording.code, recording.stderr) == (0, "")
    assert tree_after(recording.operations) == Tree.of(root)
    assert "before/gone" in tree_after(recording.operations[: recording.already]).files
    assert sum(isinstance(operation, Sync) for operation in recording.operations) >= 203


def test_what_was_flushed_survives_the_power(script, root, tmp_path):
    recording = recorded(script(BUSY, root), root, environment=dict(os.environ), cwd=tmp_path)
    assert after_power_loss(recording.operations, random.Random(1)) == Tree.of(root)
    without_the_last = [it for it in recording.operations if it != Sync(node=None, since=len(recording.operations) - 1)]
    seen = [after_power_loss(without_the_last, random.Random(seed)) for seed in range(20)]
    assert any(state != Tree.of(root) for state in seen)


CONCURRENT = r"""
11 openat(AT_FDCWD, "\x2f\x72\x2f\x66", O_WRONLY|O_CREAT, 0666) = 3
11 write(3, "\x61", 1 <unfinished ...>
12 fsync(3 <unfinished ...>
11 <... write resumed>) = 1
12 <... fsync resumed>) = 0
11 close(3 <unfinished ...>
12 openat(AT_FDCWD, "\x2f\x72\x2f\x67", O_WRONLY|O_CREAT|O_APPEND, 0666) = 3
11 <... close resumed>) = 0
12 write(3, "\x62", 1) = 1
12 pwrite64(3, "\x63", 1, 0) = -1 EIO (Input/output error) (INJECTED)
12 rename("\x2f\x72\x2f\x67", "\x2f\x72\x2f\x68") = ?
12 +++ killed by SIGKILL +++
"""


def test_what_threads_do_at_once_is_told_apart(tmp_path):
    operations = read_trace(CONCURRENT.splitlines(), tmp_path / "/r", cwd=tmp_path, before=Tree())
    assert tree_after(operations).files == {"f": b"a", "g": b"b"}
    assert [operation.since for operation in operations if isinstance(operation, Sync)] == [0, 2]


def test_a_string_that_is_cut_short_is_noticed(tmp_path):
    lines = CONCURRENT.replace('"\\x61"', '"\\x61"...').splitlines()
    with pytest.raises(ValueError, match="cuts a string short"):
        read_trace(lines, tmp_path / "/r", cwd=tmp_path, before=Tree())


COUNTING = """
import os, sys
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for number in range(1, 7):
    try:
        os.pwrite(handle, b"x", number)
    except OSError as exc:
        print(number, exc.errno)
os.fsync(handle)
print("end")
"""


def test_calls_fail_as_told(script, tmp_path):
    command = script(COUNTING, tmp_path / "f")
    for options, expected in [
        ({"first": 5}, ["5 28", "6 28", "end"]),
        ({"first": 2, "last": 3}, ["2 28", "3 28", "end"]),
    ]:
        done = subprocess.run(
            [*failing("pwrite64", "ENOSPC", **options), *command], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines() == expected


@pytest.mark.parametrize(("signal", "code"), [("KILL", -9), ("TERM", -15)])
def test_a_program_is_killed_where_told(script, tmp_path, signal, code):
    command = [*killing("pwrite64", 4, signal), *script(COUNTING, tmp_path / "f")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert (tmp_path / "f").stat().st_size == (4 if signal == "KILL" else 5)
    assert done.stdout == ""


def fill(file):
    while file.write(bytes(1000)):
        pass


def test_a_small_disk_is_full_at_its_byte(tmp_path):
    try:
        with small_disk(tmp_path / "disk", 1 << 20):
            with (tmp_path / "disk/f").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                fill(file)
            assert (tmp_path / "disk/f").stat().st_size == 1 << 20
    except PermissionError as exc:
        pytest.skip(str(exc))
    assert list((tmp_path / "disk").iterdir()) == []
