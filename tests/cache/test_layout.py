"""Names in the cache: no two places share one, and nothing is made outside."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nim_core.cache.layout import Layout, default_key, folder_error, make_folder
from nim_core.errors import CacheError, CachePermissionError, DiskFullError, InvalidUriError
from nim_core.types import CacheKey, ModelUri, UriStyle

KEY = CacheKey(root="test/hub", repo="models--org--name", snapshot="v1")

unhurried = settings(deadline=None)


def uri(location, revision=None, style=UriStyle.REPOSITORY):
    return ModelUri(scheme="x", location=location, revision=revision, style=style)


class TestLayout:
    def test_paths(self, tmp_path):
        layout = Layout(tmp_path)
        found = [
            layout.receipts,
            layout.manifests,
            layout.partials,
            layout.repo(KEY),
            layout.blob(KEY, "abc"),
            layout.snapshot(KEY),
        ]
        assert [path.relative_to(tmp_path).as_posix() for path in found] == [
            "receipts",
            "manifests",
            "tmp",
            "test/hub/models--org--name",
            "test/hub/models--org--name/blobs/abc",
            "test/hub/models--org--name/snapshots/v1",
        ]

    def test_a_root_elsewhere(self, tmp_path):
        key = CacheKey(root="/elsewhere/hub", repo="r", snapshot="s")
        assert Layout(tmp_path).blob(key, "b").as_posix() == "/elsewhere/hub/r/blobs/b"

    @pytest.mark.parametrize(
        ("path", "expected"), [("/c/a/b", "a/b"), ("/c", "."), ("/cc/a", "/cc/a"), ("/elsewhere/b", "/elsewhere/b")]
    )
    def test_relative(self, tmp_path, path, expected):
        assert Layout(Path("/c")).relative(Path(path)) == expected

    def test_a_resolved_path_gets_its_name_in_the_cache_back(self, tmp_path):
        (tmp_path / "volume").mkdir()
        (tmp_path / "other").mkdir()
        (tmp_path / "cache").symlink_to("volume")
        (tmp_path / "volume" / "test").mkdir()
        (tmp_path / "volume" / "test" / "hub").symlink_to(tmp_path / "other")
        layout = Layout(tmp_path / "cache")
        assert layout.unresolved(tmp_path / "volume" / "receipts", KEY) == layout.receipts
        assert layout.unresolved(tmp_path / "other" / "r" / "blobs" / "b", KEY) == layout.root(KEY) / "r/blobs/b"
        assert layout.unresolved(tmp_path / "outside", KEY) == tmp_path / "outside"

    def test_what_is_in_it(self, tmp_path):
        layout = Layout(tmp_path / "cache")
        elsewhere = CacheKey(root=str(tmp_path / "hf"), repo="r", snapshot="s")
        assert layout.has(layout.blob(KEY, "b"), KEY)
        assert layout.has(layout.blob(elsewhere, "b"), elsewhere)
        assert not layout.has(layout.blob(elsewhere, "b"), KEY)
        assert not layout.has(tmp_path / "cached" / "b", KEY)


class TestDefaultKey:
    @pytest.mark.parametrize(
        ("where", "pinned", "expected"),
        [
            (uri("org/name"), None, ("models--org--name", "current", ())),
            (uri("org/name", "main"), None, ("models--org--name", "main", ())),
            (uri("org/name", "main"), "abc", ("models--org--name", "abc", ("main",))),
            (uri("org/name", "abc"), "abc", ("models--org--name", "abc", ())),
            (uri("org/name"), "abc", ("models--org--name", "abc", ())),
            (uri("org/name", "refs/pr/1"), "abc", ("models--org--name", "abc", ("refs/pr/1",))),
            (uri("org/name", "a/b c"), None, ("models--org--name", "a%2Fb%20c", ())),
            (uri("org/team/name", "1.0+x"), None, ("models--org--team--name", "1.0+x", ())),
            (uri("bucket/a/b.bin", style=UriStyle.OBJECT), None, ("models--bucket--a", "current", ())),
            (uri("bucket/b.bin", style=UriStyle.OBJECT), None, ("models--bucket", "current", ())),
            (uri("bucket", style=UriStyle.OBJECT), None, ("models--bucket", "current", ())),
            (uri("u:pw@host:81/a/b", style=UriStyle.OBJECT), None, ("models--host%3A81--a", "current", ())),
            (uri("/data/models/x", style=UriStyle.PATH), None, ("models--data--models--x", "current", ())),
            (uri("a--b/-c-"), None, ("models--a-%2Db--%2Dc%2D", "current", ())),
        ],
    )
    def test_table(self, where, pinned, expected):
        key = default_key(where, pinned)
        assert key.root == "x/hub"
        assert (key.repo, key.snapshot, key.refs) == expected

    @unhurried
    @given(
        st.lists(st.lists(st.text("ab-/%", min_size=1, max_size=4), min_size=1, max_size=3), min_size=2, max_size=2),
        st.sampled_from([UriStyle.REPOSITORY, UriStyle.PATH, UriStyle.OBJECT]),
    )
    def test_two_places_never_share_a_repository(self, places, style):
        parts = [[part.replace("/", "") or "a" for part in place] for place in places]
        suffix = ["file"] if style is UriStyle.OBJECT else []
        keys = [default_key(uri("/".join([*each, *suffix]), style=style), None).repo for each in parts]
        assert (keys[0] == keys[1]) is (parts[0] == parts[1])

    def test_objects_of_one_name_in_two_folders_do_not_meet(self):
        first, second = (default_key(uri(f"b/{folder}/config.json", style=UriStyle.OBJECT), None) for folder in "xy")
        assert first.repo != second.repo

    def test_long_names_are_cut_and_still_differ(self):
        names = ["/".join(["part" * 10] * 20 + [end]) for end in ("x", "y")]
        first, second = (default_key(uri(name), None).repo for name in names)
        assert first != second
        assert max(len(first), len(second)) < 255

    def test_no_userinfo_is_in_a_name(self):
        key = default_key(uri("user:hunter2@host/a/b.bin", style=UriStyle.OBJECT), None)
        assert "hunter2" not in str(key)
        assert "user" not in str(key)

    def test_no_signature_is_in_a_name(self):
        key = default_key(uri("bucket/b.bin?X-Amz-Credential=hunter2/2025/x&a=1", style=UriStyle.OBJECT), None)
        assert "hunter2" not in str(key)


class TestMakeFolder:
    def test_it_is_made_with_all_above(self, tmp_path):
        assert make_folder(tmp_path / "a" / "b", "c/d") == tmp_path / "a" / "b" / "c" / "d"
        assert (tmp_path / "a" / "b" / "c" / "d").is_dir()

    def test_it_may_be_there(self, tmp_path):
        for _ in range(2):
            make_folder(tmp_path, "a/b")
        assert make_folder(tmp_path, "") == tmp_path

    def test_where_nobody_can_make_anything(self):
        with pytest.raises(CacheError, match="cannot use the cache: /proc/none"):
            make_folder(Path("/proc/none/deep"), "a")

    def test_the_base_may_be_a_link(self, tmp_path):
        (tmp_path / "volume").mkdir()
        (tmp_path / "base").symlink_to("volume")
        make_folder(tmp_path / "base", "a")
        assert (tmp_path / "volume" / "a").is_dir()

    @pytest.mark.parametrize("depth", ["a", "a/b"])
    @pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
    def test_links_below_are_not_followed(self, tmp_path, depth, target):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        base = tmp_path / "base"
        link = base / depth
        link.parent.mkdir(parents=True)
        link.symlink_to(tmp_path / target)
        with pytest.raises(CacheError, match="not a folder of the cache's own") as caught:
            make_folder(base, f"{depth}/c")
        assert str(link) in str(caught.value)
        assert list(elsewhere.iterdir()) == []
        assert not (tmp_path / "nowhere").exists()

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "a").write_text("x")
        with pytest.raises(CacheError, match="not a folder of the cache's own"):
            make_folder(tmp_path, "a/b")
        with pytest.raises(CacheError):
            make_folder(tmp_path / "a", "b")

    @pytest.mark.parametrize("relative", ["..", "a/../b", "/a", "a//b", ".", "a/.", "a\0b"])
    def test_names_that_lead_elsewhere(self, tmp_path, relative):
        with pytest.raises(InvalidUriError):
            make_folder(tmp_path / "base", relative)
        assert list(tmp_path.iterdir()) == []

    def test_many_at_once(self, tmp_path):
        start, errors = threading.Barrier(8), []

        def make(number):
            start.wait()
            try:
                for depth in range(10):
                    make_folder(tmp_path, "/".join(f"d{level}" for level in range(depth + 1)) + f"/{number % 2}")
            except CacheError as exc:
                errors.append(exc)

        threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    def test_no_handle_is_left(self, tmp_path):
        (tmp_path / "file").write_text("x")
        before = os.open(os.devnull, os.O_RDONLY)
        os.close(before)
        make_folder(tmp_path, "a/b/c/d")
        with pytest.raises(CacheError):
            make_folder(tmp_path, "file/c")
        after = os.open(os.devnull, os.O_RDONLY)
        os.close(after)
        assert before == after


AS_NOBODY = """
import os, sys
from pathlib import Path
from nim_core.cache.layout import make_folder
from nim_core.errors import CachePermissionError
"".encode("unicode_escape")  # found while the interpreter may still be read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    make_folder(Path(sys.argv[1]), "a/b")
except CachePermissionError as exc:
    print(exc)
