"""Making files visible: what has a name is whole, and no name leads out of the cache."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from attrs import evolve

from nim_core.cache import names
from nim_core.cache.layout import Layout
from nim_core.cache.store import Store
from nim_core.errors import CacheError, CachePermissionError, DiskFullError
from nim_core.testing.corpus import inline

DATA = b"the bytes of a model"
BLAKE3 = inline(DATA).digest("blake3").value
SHA256 = inline(DATA).digest("sha256").value
REPO = "test/hub/models--org--name"


@pytest.fixture
def store(cache):
    return Store(cache.layout)


def publish(cache, store, path="model.bin", data=DATA, **options):
    """Put one file into the cache; return where it is."""
    fetch = cache.fetch(path, **options)
    (stored,) = store.publish([(fetch, cache.verified(fetch, data))])
    return stored


class TestPublish:
    def test_a_blob_and_a_relative_link(self, cache, store):
        stored = publish(cache, store)
        assert cache.names() == [f"{REPO}/blobs/{BLAKE3}", f"{REPO}/snapshots/v1/model.bin"]
        assert stored.blob == cache.blob_of(DATA)
        assert stored.link == cache.layout.path / REPO / "snapshots/v1/model.bin"
        assert stored.link.readlink() == Path(f"../../blobs/{BLAKE3}")
        assert stored.link.read_bytes() == DATA

    def test_nested_paths_with_awkward_names(self, cache, store):
        stored = publish(cache, store, "données/a b/#1 & ü.txt")
        assert stored.link.readlink() == Path(f"../../../../blobs/{BLAKE3}")
        assert stored.link.read_bytes() == DATA

    def test_the_source_names_the_blob(self, cache, store):
        stored = publish(cache, store, blob_name="etag-1")
        assert stored.blob.name == "etag-1"
        assert stored.link.read_bytes() == DATA

    def test_a_batch(self, cache, store):
        fetches = [cache.fetch(f"{number % 3}/{number}.bin") for number in range(9)]
        batch = [(fetch, cache.verified(fetch, fetch.file.path.encode())) for fetch in fetches]
        found = store.publish(batch)
        assert [stored.fetch for stored in found] == fetches
        assert [stored.link.read_bytes().decode() for stored in found] == [fetch.file.path for fetch in fetches]
        assert list(cache.layout.partials.iterdir()) == []

    def test_equal_files_share_a_blob(self, cache, store):
        fetches = [cache.fetch("a"), cache.fetch("b/c")]
        store.publish([(fetch, cache.verified(fetch, DATA)) for fetch in fetches])
        assert cache.names() == [f"{REPO}/blobs/{BLAKE3}", f"{REPO}/snapshots/v1/a", f"{REPO}/snapshots/v1/b/c"]

    def test_the_tree_may_be_moved(self, cache, store, tmp_path):
        publish(cache, store, "a/b")
        cache.layout.path.rename(tmp_path / "moved")
        assert (tmp_path / "moved" / REPO / "snapshots/v1/a/b").read_bytes() == DATA

    def test_nothing_to_do(self, cache, store):
        assert store.publish([]) == []

    def test_a_file_of_somebody_else_s_stays_where_it_is(self, cache, store, tmp_path):
        fetch = cache.fetch()
        (stored,) = store.publish([(fetch, cache.verified(fetch, DATA, outside=tmp_path / "mine.bin"))])
        assert (stored.blob, stored.link) == (tmp_path / "mine.bin", None)
        assert cache.names() == []

    def test_a_file_of_somebody_else_s_below_the_cache_gets_no_name_either(self, cache, store):
        fetch = cache.fetch()
        outside = cache.layout.path / "by-hand" / "mine.bin"
        store.publish([(fetch, cache.verified(fetch, DATA, outside=outside))])
        assert cache.names() == ["by-hand/mine.bin"]

    def test_a_root_elsewhere(self, cache, store, tmp_path):
        stored = publish(cache, store, root=str(tmp_path / "hf"))
        assert stored.blob == tmp_path / "hf/models--org--name/blobs" / BLAKE3
        assert stored.link.readlink() == Path(f"../../blobs/{BLAKE3}")
        assert cache.names() == []


class TestExisting:
    def test_a_blob_is_replaced(self, cache, store):
        """It may have been damaged; whoever has it open keeps reading what was there."""
        stored = publish(cache, store)
        stored.blob.write_bytes(b"damaged" + DATA[7:])
        with stored.blob.open("rb") as reader:
            publish(cache, store)
            assert reader.read() == b"damaged" + DATA[7:]
        assert stored.link.read_bytes() == DATA

    def test_equal_content_keeps_the_time_that_other_receipts_know(self, cache, store):
        stored = publish(cache, store)
        os.utime(stored.blob, ns=(1_000, 123_456_789))
        publish(cache, store, "other.bin")
        assert stored.blob.stat().st_mtime_ns == 123_456_789

    @pytest.mark.parametrize("blob_name", [SHA256, BLAKE3])
    def test_names_that_are_digests_are_content_too(self, cache, store, blob_name):
        stored = publish(cache, store, blob_name=blob_name)
        os.utime(stored.blob, ns=(1_000, 123_456_789))
        publish(cache, store, blob_name=blob_name)
        assert stored.blob.stat().st_mtime_ns == 123_456_789

    def test_another_content_of_the_same_name_gets_its_own_time(self, cache, store):
        stored = publish(cache, store, blob_name="latest")
        os.utime(stored.blob, ns=(1_000, 123_456_789))
        publish(cache, store, data=DATA[::-1], blob_name="latest")
        assert stored.blob.stat().st_mtime_ns != 123_456_789

    def test_a_good_link_is_kept(self, cache, store):
        stored = publish(cache, store)
        before = stored.link.lstat()
        publish(cache, store)
        assert stored.link.lstat().st_ino == before.st_ino

    @pytest.mark.parametrize(("absolute", "kept"), [(False, True), (True, False)])
    def test_a_link_that_gets_there_by_another_link(self, cache, store, absolute, kept):
        """As a vendor's client leaves it that keeps blobs of all repositories in one place."""
        blob = publish(cache, store, "other.bin").blob
        between = blob.with_name("etag")
        between.symlink_to(blob.name)
        link = cache.layout.path / REPO / "snapshots/v1/model.bin"
        link.symlink_to(between if absolute else "../../blobs/etag")
        store.link(cache.fetch(), blob)
        assert link.readlink() == Path(f"../../blobs/{'etag' if kept else BLAKE3}")

    @pytest.mark.parametrize("target", ["../../blobs/other", "/etc/hostname", "nowhere", "model.bin"])
    def test_a_wrong_link_is_replaced(self, cache, store, target):
        link = cache.layout.path / REPO / "snapshots/v1/model.bin"
        link.parent.mkdir(parents=True)
        link.symlink_to(target)
        assert publish(cache, store).link.readlink() == Path(f"../../blobs/{BLAKE3}")
        assert link.read_bytes() == DATA

    def test_a_file_in_the_place_of_a_link_is_replaced(self, cache, store):
        link = cache.layout.path / REPO / "snapshots/v1/model.bin"
        link.parent.mkdir(parents=True)
        link.write_bytes(b"copied from somewhere")
        publish(cache, store)
        assert link.readlink() == Path(f"../../blobs/{BLAKE3}")

    def test_a_folder_in_the_place_of_a_link(self, cache, store):
        (cache.layout.path / REPO / "snapshots/v1/model.bin").mkdir(parents=True)
        with pytest.raises(CacheError):
            publish(cache, store)
        assert cache.names() == [f"{REPO}/blobs/{BLAKE3}"]

    def test_a_file_that_became_a_folder(self, cache, store):
        publish(cache, store, "a")
        with pytest.raises(CacheError, match="not a folder of the cache's own"):
            publish(cache, store, "a/b", b"other")

    @pytest.mark.parametrize("place", ["", "/blobs", "/snapshots", "/snapshots/v1", "/snapshots/v1/sub"])
    def test_planted_folders_are_refused(self, cache, store, tmp_path, place):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        link = cache.layout.path / f"{REPO}{place}"
        link.parent.mkdir(parents=True)
        link.symlink_to(elsewhere)
        with pytest.raises(CacheError, match="not a folder of the cache's own"):
            publish(cache, store, "sub/model.bin")
        assert list(elsewhere.iterdir()) == []

    def test_a_planted_blob_is_replaced_and_not_followed(self, cache, store, tmp_path):
        precious = tmp_path / "precious"
        precious.write_bytes(b"precious")
        blob = cache.blob_of(DATA)
        blob.parent.mkdir(parents=True)
        blob.symlink_to(precious)
        publish(cache, store)
        assert precious.read_bytes() == b"precious"
        assert not blob.is_symlink()
        assert blob.read_bytes() == DATA


