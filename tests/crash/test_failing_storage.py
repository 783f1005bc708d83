"""
The disk is full, or fails, at any moment of a download.

Calls of the real command fail as the kernel would have them fail. It ends with a documented exit code and its last
words say what the storage said; nothing wrong is visible, and the same command completes once the storage works again.
"""

from __future__ import annotations

import itertools
import subprocess

import pytest

from nim_core import errors
from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.storage import failing, small_disk
from tests.crash.commands import ALL, PART_BYTES, command, environment
from tests.faults.invariants import violations
from tests.faults.shelf import Shelf

FILES = {
    "model.bin": PatternContent(length=3 * PART_BYTES + 1, seed=1),
    "nested/other.bin": PatternContent(length=PART_BYTES + 1, seed=2),
    "config.json": inline('{"a": 1}\n'),
    "empty.txt": inline(b""),
}
STORAGE_CODES = {errors.CacheError.exit_code, errors.DiskFullError.exit_code, errors.CachePermissionError.exit_code}
CALLS = ["ftruncate", "fsync", "mkdir", "pwrite64", "rename", "symlink"]
ERRORS = ["ENOSPC", "EIO"]
FAILURES = list(itertools.product(ERRORS, [1, 2, 3, 5, 9])) if ALL else [("ENOSPC", 1), ("EIO", 2)]
SECONDS = 30


@pytest.fixture(scope="module")
def shelf():
    with HttpOrigin("shelf", Shelf(FILES), log=RequestLog()) as origin:
        yield origin


@pytest.fixture
def download(shelf, installed, tmp_path):
    """Return a function that runs the command on the cache, within another program if one is given."""

    def run(cache, within=(), *arguments):
        return subprocess.run(
            [*within, *command(*arguments, small=True)],
            env=environment(shelf.url, cache, installed),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run


@pytest.mark.parametrize(("error", "first"), FAILURES)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_fails_from_some_time_on(traceable, download, tmp_path, call, error, first):
    cache = tmp_path / "cache"
    ended = download(cache, failing(call, error, first=first))
    assert violations(cache, FILES, complete=ended.returncode == 0) == []
    assert ended.returncode in {0, *STORAGE_CODES}, ended.stderr
    if ended.returncode:
        words = "no space left on device" if error == "ENOSPC" else "input/output error"
        assert words in ended.stderr.splitlines()[-1].lower()
    if error == "ENOSPC" and ended.returncode:
        assert ended.returncode == errors.DiskFullError.exit_code
    again = download(cache)
    assert again.returncode == 0, again.stderr
    assert violations(cache, FILES, complete=True) == []


@pytest.mark.parametrize("call", ["fsync", "pwrite64", "ftruncate", "mkdir", "rename"])
def test_a_call_that_always_fails_ends_the_command(traceable, download, tmp_path, call):
    ended = download(tmp_path / "cache", failing(call, "EIO"))
    assert ended.returncode in STORAGE_CODES, ended.stderr


@pytest.mark.parametrize("kept", [10_000, 500_000, PART_BYTES + 70_000, 3 * PART_BYTES, 4 * PART_BYTES])
def test_the_disk_is_full_at_a_byte(download, tmp_path, kept):
    """Nothing is fetched that cannot fit; where the disk fills up meanwhile, what is there stays."""
    try:
        with small_disk(tmp_path / "disk", 6 * PART_BYTES):
            cache = tmp_path / "disk/cache"
            ballast = tmp_path / "disk/ballast"
            ballast.write_bytes(bytes(6 * PART_BYTES - kept))
            full = download(cache)
            assert full.returncode == errors.DiskFullError.exit_code, full.stderr
            assert violations(cache, FILES) == []
            ballast.unlink()
            again = download(cache)
            assert again.returncode == 0, again.stderr
            assert violations(cache, FILES, complete=True) == []
    except PermissionError as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("error", ["EPERM", "EOPNOTSUPP"])
@pytest.mark.parametrize("calls", ["symlink", "symlink,link,linkat", "symlink,link,linkat,copy_file_range"])
def test_a_file_system_without_links(traceable, download, shelf, tmp_path, calls, error):
    cache = tmp_path / "cache"
    within = failing(calls, error)
    ended = download(cache, within)
    assert ended.returncode == 0, ended.stderr
    assert violations(cache, FILES, complete=True) == []
    names = [path for path in cache.glob("shelf/hub/*/snapshots/*/**/*") if not path.is_dir()]
    assert {path.stat().st_nlink for path in names} == ({2} if calls == "symlink" else {1})
    assert not any(path.is_symlink() for path in names)
    shelf.log.clear()
    for more in (["--use-cache"], [], ["--verify"]):
        again = download(cache, within, *more)
        assert again.returncode == 0, again.stderr
        assert violations(cache, FILES, complete=True) == []
    assert shelf.log.count(route="file") == 0