"""


class TestErrors:
    @pytest.fixture
    def readable(self):
        """A folder that others can reach and not write, which those of pytest are not."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)
            yield folder

    def test_a_folder_that_may_not_be_written_is_named_with_the_user(self, readable):
        if os.getuid() != 0:
            pytest.skip("only root can be somebody else")
        command = [sys.executable, "-c", AS_NOBODY]
        ended = subprocess.run([*command, str(readable)], capture_output=True, text=True, check=False)
        assert ended.stderr == ""
        where = readable / "a"
        assert ended.stdout == f"cannot write the cache as uid 65534, gid 65534: {where}: permission denied\n"

    @pytest.mark.parametrize(
        ("code", "kind", "words"),
        [
            (errno.EACCES, CachePermissionError, "permission denied"),
            (errno.EPERM, CachePermissionError, "permission denied"),
            (errno.EROFS, CachePermissionError, "read-only file system"),
            (errno.ENOSPC, DiskFullError, "no space left on device: /Cache"),
            (errno.EDQUOT, DiskFullError, "no space left on device: /Cache"),
            (errno.ENOTDIR, CacheError, "not a folder of the cache's own: /Cache"),
            (errno.ELOOP, CacheError, "not a folder of the cache's own: /Cache"),
            (errno.EIO, CacheError, "cannot use the cache: /Cache: input/output error"),
        ],
    )
    def test_table(self, tmp_path, code, kind, words):
        error = folder_error(OSError(code, os.strerror(code)), Path("/Cache"))
        assert type(error) is kind
        assert words in str(error)
        assert "/Cache" in str(error)

    def test_permissions_name_the_user_and_the_way_out(self, tmp_path):
        error = folder_error(PermissionError(errno.EACCES, "Permission denied"), tmp_path)
        assert f"uid {os.getuid()}, gid {os.getgid()}" in str(error)
        assert "NIM_CACHE_PATH" in error.hint

    def test_an_error_without_a_number(self, tmp_path):
        assert str(folder_error(OSError("Odd"), tmp_path)) == f"cannot use the cache: {tmp_path}: Odd"


class TestAGroupsFolder:
    @pytest.fixture(autouse=True)
    def _umask(self):
        previous = os.umask(0o022)
        yield
        os.umask(previous)

    @pytest.mark.parametrize(
        ("above", "umask", "made"), [(0o2775, 0o022, 0o070), (0o2775, 0o077, 0), (0o775, 0o022, 0o050)]
    )
    def test_what_is_made_in_it_is_the_groups_to_write(self, tmp_path, above, umask, made):
        (tmp_path / "volume").mkdir()
        (tmp_path / "volume").chmod(above)
        os.umask(umask)
        make_folder(tmp_path / "volume/base", "a/b")
        for name in ("base", "base/a", "base/a/b"):
            assert (tmp_path / "volume" / name).stat().st_mode & 0o070 == made