class TestLink:
    def test_to_a_blob_that_is_there(self, cache, store):
        blob = publish(cache, store).blob
        link = store.link(cache.fetch("again.bin", snapshot="v2"), blob)
        assert link == cache.layout.path / REPO / "snapshots/v2/again.bin"
        assert link.readlink() == Path(f"../../blobs/{BLAKE3}")

    def test_to_something_outside(self, cache, store, tmp_path):
        assert store.link(cache.fetch(), tmp_path / "mine.bin") is None
        assert cache.names() == []

    def test_a_file_that_is_its_own_blob_is_left_alone(self, cache, store):
        """As in a copy of a cache that was made with links followed."""
        path = cache.layout.path / REPO / "snapshots/v1/model.bin"
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA)
        assert store.link(cache.fetch(), path) == path
        assert not path.is_symlink()
        assert path.read_bytes() == DATA
        assert cache.names() == [f"{REPO}/snapshots/v1/model.bin"]

    def test_a_hard_link_is_as_good(self, cache, store):
        stored = publish(cache, store)
        stored.link.unlink()
        stored.link.hardlink_to(stored.blob)
        store.link(cache.fetch(), stored.blob)
        assert not stored.link.is_symlink()
        assert cache.names() == [f"{REPO}/blobs/{BLAKE3}", f"{REPO}/snapshots/v1/model.bin"]

    def test_nothing_is_written_when_all_is_right(self, cache, store):
        fetch = cache.fetch(refs=("main",))
        (stored,) = store.publish([(fetch, cache.verified(fetch, DATA))])
        before = {path: path.lstat().st_ctime_ns for path in cache.layout.path.rglob("*")}
        store.link(fetch, stored.blob)
        assert {path: path.lstat().st_ctime_ns for path in cache.layout.path.rglob("*")} == before


