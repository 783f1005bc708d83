"""Partials: what is gone on with after a crash, by whom, and what is never believed."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nim_core.errors import CacheBusyError
from nim_core.transfer import journal, locking, ownership
from nim_core.transfer.journal import FileRecord, Partial, PartRecord, Scratch, open_partial, unfinished
from nim_core.transfer.ownership import STALE_SECONDS

RECORD = FileRecord(size=1000, part_size=100, validator='"v1"', digests=("sha256:aa", "md5:bb"))
PARTS = {number: PartRecord(number=number, crc=number * 1000 + 7) for number in (0, 3, 4)}

OWNER_PROCESS = """
import sys
from pathlib import Path
from nim_core.transfer.journal import FileRecord, PartRecord, open_partial
partial = open_partial(Path(sys.argv[1]), "f")
partial.begin(FileRecord(size=1000, part_size=100, validator='"v1"', digests=("sha256:aa",)))
partial.finish_part(PartRecord(number=1, crc=42))
print(partial.folder.name, flush=True)
sys.stdin.readline()
"""

TAKER_PROCESS = """
import sys, time
from pathlib import Path
from nim_core.transfer.journal import FileRecord, open_partial
record = FileRecord(size=1000, part_size=100, validator='"v1"', digests=("sha256:aa",))
parent = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    partial = open_partial(parent, str(number))
    partial.begin(record)
    print(number, partial.folder.name, sorted(partial.finished), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def parent(tmp_path):
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def handles():
    """How many files this process has open must be the same afterwards."""
    before = open_files()
    yield
    assert open_files() == before


def open_files():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def leave_partial(parent, record=RECORD, parts=PARTS, file_id="f"):
    """Leave the partial of a process that is gone, and return its folder."""
    partial = open_partial(parent, file_id)
    partial.begin(record)
    for part in parts.values():
        partial.finish_part(part)
    partial.close()
    return partial.folder


def resumed(parent, record=RECORD, file_id="f"):
    """Return the finished parts that the next process goes on with."""
    partial = open_partial(parent, file_id)
    partial.begin(record)
    finished = dict(partial.finished)
    partial.close()
    return finished


def python(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class TestJournal:
    def test_finished_parts_are_gone_on_with(self, parent, handles):
        leave_partial(parent)
        assert resumed(parent) == PARTS
        assert resumed(parent) == PARTS

    def test_what_would_be_gone_on_with_is_told_without_touching_it(self, parent, handles):
        assert unfinished(parent, "f") is None
        leave_partial(parent)
        before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in parent.rglob("*")}
        assert unfinished(parent, "f") == (RECORD, PARTS)
        assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in parent.rglob("*")} == before
        assert resumed(parent) == PARTS

    def test_nothing_of_an_owner_that_lives_would_be_gone_on_with(self, parent, handles):
        process = python(OWNER_PROCESS, parent)
        process.stdout.readline()
        assert unfinished(parent, "f") is None
        process.communicate("end\n")
        assert unfinished(parent, "f")[1] == {1: PartRecord(number=1, crc=42)}

    def test_parts_of_a_partial_that_was_being_taken_over_would_be_gone_on_with(self, parent, handles):
        old = leave_partial(parent)
        new = open_partial(parent, "g")
        new.close()
        old.rename(new.folder / "old")
        assert unfinished(parent, "g") == (RECORD, PARTS)
        assert resumed(parent, file_id="g") == PARTS

    @pytest.mark.parametrize(("seconds", "found"), [(0, False), (STALE_SECONDS + 5, True)])
    def test_without_locks_silence_tells_whether_it_would_be_gone_on_with(self, parent, monkeypatch, seconds, found):
        folder = leave_partial(parent)
        record = json.loads((folder / "owner").read_text())
        (folder / "owner").write_text(json.dumps(record | {"released": False}))
        then = time.time() - seconds
        os.utime(folder / "owner", (then, then))
        monkeypatch.setattr(ownership, "lock", lambda _handle, shared: False)
        assert (unfinished(parent, "f") is not None) is found

    def test_lines_are_added_to_those_of_earlier_runs(self, parent):
        leave_partial(parent)
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        partial.finish_part(PartRecord(number=9, crc=1))
        partial.close()
        assert sorted(resumed(parent)) == [0, 3, 4, 9]

    def test_a_part_that_is_not_finished(self, parent):
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        for done in (10, 20):
            partial.finish_part(PartRecord(number=2, crc=done, done=done))
        partial.close()
        assert resumed(parent) == {2: PartRecord(number=2, crc=20, done=20)}
        assert resumed(parent) == {2: PartRecord(number=2, crc=20, done=20)}

    def test_a_part_that_is_finished_again_has_its_last_crc(self, parent):
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        for crc in (1, 2):
            partial.finish_part(PartRecord(number=0, crc=crc))
        partial.close()
        assert resumed(parent) == {0: PartRecord(number=0, crc=2)}

    def test_the_file_on_disk(self, parent):
        folder = leave_partial(parent)
        lines = [json.loads(line) for line in (folder / "journal").read_text().splitlines()]
        assert lines == [
            {"format": 1, "size": 1000, "part_size": 100, "validator": '"v1"', "digests": ["sha256:aa", "md5:bb"]},
            {"part": 0, "crc": 7},
            {"part": 3, "crc": 3007},
            {"part": 4, "crc": 4007},
        ]
        assert (folder / "data").stat().st_size == 1000

    @pytest.mark.parametrize("cut", range(1, 20))
    def test_a_torn_last_line_is_no_line(self, parent, cut):
        folder = leave_partial(parent)
        with (folder / "journal").open("r+b") as journal:
            journal.truncate((folder / "journal").stat().st_size - cut)
        assert resumed(parent) == {number: PARTS[number] for number in (0, 3)}

    @pytest.mark.parametrize(
        "line",
        [
            b"\0\0\0\0",
            b"{",
            b"[]",
            b"5",
            b"null",
            b'"part"',
            b'{"part":4}',
            b'{"crc":4}',
            b'{"part":null,"crc":1}',
            b'{"part":[],"crc":1}',
            b'{"part":"x","crc":1}',
            b'{"part":1e999,"crc":1}',
            b'{"part":4,"crc":4294967296}',
            b'{"part":4,"crc":-1}',
            b'{"part":4,"crc":1,"done":-1}',
            b'{"part":4,"crc":1,"done":[]}',
            b'{"part":1,"crc":Infinity}',
            b"\xff\xfe",
            b"",
        ],
    )
    def test_garbage_ends_the_journal(self, parent, line):
        folder = leave_partial(parent, parts={0: PARTS[0]})
        with (folder / "journal").open("ab") as journal:
            journal.write(line + b"\n" + b'{"part":4,"crc":4007}\n')
        assert resumed(parent) == {0: PARTS[0]}

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n",
            b"\0" * 300,
            b"not json\n",
            b"[]\n",
            b"{}\n",
            b'{"format":2,"size":1000,"part_size":100,"validator":"\\"v1\\"","digests":["sha256:aa"]}\n',
            b'{"format":1,"size":1000,"part_size":100,"validator":"\\"v1\\"","digests":["sha256:aa"]}',
            b'{"format":1,"size":1e999,"part_size":100,"validator":null,"digests":["sha256:aa"]}\n',
            b'{"format":1,"size":1000,"part_size":100,"validator":null,"digests":7}\n',
            b'{"format":1,"size":1000,"part_size":100,"validator":null,"digests":[["sha256:aa"]]}\n',
            b'{"format":1,"size":1000,"part_size":100,"validator":["v1"],"digests":[]}\n',
        ],
    )
    def test_a_foreign_journal_is_begun_anew(self, parent, content):
        folder = leave_partial(parent)
        (folder / "journal").write_bytes(content + b'{"part":0,"crc":7}\n')
        assert resumed(parent) == {}
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        partial.finish_part(PARTS[3])
        partial.close()
        assert resumed(parent) == {3: PARTS[3]}

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(content=st.binary(max_size=80))
    def test_no_content_is_an_error(self, tmp_path, content):
        folder = leave_partial(tmp_path)
        with (folder / "journal").open("ab") as journal:
            journal.write(content)
        assert PARTS.items() <= resumed(tmp_path).items()
        (found,) = tmp_path.iterdir()
        (found / "journal").write_bytes(content)
        resumed(tmp_path)

    def test_a_journal_that_is_missing(self, parent):
        folder = leave_partial(parent)
        (folder / "journal").unlink()
        assert resumed(parent) == {}

    def test_data_that_is_missing_is_made_anew_at_its_size(self, parent):
        folder = leave_partial(parent)
        (folder / "data").unlink()
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        assert os.fstat(partial.data).st_size == 1000
        partial.close()

    def test_what_is_forgotten_is_forgotten_on_disk_too(self, parent):
        leave_partial(parent)
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        partial.forget()
        assert os.fstat(partial.data).st_size == 0
        partial.begin(evolve(RECORD, validator='"v2"'))
        assert partial.finished == {}
        partial.finish_part(PARTS[4])
        partial.close()
        assert resumed(parent, evolve(RECORD, validator='"v2"')) == {4: PARTS[4]}

    def test_unknown_size(self, parent, handles):
        partial = open_partial(parent, "f")
        partial.finish_part(PARTS[0])
        os.pwrite(partial.data, b"abc", 0)
        assert not (partial.folder / "journal").exists()
        partial.close()
        assert resumed(parent) == {}

    def test_a_journal_that_cannot_be_written_leaves_no_handle_to_close_twice(self, parent):
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        (partial.folder / "journal.new").mkdir()
        partial.forget()
        with pytest.raises(OSError, match=r"journal\.new"):
            partial.begin(RECORD)
        reused = os.open(os.devnull, os.O_RDONLY)
        try:
            partial.close()
            assert stat.S_ISCHR(os.fstat(reused).st_mode)
        finally:
            os.close(reused)

    def test_a_planted_new_journal_is_not_followed(self, parent, tmp_path):
        precious = tmp_path / "precious"
        precious.write_text("precious")
        partial = open_partial(parent, "f")
        (partial.folder / "journal.new").symlink_to(precious)
        partial.begin(RECORD)
        partial.close()
        assert precious.read_text() == "precious"
        assert not (partial.folder / "journal").is_symlink()


