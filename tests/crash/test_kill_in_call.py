"""A download that is killed as it enters a system call: in the middle of publishing, as often as it takes."""

from __future__ import annotations

import itertools
import signal
import subprocess

import pytest

from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.storage import killing
from tests.crash.commands import ALL, PART_BYTES, command, environment
from tests.crash.killing import SECONDS, dangling, leftovers
from tests.faults.invariants import violations
from tests.faults.shelf import Shelf

FILES = {
    "model.bin": PatternContent(length=3 * PART_BYTES + 1, seed=1),
    "nested/other.bin": PatternContent(length=2 * PART_BYTES, seed=2),
    "config.json": inline('{"a": 1}\n'),
    "empty.txt": inline(b""),
}
CALLS = ["fsync", "ftruncate", "mkdir", "pwritev", "rename", "rmdir", "symlink", "unlink", "unlinkat"]
KILLS = list(itertools.product(CALLS, range(1, 6))) if ALL else [("rename", 4), ("symlink", 1), ("unlink", 2)]


@pytest.fixture(scope="module")
def shelf():
    with HttpOrigin("shelf", Shelf(FILES), log=RequestLog()) as origin:
        yield origin


@pytest.mark.parametrize(("call", "number"), KILLS)
def test_what_is_visible_is_right_and_a_rerun_completes(traceable, shelf, installed, tmp_path, call, number):
    cache = tmp_path / "cache"

    def download(within=()):
        return subprocess.run(
            [*within, *command(small=True)],
            env=environment(shelf.url, cache, installed),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    killed = download(killing(call, number))
    assert killed.returncode in {0, -signal.SIGKILL, 128 + signal.SIGKILL}, killed.stderr
    assert violations(cache, FILES, complete=killed.returncode == 0) == []
    assert list(dangling(cache)) == []
    again = download()
    assert again.returncode == 0, again.stderr
    assert violations(cache, FILES, complete=True) == []
    assert leftovers(cache, FILES) == []
