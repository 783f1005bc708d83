from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from attrs import evolve

from nim_core.cache import names
from nim_core.cache.space import device_need
from nim_core.errors import CacheError, CachePermissionError, DigestMismatchError, DiskFullError, InvalidUriError
from nim_core.testing.corpus import inline
from nim_core.testing.storage import small_disk
from nim_core.transfer.ownership import owned
from nim_core.workspace import store as module
from nim_core.workspace.store import CHECKSUMS, make_store
from tests.workspace.conftest import outside

LARGE = "model.safetensors"


@pytest.fixture(autouse=True)
def no_reflinks(monkeypatch):
    """Whatever the test's file system has; reflinks have a test of their own."""
    monkeypatch.setattr(names, "clone", lambda source, target: False)


def identity(path):
    stat = path.lstat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def made(model, folder, **options):
    return make_store(model.present, folder, model.cache, **options)


def hidden(folder):
    return [path.name for path in folder.iterdir() if "model-store" in path.name]


class TestNew:
    def test_it_has_the_files_and_their_checksums(self, model, tmp_path):
        store = tmp_path / "stores/a"
        result = made(model, store)
        assert model.differences(store) == []
        assert not any(path.is_symlink() for path in store.rglob("*"))
        lines = [f"{it.digest('blake3').value}  {path}" for path, it in sorted(model.contents.items())]
        assert (store / CHECKSUMS).read_text(encoding="utf-8").splitlines() == lines
        assert (result.folder, result.files, result.kept) == (store, 4, 0)
        assert hidden(store.parent) == []

    def test_large_files_are_the_cache_s_own_and_small_ones_copies(self, model, tmp_path):
        result = made(model, tmp_path / "store")
        assert result.ways == Counter(hardlink=1, copy=3)
        assert (tmp_path / "store" / LARGE).samefile(model.present[LARGE].blob)
        (tmp_path / "store/config.json").write_text("changed")
        assert model.present["config.json"].blob.read_bytes() == model.contents["config.json"].data()

    def test_nothing_is_shared_when_told_so(self, model, tmp_path):
        result = made(model, tmp_path / "store", share=False)
        assert result.ways == Counter(copy=4)
        assert not (tmp_path / "store" / LARGE).samefile(model.present[LARGE].blob)

    def test_a_file_system_with_reflinks(self, model, tmp_path, monkeypatch):
        def clone(source, target):
            return os.sendfile(target, source, 0, 1 << 30) >= 0

        monkeypatch.setattr(names, "clone", clone)
        result = made(model, tmp_path / "store")
        assert result.ways == Counter(reflink=4)
        assert model.differences(tmp_path / "store") == []

    def test_without_hard_links(self, model, tmp_path, monkeypatch):
        def refuse(*_args, **_options):
            raise OSError(errno.EPERM, "no links")

        monkeypatch.setattr(os, "link", refuse)
        assert made(model, tmp_path / "store").ways == Counter(copy=4)

    def test_a_file_of_somebody_else_s_is_copied_and_read(self, model, tmp_path):
        theirs = tmp_path / "theirs.bin"
        theirs.write_bytes(model.contents[LARGE].data())
        link = tmp_path / "link"
        link.symlink_to(theirs)
        present = {**model.present, LARGE: outside(model.present[LARGE], link)}
        result = make_store(present, tmp_path / "store", model.cache)
        assert result.ways == Counter(copy=4)
        assert model.differences(tmp_path / "store") == []
        assert make_store(present, tmp_path / "store", model.cache).kept == 4

    def test_a_list_of_the_model_s_own_gives_way(self, model, tmp_path):
        made(model.having(**{CHECKSUMS: inline("something else")}), tmp_path / "store")
        assert model.differences(tmp_path / "store") == []
        assert len((tmp_path / "store" / CHECKSUMS).read_text().splitlines()) == 4

    @pytest.mark.parametrize("path", ["../out", "/etc/x", "a/../../b", ""])
    def test_paths_that_lead_out(self, model, tmp_path, path):
        with pytest.raises(InvalidUriError):
            make_store({path: model.present[LARGE]}, tmp_path / "store", model.cache)
        assert not (tmp_path / "store").exists()

    def test_a_damaged_cache_makes_no_store(self, model, tmp_path):
        for path in (LARGE, "config.json"):
            blob = model.present[path].blob
            stat = blob.stat()
            blob.write_bytes(b"x" * stat.st_size)
            os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        with pytest.raises(DigestMismatchError, match="2 damaged files in the cache") as caught:
            made(model, tmp_path / "store")
        assert all(path in str(caught.value) for path in (LARGE, "config.json"))
        assert "--verify" in caught.value.hint
        assert not (tmp_path / "store").exists()
        assert hidden(tmp_path) == []

    def test_no_room_for_copies(self, model, tmp_path):
        try:
            with small_disk(tmp_path / "disk", 1 << 20):
                with pytest.raises(DiskFullError, match="not enough space"):
                    made(model, tmp_path / "disk/store")
                assert list((tmp_path / "disk").iterdir()) == []
        except PermissionError as exc:
            pytest.skip(str(exc))

    def test_only_copies_need_room(self, model, tmp_path, monkeypatch):
        asked = []

        def need(folder, sizes, *, ours):
            asked.append((sum(sizes), len(sizes)))
            return device_need(folder, sizes, ours=ours)

        monkeypatch.setattr(module, "device_need", need)
        made(model, tmp_path / "store")
        small = [it.size for path, it in model.contents.items() if path != LARGE]
        assert asked == [(sum(small), 3)]