class TestFits:
    @pytest.mark.parametrize(
        ("change", "fits"),
        [
            ({}, True),
            ({"size": 1001}, False),
            ({"part_size": 200}, False),
            ({"validator": '"v2"'}, True),
            ({"digests": ()}, True),
            ({"digests": ("md5:bb",), "validator": None}, True),
            ({"digests": ("sha256:cc",), "validator": None}, False),
            ({"digests": ("sha256:cc",), "validator": '"v2"'}, False),
            ({"digests": (), "validator": '"v2"'}, False),
            ({"digests": (), "validator": None}, False),
        ],
    )
    def test_parts_are_kept_when_version_or_content_is_the_same(self, parent, change, fits):
        record = evolve(RECORD, **change)
        assert record.fits(RECORD) is RECORD.fits(record) is fits
        leave_partial(parent)
        assert resumed(parent, record) == (PARTS if fits else {})

    def test_no_validator_is_not_the_same_validator(self):
        nameless = FileRecord(size=1000, part_size=100, validator=None, digests=())
        assert not nameless.fits(nameless)


class TestOwners:
    def test_a_living_owner_keeps_its_partial(self, parent):
        owner = python(OWNER_PROCESS, parent)
        name = owner.stdout.readline().strip()
        partial = open_partial(parent, "f")
        assert partial.folder.name != name
        assert partial.finished == {}
        partial.discard()
        assert [folder.name for folder in parent.iterdir()] == [name]
        owner.communicate("\n")

    def test_a_killed_owner_s_partial_is_taken_over(self, parent):
        owner = python(OWNER_PROCESS, parent)
        name = owner.stdout.readline().strip()
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
        partial = open_partial(parent, "f")
        partial.begin(evolve(RECORD, validator=None))
        assert partial.finished == {1: PartRecord(number=1, crc=42)}
        assert [folder.name for folder in parent.iterdir()] == [partial.folder.name]
        assert partial.folder.name != name
        assert json.loads((partial.folder / "owner").read_text())["pid"] == os.getpid()
        partial.close()

    def test_one_of_many_gets_it(self, parent):
        count, takers = 30, []
        for number in range(count):
            leave_partial(parent, parts={1: PartRecord(number=1, crc=42)}, file_id=str(number))
        takers = [python(TAKER_PROCESS, parent, count) for _ in range(3)]
        for taker in takers:
            assert taker.stdout.readline() == "ready\n"
        for taker in takers:
            taker.stdin.write("\n")
            taker.stdin.flush()
        opened = [[taker.stdout.readline().split(maxsplit=2) for _ in range(count)] for taker in takers]
        for taker in takers:
            taker.communicate("\n")
        for number in range(count):
            (ids, names, finished) = zip(*(lines[number] for lines in opened), strict=True)
            assert ids == (str(number),) * 3
            assert len(set(names)) == 3
            assert sorted(text.strip() for text in finished) == ["[1]", "[]", "[]"]

    def test_threads_of_one_process_do_not_share(self, parent):
        leave_partial(parent)
        start, opened = threading.Barrier(8), []

        def take():
            start.wait()
            opened.append(open_partial(parent, "f"))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({partial.folder for partial in opened}) == 8
        for partial in opened:
            partial.begin(RECORD)
        assert sorted(len(partial.finished) for partial in opened) == [0] * 7 + [len(PARTS)]
        for partial in opened:
            partial.discard()

    def test_partials_of_other_files_are_left_alone(self, parent):
        folder = leave_partial(parent, file_id="g")
        partial = open_partial(parent, "f")
        assert folder.is_dir()
        partial.close()

    def test_a_partial_is_never_taken_while_it_is_removed(self, parent, monkeypatch):
        """Whoever comes between the removal's beginning and end makes a partial of its own."""
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        partial.finish_part(PARTS[0])
        others = []
        close = type(partial).close

        def close_and_be_overtaken(self):
            close(self)
            others.append(open_partial(parent, "f"))

        with monkeypatch.context() as patched:
            patched.setattr(type(partial), "close", close_and_be_overtaken)
            partial.discard()
        (other,) = others
        other.begin(RECORD)
        assert other.finished == {}
        assert sorted(path.name for path in other.folder.iterdir()) == ["data", "journal", "owner"]
        other.discard()
        assert list(parent.iterdir()) == []

    def test_a_partial_is_never_taken_while_it_is_made(self, parent, monkeypatch):
        """Whoever comes before the new folder is locked does not see it."""
        others = []
        flock = fcntl.flock

        def overtaken(handle, operation):
            if not others:
                others.append(None)
                others.append(open_partial(parent, "f"))
            flock(handle, operation)

        with monkeypatch.context() as patched:
            patched.setattr(fcntl, "flock", overtaken)
            partial = open_partial(parent, "f")
        assert partial.folder != others[1].folder
        for each in (partial, others[1]):
            each.begin(RECORD)
            each.discard()
        assert list(parent.iterdir()) == []