class TestRefs:
    @pytest.mark.parametrize("ref", ["main", "refs/pr/1", "feature/a b/ü"])
    def test_a_ref_is_the_snapshot_s_name_and_no_more(self, cache, store, ref):
        publish(cache, store, refs=(ref,))
        assert (cache.layout.path / REPO / "refs" / ref).read_bytes() == b"v1"

    def test_several(self, cache, store):
        publish(cache, store, refs=("main", "latest"))
        assert [path.name for path in sorted((cache.layout.path / REPO / "refs").iterdir())] == ["latest", "main"]

    @pytest.mark.parametrize("earlier", [b"v0", b"v1\n", b"", b"\xff\xfe"])
    def test_it_follows_its_branch(self, cache, store, earlier):
        ref = cache.layout.path / REPO / "refs" / "main"
        ref.parent.mkdir(parents=True)
        ref.write_bytes(earlier)
        publish(cache, store, refs=("main",))
        assert ref.read_bytes() == b"v1"
        assert [path.name for path in ref.parent.iterdir()] == ["main"]

    def test_a_planted_link_is_replaced_and_not_followed(self, cache, store, tmp_path):
        precious = tmp_path / "precious"
        precious.write_bytes(b"precious")
        ref = cache.layout.path / REPO / "refs" / "main"
        ref.parent.mkdir(parents=True)
        ref.symlink_to(precious)
        publish(cache, store, refs=("main",))
        assert precious.read_bytes() == b"precious"
        assert ref.read_bytes() == b"v1"

    def test_a_folder_in_the_way_leaves_no_other_trace(self, cache, store):
        (cache.layout.path / REPO / "refs" / "main").mkdir(parents=True)
        with pytest.raises(CacheError):
            publish(cache, store, refs=("main",))
        assert [path.name for path in (cache.layout.path / REPO / "refs").iterdir()] == ["main"]

    def test_none_without_one(self, cache, store):
        publish(cache, store)
        assert not (cache.layout.path / REPO / "refs").exists()


