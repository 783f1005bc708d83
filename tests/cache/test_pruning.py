"""What is removed after a run, and what is not."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from nim_core.cache.pruning import prune
from nim_core.transfer import locking
from nim_core.transfer.journal import FileRecord, open_partial
from nim_core.transfer.ownership import owned

MINE, OTHER = "a" * 32, "b" * 32
RECORD = FileRecord(size=1000, part_size=100, validator='"v1"', digests=())
DAY = 86_400


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def partial(folder, file_id, *, days=0.0, living=False):
    made = open_partial(folder, file_id)
    made.begin(RECORD)
    if not living:
        made.close()
    let_pass(made.folder, days)
    return made


def let_pass(path, days):
    for name in [*path.rglob("*"), path]:
        os.utime(name, (time.time() - days * DAY,) * 2)


def left(folder):
    return {path.name for path in folder.iterdir()}


def test_partials_of_files_that_are_complete(folder):
    dead, other = partial(folder, MINE), partial(folder, OTHER, days=29)
    prune(folder, [MINE])
    assert left(folder) == {other.folder.name}
    assert dead.folder.name not in left(folder)


def test_partials_that_are_forgotten(folder):
    partial(folder, OTHER, days=31)
    prune(folder, [MINE])
    assert left(folder) == set()


def test_one_file_that_is_younger_saves_the_folder(folder):
    made = partial(folder, OTHER, days=31)
    os.utime(made.folder / "journal")
    prune(folder, [])
    assert left(folder) == {made.folder.name}


def test_nothing_of_the_living(folder):
    living = [partial(folder, file_id, days=days, living=True) for file_id in (MINE, OTHER) for days in (0, 1000)]
    prune(folder, [MINE])
    assert left(folder) == {made.folder.name for made in living}
    for made in living:
        made.check_owned()
        made.discard()


def test_nothing_of_those_who_may_live_where_locks_prove_nothing(folder, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda _handle, _operation: None)
    monkeypatch.setattr(locking, "_LOCAL_KINDS", frozenset())
    monkeypatch.setattr(locking, "_BOOT_ID", Path("/nowhere"))
    fresh = partial(folder, MINE, living=True)
    silent = partial(folder, MINE, days=1, living=True)
    prune(folder, [MINE])
    assert left(folder) == {fresh.folder.name}
    fresh.discard()
    silent.discard()


@pytest.mark.parametrize("name", [f".{MINE}.12.34", ".run.12.34", ".lease.x.34"])
def test_what_was_being_made_or_removed(folder, name):
    (folder / name / "deeper").mkdir(parents=True)
    (folder / name / "data").write_bytes(b"x")
    let_pass(folder / name, 50 / DAY)
    prune(folder, [MINE])
    assert left(folder) == {name}
    let_pass(folder / name, 70 / DAY)
    prune(folder, [MINE])
    assert left(folder) == set()


@pytest.mark.parametrize("name", [".probe.12", ".clock.12"])
def test_files_that_were_in_use(folder, name):
    (folder / name).write_bytes(b"")
    prune(folder, [])
    assert left(folder) == {name}
    let_pass(folder / name, 2)
    prune(folder, [])
    assert left(folder) == set()


@pytest.mark.parametrize("name", ["mine", ".hidden", "notes.txt", f"{MINE}", "a.b"])
def test_what_is_not_ours_stays(folder, name):
    (folder / name).mkdir()
    let_pass(folder / name, 1000)
    prune(folder, [MINE])
    assert left(folder) == {name}


def test_a_link_is_not_followed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "precious").write_bytes(b"precious")
    (folder / f"{MINE}.0").symlink_to(elsewhere)
    (folder / f".{MINE}.0.0").symlink_to(elsewhere)
    prune(folder, [MINE])
    assert (elsewhere / "precious").exists()
    assert len(left(folder)) == 2


def test_a_lease_that_is_held_stays_however_old(folder):
    owner = owned(folder / "lease.x")
    let_pass(folder / "lease.x", 1000)
    prune(folder, [])
    assert left(folder) == {"lease.x"}
    owner.release()
    prune(folder, [])
    assert left(folder) == set()


def test_no_folder(tmp_path):
    prune(tmp_path / "none", [MINE])