def age(folder, seconds=STALE_SECONDS + 1):
    """Have an owner be silent since so many seconds, by the file system's clock."""
    os.utime(folder / "owner", (time.time() - seconds,) * 2)


def never_the_same_machine(monkeypatch):
    boots = itertools.count()
    monkeypatch.setattr(locking, "_BOOT_ID", SimpleNamespace(read_text=lambda **_options: f"boot {next(boots)}"))


@pytest.fixture(params=["ENOLCK", "ENOSYS", "EOPNOTSUPP", "lies"])
def nolock(request, monkeypatch):
    """A file system shared with other machines, without locks or with locks that hold on one machine only."""

    def flock(_handle, _operation):
        if request.param != "lies":
            code = getattr(errno, request.param)
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(ownership._HEART, "add", lambda owner: None)
    monkeypatch.setattr(locking, "_LOCAL_KINDS", frozenset())
    never_the_same_machine(monkeypatch)


class TestWithoutLocks:
    def test_a_living_owner_keeps_its_partial(self, parent, nolock, handles):
        first = open_partial(parent, "f")
        second = open_partial(parent, "f")
        assert first.folder != second.folder
        for partial in (first, second):
            partial.begin(RECORD)
            partial.check_owned()
        first.discard()
        second.check_owned()
        second.discard()
        assert list(parent.iterdir()) == []

    def test_an_owner_that_let_go_is_succeeded_at_once(self, parent, nolock, handles):
        folder = leave_partial(parent)
        assert resumed(parent) == PARTS
        assert not folder.exists()
        assert len(list(parent.iterdir())) == 1

    @pytest.mark.parametrize("cloned", [True, False])
    def test_a_silent_owner_is_succeeded_and_cannot_touch_what_its_successor_has(
        self, parent, nolock, handles, monkeypatch, cloned
    ):
        if cloned:
            monkeypatch.setattr(journal, "clone", copy_all)
        zombie = open_partial(parent, "f")
        zombie.begin(RECORD)
        os.pwrite(zombie.data, bytes(range(250)) * 4, 0)
        for part in (PARTS[0], PARTS[3], PartRecord(number=9, crc=9, done=40)):
            zombie.finish_part(part)
        age(zombie.folder)

        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        assert sorted(partial.finished) == [0, 3, 9]
        content = os.pread(partial.data, 1000, 0)
        for start, stop in ((0, 100), (300, 400), (900, 940)):
            assert content[start:stop] == (bytes(range(250)) * 4)[start:stop]
        assert [path.name for path in parent.iterdir()] == [partial.folder.name]
        assert sorted(path.name for path in partial.folder.iterdir()) == ["data", "journal", "owner"]

        os.pwrite(zombie.data, b"z" * 1000, 0)
        zombie.finish_part(PARTS[4])
        zombie._owner.beat()
        assert os.pread(partial.data, 1000, 0) == content
        with pytest.raises(CacheBusyError, match="another process"):
            zombie.check_owned()
        with pytest.raises(OSError, match=r"[Nn]o such file"):
            zombie.path.rename(parent / "published")
        with pytest.raises(OSError, match=r"[Nn]o such file"):
            zombie.begin(RECORD)
        zombie.discard()
        partial.check_owned()
        partial.close()
        assert sorted(resumed(parent)) == [0, 3, 9]

    def test_who_comes_back_before_its_data_is_copied_publishes_its_own(self, parent, nolock, monkeypatch, handles):
        """As on NFS, where a machine may know the old folder by its handle: the folder never gets other data."""
        zombie = open_partial(parent, "f")
        zombie.begin(RECORD)
        folder = os.open(zombie.folder, os.O_RDONLY | os.O_DIRECTORY)
        os.pwrite(zombie.data, b"z" * 1000, 0)
        age(zombie.folder)
        inode = os.fstat(zombie.data).st_ino
        seen = []

        def publish(source, target):
            os.rename("data", parent / "published", src_dir_fd=folder)
            seen.append((os.fstat(source).st_ino, os.fstat(target).st_ino))
            return False

        monkeypatch.setattr(journal, "clone", publish)
        zombie.finish_part(PARTS[0])
        partial = open_partial(parent, "f")
        assert (parent / "published").stat().st_ino == inode == seen[0][0] != seen[0][1]
        partial.begin(RECORD)
        assert sorted(partial.finished) == [0]
        os.close(folder)
        zombie.discard()
        partial.discard()

    @pytest.mark.parametrize("when", ["copying", "copied"])
    def test_a_successor_that_is_killed_is_succeeded_itself(self, parent, nolock, monkeypatch, when):
        zombie = open_partial(parent, "f")
        zombie.begin(RECORD)
        os.pwrite(zombie.data, b"z" * 1000, 0)
        zombie.finish_part(PARTS[0])
        zombie.finish_part(PARTS[3])
        age(zombie.folder)
        with monkeypatch.context() as patched:
            patched.setattr(*((journal, "copy_range") if when == "copying" else (Partial, "_rewrite")), interrupt)
            with pytest.raises(KeyboardInterrupt):
                open_partial(parent, "f")
        (half,) = parent.iterdir()
        assert (half / "old" / "journal").exists()
        living = open_partial(parent, "f")
        living.begin(RECORD)
        assert living.finished == {}
        living.discard()
        age(half)
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        assert sorted(partial.finished) == [0, 3]
        assert os.pread(partial.data, 100, 300) == b"z" * 100
        partial.discard()
        zombie.discard()
        assert list(parent.iterdir()) == []

    def test_a_full_disk_loses_what_could_not_be_copied(self, parent, nolock, monkeypatch, handles):
        leave_partial(parent)
        copies = []

        def copy_one(source, target, offset, length):
            copies.append(offset)
            if len(copies) > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return True

        monkeypatch.setattr(journal, "copy_range", copy_one)
        assert resumed(parent) == {0: PARTS[0]}

    def test_one_of_many_gets_it(self, parent, nolock):
        folder = leave_partial(parent)
        start, opened = threading.Barrier(6), []

        def take():
            start.wait()
            opened.append(open_partial(parent, "f"))

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({partial.folder for partial in opened}) == 6
        assert len({os.fstat(partial.data).st_ino for partial in opened}) == 6
        assert not folder.exists()
        for partial in opened:
            partial.check_owned()
            partial.begin(RECORD)
        assert sorted(len(partial.finished) for partial in opened) == [0] * 5 + [len(PARTS)]
        for partial in opened:
            partial.discard()
        assert list(parent.iterdir()) == []

    def test_a_scratch_folder_of_a_living_run_stays(self, parent, nolock):
        living = Scratch(parent)
        silent = Scratch(parent)
        age(silent.folder)
        third = Scratch(parent)
        assert {path.name for path in parent.iterdir()} == {living.folder.name, third.folder.name}
        for scratch in (living, silent, third):
            scratch.remove()


