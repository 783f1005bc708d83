"""What is removed from ``tmp``: only what is dead and of no use."""

from __future__ import annotations

import fcntl
import os
import time

import pytest

from nim_core.cache.layout import Layout
from nim_core.cache.remains import sweep
from nim_core.transfer.journal import Scratch, open_partial

ID = "0123456789abcdef" * 2
NAME = f"{ID}.0123456789abcdef"


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    found.partials.mkdir()
    return found


def names(layout):
    return sorted(path.name.partition(".")[0] or path.name for path in layout.partials.iterdir())


def test_nothing_to_look_at(tmp_path):
    sweep(Layout(tmp_path / "not there"))


def test_a_partial_whose_data_is_a_blob(layout):
    partial = open_partial(layout.partials, ID)
    partial.path.unlink()
    sweep(layout)
    assert names(layout) == [ID], "its owner lives"
    partial.close()
    sweep(layout)
    assert names(layout) == []


def test_a_partial_to_go_on_with(layout):
    open_partial(layout.partials, ID).close()
    sweep(layout)
    assert names(layout) == [ID]


def test_a_folder_of_small_files(layout):
    scratch = Scratch(layout.partials)
    sweep(layout)
    assert names(layout) == ["run"], "its owner lives"
    os.close(scratch._owner)
    sweep(layout)
    assert names(layout) == []


def test_a_lease(layout):
    lease = layout.partials / "lease.abc"
    with lease.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sweep(layout)
        assert lease.exists()
    sweep(layout)
    assert not lease.exists()


def test_a_folder_of_small_files_that_was_being_removed(layout):
    folder = layout.partials / "run.0123456789abcdef"
    folder.mkdir()
    folder.joinpath("small").touch()
    sweep(layout)
    assert names(layout) == []


@pytest.mark.parametrize("inside", [[], ["owner"], ["owner", "data"], ["data"]])
def test_a_folder_that_was_being_made_or_removed(layout, inside):
    folder = layout.partials / f".{NAME}"
    folder.mkdir()
    for name in inside:
        folder.joinpath(name).touch()
    sweep(layout)
    assert folder.exists(), "it may be that somebody is at it"
    age(folder)
    sweep(layout)
    assert not folder.exists()


def test_a_probe(layout):
    probe = layout.partials / ".probe.0123456789abcdef"
    probe.touch()
    sweep(layout)
    assert probe.exists()
    age(probe)
    sweep(layout)
    assert not probe.exists()


def age(path):
    os.utime(path, (time.time() - 61, time.time() - 61))


def test_what_is_not_ours(layout):
    layout.partials.joinpath("file").touch()
    layout.partials.joinpath("folder").mkdir()
    layout.partials.joinpath("folder.d").mkdir()
    layout.partials.joinpath(NAME).symlink_to("folder")
    sweep(layout)
    assert len(names(layout)) == 4
