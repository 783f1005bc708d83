"""What is removed from ``tmp``: only what is dead and of no use."""

from __future__ import annotations

import fcntl
import os
import time

import pytest

from nim_core.cache.layout import Layout
from nim_core.cache.remains import sweep
from nim_core.transfer.journal import Scratch, open_partial


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
    partial = open_partial(layout.partials, "abc")
    partial.path.unlink()
    sweep(layout)
    assert names(layout) == ["abc"], "its owner lives"
    partial.close()
    sweep(layout)
    assert names(layout) == []


def test_a_partial_to_go_on_with(layout):
    open_partial(layout.partials, "abc").close()
    sweep(layout)
    assert names(layout) == ["abc"]


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


def test_what_is_being_made_or_removed(layout):
    folder = layout.partials / ".abc.def"
    folder.mkdir()
    folder.joinpath("owner").touch()
    folder.joinpath("data").touch()
    sweep(layout)
    assert folder.exists()
    os.utime(folder, (time.time() - 61, time.time() - 61))
    sweep(layout)
    assert not folder.exists()


def test_what_is_not_ours(layout):
    layout.partials.joinpath("file").touch()
    layout.partials.joinpath("folder").mkdir()
    layout.partials.joinpath("link").symlink_to("folder")
    sweep(layout)
    assert names(layout) == ["file", "folder", "link"]