def test_owners_show_that_they_live_as_long_as_they_do(parent, monkeypatch):
    monkeypatch.setattr(ownership, "_BEAT_SECONDS", 0.01)
    heart = ownership._Heart()
    monkeypatch.setattr(ownership, "_HEART", heart)
    partials = [open_partial(parent, name) for name in "ab"]
    for _ in range(2):
        for partial in partials:
            age(partial.folder)
        for partial in partials:
            while time.time() - (partial.folder / "owner").stat().st_mtime > STALE_SECONDS / 2:
                time.sleep(0.01)
    for partial in partials:
        partial.discard()
    while heart._running:
        time.sleep(0.01)
    open_partial(parent, "c").discard()
    assert list(parent.iterdir()) == []


def copy_all(source, target):
    os.pwrite(target, os.pread(source, 1 << 20, 0), 0)
    return True


def interrupt(*_arguments):
    raise KeyboardInterrupt


class TestLocksThatAreBelieved:
    """A lock that can be had proves that the owner is gone where no other machine could have it."""

    @pytest.mark.parametrize("beneath", ["a local file system", "the same kernel"])
    def test_the_same_file_is_gone_on_with(self, parent, monkeypatch, beneath):
        if beneath == "the same kernel":
            monkeypatch.setattr(locking, "_LOCAL_KINDS", frozenset())
        else:
            never_the_same_machine(monkeypatch)
        owner = python(OWNER_PROCESS, parent)
        inode = (parent / owner.stdout.readline().strip() / "data").stat().st_ino
        owner.kill()
        owner.communicate()
        partial = open_partial(parent, "f")
        partial.begin(evolve(RECORD, validator=None))
        assert sorted(partial.finished) == [1]
        assert os.fstat(partial.data).st_ino == inode
        partial.discard()

    def test_locks_that_let_everybody_are_found_out(self, parent, monkeypatch):
        monkeypatch.setattr(fcntl, "flock", lambda _handle, _operation: None)
        living = open_partial(parent, "f")
        other = open_partial(parent, "f")
        assert other.folder != living.folder
        living.check_owned()
        living.discard()
        other.discard()

    def test_a_stopped_owner_keeps_its_partial_however_long_it_is_silent(self, parent):
        owner = python(OWNER_PROCESS, parent)
        name = owner.stdout.readline().strip()
        owner.send_signal(signal.SIGSTOP)
        age(parent / name, 1_000_000)
        partial = open_partial(parent, "f")
        assert partial.folder.name != name
        partial.discard()
        owner.kill()
        owner.communicate()

    def test_another_mount_of_the_same_files_proves_nothing(self, parent, monkeypatch):
        monkeypatch.setattr(locking, "_LOCAL_KINDS", frozenset())
        folder = leave_partial(parent)
        record = json.loads((folder / "owner").read_text())
        (folder / "owner").write_text(json.dumps(record | {"device": record["device"] + 1, "released": False}))
        partial = open_partial(parent, "f")
        assert folder.exists()
        partial.discard()