class TestOtherFileSystems:
    @pytest.fixture
    def volume(self):
        """A folder on another file system than the tests' own."""
        shared = Path("/dev/shm")
        if not shared.is_dir() or shared.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
            pytest.skip("there is no other file system to write to")
        with tempfile.TemporaryDirectory(dir=shared) as name:
            yield Path(name)

    def test_blobs_on_another_volume_than_partials(self, cache, store, volume):
        fetch = cache.fetch(root=str(volume / "hub"))
        verified = cache.verified(fetch, DATA)
        os.utime(verified.path, ns=(1_000, 123_456_789))
        (stored,) = store.publish([(fetch, verified)])
        assert stored.link.read_bytes() == DATA
        assert stored.blob.stat().st_mtime_ns == 123_456_789
        assert list(cache.layout.partials.iterdir()) == []
        assert sorted(path.name for path in stored.blob.parent.iterdir()) == [BLAKE3]

    def test_an_administrator_s_link_to_another_volume(self, cache, store, volume):
        root = cache.layout.path / "test" / "hub"
        root.parent.mkdir(parents=True)
        root.symlink_to(volume)
        stored = publish(cache, store)
        assert stored.blob == cache.blob_of(DATA)
        assert (volume / "models--org--name/snapshots/v1/model.bin").read_bytes() == DATA

    def test_a_copy_that_fails_leaves_nothing_visible(self, cache, store, volume, monkeypatch):
        def fill_up(_source, target):
            Path(target).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(shutil, "copy2", fill_up)
        fetch = cache.fetch(root=str(volume))
        verified = cache.verified(fetch, DATA)
        with pytest.raises(DiskFullError):
            store.publish([(fetch, verified)])
        assert [path for path in volume.rglob("*") if not path.is_dir()] == []
        assert verified.path.read_bytes() == DATA

    @pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
    @pytest.mark.parametrize("hard", [True, False])
    def test_without_links(self, cache, store, monkeypatch, hard, code):
        tried = []

        def refuse(*arguments, **_options):
            tried.append(arguments)
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "symlink", refuse)
        if not hard:
            monkeypatch.setattr(os, "link", refuse)
        stored = publish(cache, store)
        assert not stored.link.is_symlink()
        assert stored.link.samefile(stored.blob) is hard
        assert stored.link.read_bytes() == DATA
        assert stored.link.stat().st_mtime_ns == stored.blob.stat().st_mtime_ns
        assert cache.names() == [f"{REPO}/blobs/{BLAKE3}", f"{REPO}/snapshots/v1/model.bin"]
        publish(cache, store, "other")
        assert len(tried) == (1 if hard else 2), "what there is not is tried once"

    def test_links_that_are_made_and_lead_nowhere(self, cache, store, monkeypatch):
        symlink, made = os.symlink, []

        def mislead(_target, name, *_more):
            made.append(name)
            symlink("elsewhere", name)

        monkeypatch.setattr(os, "symlink", mislead)
        for name in ("a", "b"):
            stored = publish(cache, store, name)
            assert not stored.link.is_symlink()
            assert stored.link.samefile(stored.blob)
        assert len(made) == 1

    def test_blocks_are_shared_where_that_is_possible(self, cache, store, monkeypatch):
        shared = []

        def clone(source, target):
            shared.append(os.pwrite(target, os.pread(source, 100, 0), 0))
            return True

        def refuse(*_arguments, **_options):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(names, "clone", clone)
        for name in ("symlink", "link"):
            monkeypatch.setattr(os, name, refuse)
        assert publish(cache, store).link.read_bytes() == DATA
        assert shared == [len(DATA)]

    def test_too_many_hard_links_to_one_file_are_not_the_file_system_s_fault(self, cache, store, monkeypatch):
        link, tried = os.link, []

        def refuse(*_arguments, **_options):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        def link_but_once(*arguments, **options):
            tried.append(arguments)
            if len(tried) == 1:
                raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
            link(*arguments, **options)

        monkeypatch.setattr(os, "symlink", refuse)
        monkeypatch.setattr(os, "link", link_but_once)
        copied, linked = publish(cache, store, "a"), publish(cache, store, "b")
        assert not copied.link.samefile(copied.blob)
        assert linked.link.samefile(linked.blob)

    def test_a_disk_too_full_for_a_copy(self, cache, store, monkeypatch):
        def refuse(*_arguments, **_options):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        def full(*_arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        for name in ("symlink", "link"):
            monkeypatch.setattr(os, name, refuse)
        monkeypatch.setattr(names, "copy_range", full)
        with pytest.raises(DiskFullError):
            publish(cache, store)
        assert [name for name in cache.names() if "snapshots" in name] == []


class TestFailures:
    def test_a_file_that_vanished(self, cache, store):
        first, second = cache.fetch("a"), cache.fetch("b")
        batch = [(first, cache.verified(first, b"a")), (second, cache.verified(second, b"b"))]
        batch[1][1].path.unlink()
        with pytest.raises(CacheError, match="no such file"):
            store.publish(batch)
        assert not (cache.layout.path / REPO / "snapshots").exists()

    def test_no_content_digest(self, cache, store):
        fetch = cache.fetch()
        with pytest.raises(CacheError, match="no content digest"):
            store.publish([(fetch, evolve(cache.verified(fetch, DATA), digests=()))])

    @pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EROFS, CachePermissionError)])
    def test_what_storage_says(self, cache, store, monkeypatch, code, kind):
        def refuse(_handle):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(kind):
            publish(cache, store)
        assert [name for name in cache.names() if not name.startswith("tmp/")] == []

    def test_another_user_s_cache(self):
        if os.getuid() != 0:
            pytest.skip("only root can be somebody else")
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            command = [sys.executable, "-c", AS_NOBODY]
            ended = subprocess.run([*command, name], capture_output=True, text=True, check=False)
        assert ended.stderr == ""
        assert ended.stdout == f"cannot write the cache as uid 65534, gid 65534: {name}/test/hub: permission denied\n"