class TestThere:
    def test_a_second_run_changes_nothing(self, model, tmp_path):
        made(model, tmp_path / "store")
        before = {path: identity(path) for path in (tmp_path / "store").rglob("*")}
        result = made(model, tmp_path / "store")
        assert (result.ways, result.kept) == (Counter(), 4)
        assert {path: identity(path) for path in (tmp_path / "store").rglob("*")} == before

    def test_an_empty_folder_keeps_its_mode(self, model, tmp_path):
        (tmp_path / "store").mkdir()
        (tmp_path / "store").chmod(0o2775)
        inode = (tmp_path / "store").stat().st_ino
        made(model, tmp_path / "store")
        stat = (tmp_path / "store").stat()
        assert (stat.st_ino, stat.st_mode & 0o7777) == (inode, 0o2775)
        assert model.differences(tmp_path / "store") == []
        assert hidden(tmp_path / "store") == []

    def test_a_link_to_a_folder_is_followed(self, model, tmp_path):
        (tmp_path / "volume").mkdir()
        (tmp_path / "store").symlink_to("volume")
        assert made(model, tmp_path / "store").folder == tmp_path / "volume"
        assert model.differences(tmp_path / "volume") == []

    def test_what_a_killed_run_has_moved_is_gone_on_with(self, model, tmp_path):
        made(model, tmp_path / "store")
        (tmp_path / "store" / CHECKSUMS).unlink()
        (tmp_path / "store/config.json").unlink()
        result = made(model, tmp_path / "store")
        assert (result.ways, result.kept) == (Counter(copy=1), 3)
        assert model.differences(tmp_path / "store") == []
        assert made(model, tmp_path / "store").kept == 4

    def test_what_a_killed_run_has_left_is_removed(self, model, tmp_path):
        owner = owned(tmp_path / ".model-store.0123")
        (tmp_path / ".model-store.0123/files").mkdir()
        made(model, tmp_path / "alive")
        assert hidden(tmp_path) == [".model-store.0123"]
        owner.release()
        made(model, tmp_path / "store")
        assert hidden(tmp_path) == []

    def test_another_run_was_faster(self, model, tmp_path, monkeypatch):
        rename = Path.rename

        def late(path, target):
            monkeypatch.setattr(Path, "rename", rename)
            made(model, tmp_path / "store")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", lambda path, to: (late if path.name == "files" else rename)(path, to))
        assert made(model, tmp_path / "store").kept == 4
        assert hidden(tmp_path) == []

    def test_a_volume_s_own_folder_is_no_obstacle(self, model, tmp_path):
        (tmp_path / "store/lost+found").mkdir(parents=True)
        (tmp_path / "store/lost+found/x").touch()
        made(model, tmp_path / "store")

    def test_a_foreign_folder_is_refused_and_not_touched(self, model, tmp_path):
        (tmp_path / "store/mine").mkdir(parents=True)
        (tmp_path / "store/mine/notes.txt").write_text("mine")
        (tmp_path / "store/config.json").write_text("mine")
        with pytest.raises(CacheError) as caught:
            made(model, tmp_path / "store")
        assert str(caught.value).splitlines()[1:] == [
            "  config.json: has another content",
            "  mine/notes.txt: is not of this model",
        ]
        assert sorted(path.name for path in (tmp_path / "store").rglob("*")) == ["config.json", "mine", "notes.txt"]

    def test_a_store_of_another_model_is_refused(self, model, tmp_path):
        made(model, tmp_path / "store")
        with pytest.raises(CacheError, match=r"(?s)something else.*  config.json: has another content"):
            made(model.having(**{"config.json": inline("{}")}), tmp_path / "store")
        with pytest.raises(CacheError, match=r"(?s)something else.*  empty.txt: is not of this model"):
            made(model.lacking("empty.txt"), tmp_path / "store")

    def test_files_beside_those_of_a_complete_store_may_be_the_user_s(self, model, tmp_path):
        made(model, tmp_path / "store")
        (tmp_path / "store/runtime_config.json").write_text("{}")
        assert made(model, tmp_path / "store").kept == 4

    @pytest.mark.parametrize("trust", [False, True])
    def test_a_changed_file_is_seen_when_it_is_read(self, model, tmp_path, trust):
        made(model, tmp_path / "store", share=False)
        (tmp_path / "store" / LARGE).write_bytes(b"x" * model.contents[LARGE].size)
        if trust:
            assert made(model, tmp_path / "store", trust=True).kept == 4
        else:
            with pytest.raises(CacheError, match=f"{LARGE}: has another content"):
                made(model, tmp_path / "store")

    def test_a_link_in_the_place_of_a_file_is_refused(self, model, tmp_path):
        made(model, tmp_path / "store")
        (tmp_path / "store" / LARGE).unlink()
        (tmp_path / "store" / LARGE).symlink_to(model.present[LARGE].blob)
        with pytest.raises(CacheError, match=f"{LARGE}: has another content"):
            made(model, tmp_path / "store")

    @pytest.mark.parametrize("text", ["", "nonsense", "  ", "zz  config.json\n", b"\xff\xfe"])
    @pytest.mark.parametrize("trust", [False, True])
    def test_a_list_that_is_none(self, model, tmp_path, text, trust):
        made(model, tmp_path / "store")
        (tmp_path / "store" / CHECKSUMS).write_bytes(text if isinstance(text, bytes) else text.encode())
        made(model, tmp_path / "store", trust=trust)
        assert len((tmp_path / "store" / CHECKSUMS).read_text().splitlines()) == 4

    def test_the_cache_s_own_folder(self, model, tmp_path):
        made(model, model.cache)
        assert {path: (model.cache / path).read_bytes() for path in model.contents} == {
            path: it.data() for path, it in model.contents.items()
        }
        assert made(model, model.cache).kept == 4

    def test_a_file_is_in_the_way(self, model, tmp_path):
        (tmp_path / "store").write_text("mine")
        with pytest.raises(CacheError, match="something else is in the way"):
            made(model, tmp_path / "store")