class TestFolder:
    def test_permissions(self, parent):
        previous = os.umask(0)
        try:
            partial = open_partial(parent, "f")
        finally:
            os.umask(previous)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in partial.folder.iterdir()}
        assert stat.S_IMODE(partial.folder.stat().st_mode) == 0o700
        assert modes == {"owner": 0o600, "data": 0o644}
        partial.close()

    def test_discard_leaves_nothing(self, parent, handles):
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        partial.finish_part(PARTS[0])
        partial.discard()
        assert list(parent.iterdir()) == []
        partial.close()

    def test_discard_when_the_data_has_been_published(self, parent):
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        partial.path.rename(parent / "blob")
        partial.discard()
        assert [path.name for path in parent.iterdir()] == ["blob"]

    @pytest.mark.parametrize("name", ["data", "owner"])
    def test_a_planted_link_is_not_followed(self, parent, tmp_path, name, handles):
        precious = tmp_path / "precious"
        precious.write_text("precious")
        folder = leave_partial(parent)
        (folder / name).unlink()
        (folder / name).symlink_to(precious)
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        assert partial.finished == {}
        os.pwrite(partial.data, b"bytes", 0)
        partial.discard()
        assert precious.read_text() == "precious"

    def test_a_planted_link_to_a_folder_is_not_followed(self, parent, tmp_path):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (parent / "f.0").symlink_to(elsewhere)
        partial = open_partial(parent, "f")
        partial.begin(RECORD)
        partial.discard()
        assert list(elsewhere.iterdir()) == []

    def test_a_file_in_the_way_is_passed_over(self, parent):
        (parent / "f.0").write_text("not a folder")
        partial = open_partial(parent, "f")
        partial.discard()
        assert [path.name for path in parent.iterdir()] == ["f.0"]

    def test_a_folder_that_is_missing(self, tmp_path, handles):
        with pytest.raises(FileNotFoundError):
            open_partial(tmp_path / "none", "f")

    def test_the_second_of_two_dead_ones_serves_the_second_taker(self, parent):
        for number in (1, 2):
            partial = open_partial(parent, "g")
            partial.begin(RECORD)
            partial.finish_part(PartRecord(number=number, crc=5))
            partial.close()
            partial.folder.rename(parent / f"f.{number}")
        first, second = open_partial(parent, "f"), open_partial(parent, "f")
        for partial in (first, second):
            partial.begin(RECORD)
        assert sorted([*first.finished, *second.finished]) == [1, 2]
        first.discard()
        second.discard()


class TestScratch:
    def test_it_is_there_and_then_gone(self, parent, handles):
        scratch = Scratch(parent)
        (scratch.folder / "small").write_text("x")
        scratch.remove()
        scratch.remove()
        assert list(parent.iterdir()) == []

    def test_what_a_killed_run_left_is_removed_and_a_living_run_s_is_not(self, parent):
        dead, living = Scratch(parent), Scratch(parent)
        (dead.folder / "small").write_text("x")
        dead_folder = dead.folder.rename(parent / "run.0")
        dead.remove()
        third = Scratch(parent)
        assert not dead_folder.exists()
        assert {path.name for path in parent.iterdir()} == {living.folder.name, third.folder.name}
        living.remove()
        third.remove()