AS_NOBODY = """
import os, sys
from pathlib import Path
from nim_core.cache.layout import Layout
from nim_core.cache.store import Store
from nim_core.errors import CachePermissionError
from nim_core.plan import Fetch
from nim_core.types import CacheKey, ModelUri, RemoteFile
"".encode("unicode_escape")  # found while the interpreter may still be read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
uri = ModelUri(scheme="test", location="org/name")
layout = Layout(Path(sys.argv[1]))
key = CacheKey(root="test/hub", repo="r", snapshot="s")
fetch = Fetch(identity=uri, uri=uri, file=RemoteFile(path="f"), key=key)
try:
    Store(layout).link(fetch, layout.blob(key, "b"))
except CachePermissionError as exc:
    print(exc)
"""


PUBLISH_ONE = """
import sys
from pathlib import Path
from nim_core.cache.layout import Layout
from nim_core.cache.store import Store
from nim_core.plan import Fetch
from nim_core.transfer.jobs import Job, Verified
from nim_core.types import CacheKey, Digest, ModelUri, RemoteFile
uri = ModelUri(scheme="test", location="org/name")
layout = Layout(Path(sys.argv[1]))
key = CacheKey(root="test/hub", repo="r", snapshot="s", refs=("main",))
fetch = Fetch(identity=uri, uri=uri, file=RemoteFile(path="f"), key=key)
job = Job(id="1", identity=uri, file=fetch.file, locate=lambda: None)
path = layout.partials / "data"
digest = Digest("blake3", "1" * 64)
Store(layout).publish([(fetch, Verified(job=job, path=path, size=1, digests=(digest,), host=None))])
"""


def test_order_on_disk(tmp_path):
    """Data durable, renamed, its folder durable, then the link: what has a name survives a power failure whole."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "data").write_bytes(b"x")
    log = tmp_path / "log"
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,symlink,symlinkat"
    command = [strace, "-f", "-y", "-e", calls, "-o", log, sys.executable, "-c", PUBLISH_ONE, tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if not log.exists() or "ptrace" in ended.stderr:
        pytest.skip("strace is not allowed here")
    assert ended.stderr == ""
    assert [step for line in log.read_text().splitlines() if (step := step_of(line))] == [
        "sync data",
        "rename blob",
        "sync folder",
        "link",
        "rename link",
        "rename ref",
    ]


def step_of(line):
    """Return what a line of the log does to the cache. Empty for anything else."""
    if "fsync(" in line:
        return {"tmp/data>": "sync data", "/r/blobs>": "sync folder"}.get(line.split(")")[0][-9:], "")
    if "symlink(" in line:
        return "link"
    if "rename(" in line:
        target = line.split('", "')[1]
        places = {"/blobs/": "rename blob", "/snapshots/": "rename link", "/refs/": "rename ref"}
        return next((step for place, step in places.items() if place in target), "")
    return ""


def test_a_new_store_knows_nothing_of_an_earlier_one(cache):
    publish(cache, Store(cache.layout))
    publish(cache, Store(Layout(cache.layout.path)), "b")
    assert len([name for name in cache.names() if "/blobs/" in name]) == 1