def test_another_mount_of_the_same_disk(model, tmp_path, monkeypatch):
    """As a sub-path of a Kubernetes volume: the same device, and no hard link leads from one to the other."""

    def refuse(*_args, **_options):
        raise OSError(errno.EXDEV, "another mount")

    monkeypatch.setattr(os, "link", refuse)
    assert made(model, tmp_path / "store").ways == Counter(copy=4)


def test_who_may_not_write_is_told_so(model, tmp_path):
    """As another user, in a process of its own."""
    if os.geteuid() != 0:
        pytest.skip("another user needs root")
    program = f"""
import os
from pathlib import Path
from nim_core.workspace.places import real_folder
from nim_core.errors import CachePermissionError
os.setgroups([]); os.setgid(1234); os.setuid(1234)
try:
    real_folder(Path({str(tmp_path)!r}) / "a/b")
except CachePermissionError as exc:
    print(exc.message); print(exc.hint)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("not allowed for uid 1234, gid 1234: ")


def test_an_error_names_what_refuses(model, tmp_path, monkeypatch):
    blob = model.present["config.json"].blob

    def refuse(path, flags, mode=0o777, *, dir_fd=None):
        if path == blob:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, mode, dir_fd=dir_fd)

    opened = os.open
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CachePermissionError, match=f"uid {os.getuid()}, gid {os.getgid()}: {blob}"):
        made(model, tmp_path / "store")
    monkeypatch.setattr(os, "open", opened)
    assert hidden(tmp_path) == []


def test_digests_of_one_other_kind_are_compared(model, tmp_path):
    wrong = inline("another").digest("sha256")
    present = {"config.json": evolve(model.present["config.json"], digests=(wrong,))}
    with pytest.raises(DigestMismatchError):
        make_store(present, tmp_path / "store", model.cache)
