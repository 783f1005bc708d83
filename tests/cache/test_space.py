"""Before the first byte: room and permission, on real file systems where root may make them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from nim_core.cache.layout import Layout
from nim_core.cache.space import (
    Incoming,
    check_answers,
    check_space,
    device_needs,
    partial_bytes,
    probe,
    write_error,
)
from nim_core.errors import CacheError, CachePermissionError, DiskFullError

MIB = 1 << 20


@pytest.fixture
def mount(tmp_path):
    """Mount small file systems; skips where that is not allowed."""
    if os.getuid() != 0:
        pytest.skip("only root can mount")
    mounted = []

    def mount_tmpfs(options):
        folder = tmp_path / f"volume{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        mounted.append(folder)
        return folder

    yield mount_tmpfs
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


class SlowFileSystem(type(Path())):
    """A cache path whose file system answers when it is told to."""

    answers = threading.Event()

    def mkdir(self, *arguments, **options):
        self.answers.wait(30)
        super().mkdir(*arguments, **options)


def check(folder, needed, files):
    """Check that so many bytes in so many files fit into a cache in ``folder``."""
    layout = Layout(folder)
    root = folder / "s3/hub"
    first = [Incoming(id="f0", size=needed, root=root)] if files else []
    check_space(layout, [*first, *(Incoming(id=f"f{number}", size=None, root=root) for number in range(1, files))])


class TestSpace:
    def test_enough(self, tmp_path):
        check(tmp_path, 1, 1)
        check(tmp_path, 0, 0)

    def test_bytes(self, mount):
        volume = mount("size=2m")
        free = os.statvfs(volume).f_bavail * os.statvfs(volume).f_frsize
        check(volume, free, 1)
        with pytest.raises(DiskFullError) as caught:
            check(volume, free + 1, 1)
        for words in (str(volume), f"{free + 1:,} bytes needed", f"{free:,} free"):
            assert words in str(caught.value)
        assert "NIM_CACHE_PATH" in caught.value.hint

    def test_inodes(self, mount):
        volume = mount("size=2m,nr_inodes=40")
        check(volume, 1, 5)
        with pytest.raises(DiskFullError, match=r"not enough inodes .* 400 needed for 100 files"):
            check(volume, 1, 100)

    def test_a_file_system_that_counts_no_inodes(self, mount):
        volume = mount("size=2m,nr_inodes=0")
        check(volume, 1, 100_000)

    def test_folders_that_do_not_exist_yet(self, tmp_path):
        (need,) = device_needs(Layout(tmp_path / "a/b"), [Incoming(id="f", size=5, root=tmp_path / "a/b/s3/hub")])
        assert (need.needed, need.files, need.inodes, need.folder) == (5, 1, 4, tmp_path / "a/b/tmp")
        assert tmp_path.is_relative_to(need.mount)
        assert list(tmp_path.iterdir()) == []

    def test_what_a_partial_has_is_not_needed(self, tmp_path):
        (tmp_path / "tmp/f.1").mkdir(parents=True)
        (tmp_path / "tmp/f.1/data").write_bytes(bytes(3 * MIB))
        (need,) = device_needs(Layout(tmp_path), [Incoming(id="f", size=8 * MIB, root=tmp_path / "s3/hub")])
        assert 4 * MIB < need.needed <= 5 * MIB

    def test_blobs_on_another_volume_need_room_there_too(self, tmp_path, mount):
        volume = mount("size=2m")
        layout, files = Layout(tmp_path / "cache"), [Incoming(id="f", size=3 * MIB, root=volume / "hub")]
        here, there = device_needs(layout, files)
        assert (here.needed, there.needed, there.mount, there.folder) == (3 * MIB, 3 * MIB, volume, volume / "hub")
        assert here.error is None
        with pytest.raises(DiskFullError, match=f"not enough space in {volume}/hub") as caught:
            check_space(layout, files)
        assert "NIM_CACHE_PATH" not in caught.value.hint


class TestWriteError:
    def test_none(self, tmp_path):
        assert write_error([tmp_path / "a/b", tmp_path]) is None

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "a").touch()
        assert isinstance(write_error([tmp_path / "a/b"]), CacheError)

    def test_a_read_only_volume(self, mount):
        error = write_error([mount("size=1m,ro") / "a"])
        assert isinstance(error, CachePermissionError)
        assert "read-only file system" in error.message


class TestPartials:
    def test_none(self, tmp_path):
        assert partial_bytes(Layout(tmp_path)) == {}

    def write(self, layout, name, size):
        folder = layout.partials / name
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"x" * size)
        return folder / "data"

    def test_holes_do_not_count(self, tmp_path):
        layout = Layout(tmp_path)
        data = self.write(layout, "f.1", 3 * MIB)
        os.truncate(data, 1 << 40)
        assert 3 * MIB <= partial_bytes(layout)["f"] < 4 * MIB

    def test_only_one_is_gone_on_with(self, tmp_path):
        layout = Layout(tmp_path)
        for name, size in (("f.1", MIB), ("f.2", 2 * MIB), ("g.1", 9 * MIB), (".f.3", 9 * MIB)):
            self.write(layout, name, size)
        assert 2 * MIB <= partial_bytes(layout)["f"] < 3 * MIB

    def test_one_that_vanishes_meanwhile(self, tmp_path, monkeypatch):
        layout = Layout(tmp_path)
        self.write(layout, "f.1", MIB)
        glob = Path.glob

        def overtaken(self, pattern):
            found = list(glob(self, pattern))
            shutil.rmtree(layout.partials)
            return found

        monkeypatch.setattr(Path, "glob", overtaken)
        assert "f" not in partial_bytes(layout)


class TestProbe:
    def test_it_leaves_nothing(self, tmp_path):
        probe(Layout(tmp_path / "a" / "cache"), 10)
        assert [path.name for path in (tmp_path / "a" / "cache").iterdir()] == ["tmp"]
        assert list((tmp_path / "a" / "cache" / "tmp").iterdir()) == []

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "cache").write_text("x")
        with pytest.raises(CacheError):
            probe(Layout(tmp_path / "cache"), 10)

    def test_a_read_only_volume(self, mount):
        volume = mount("size=1m")
        (volume / "tmp").mkdir()
        if subprocess.run(["mount", "-o", "remount,ro", volume], capture_output=True, check=False).returncode:
            pytest.skip("remounting is not allowed here")
        with pytest.raises(CachePermissionError, match="read-only file system"):
            probe(Layout(volume), 10)

    def test_not_even_an_empty_file_fits(self, mount):
        volume = mount("size=1m,nr_inodes=4")
        layout = Layout(volume)
        probe(layout, 10)
        with contextlib.suppress(OSError):
            for number in range(8):
                (volume / str(number)).touch()
        with pytest.raises(DiskFullError, match="no space left on device"):
            probe(layout, 10)

    def test_a_file_system_that_does_not_answer(self, tmp_path):
        SlowFileSystem.answers.clear()
        started = time.monotonic()
        try:
            with pytest.raises(CacheError) as caught:
                probe(Layout(SlowFileSystem(tmp_path)), 0.3)
        finally:
            SlowFileSystem.answers.set()
        assert 0.25 < time.monotonic() - started < 1.5
        assert str(caught.value) == f"file system does not answer within 0.3 s: {tmp_path}"
        assert "NIM_CACHE_PROBE_TIMEOUT" in caught.value.hint

    def test_a_file_system_that_answers_in_time(self, tmp_path):
        SlowFileSystem.answers.set()
        probe(Layout(SlowFileSystem(tmp_path)), 10)

    def test_reading_alone_writes_nothing(self, tmp_path):
        check_answers(Layout(tmp_path / "cache"), 10)
        assert list(tmp_path.iterdir()) == []
