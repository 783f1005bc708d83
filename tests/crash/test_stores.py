"""
A model store whose making is killed, or whose power fails.

A store that looks complete, by its ``checksums.blake3``, is complete; a folder that was not there appears whole; the
same command completes what is not, and leaves nothing behind.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.power_loss import Tree, after_power_loss, tree_after
from nim_core.testing.storage import killing, recorded
from tests.crash.commands import ALL, command, environment
from tests.crash.results import SEED
from tests.faults.shelf import URI, Shelf

MIB = 1 << 20
FILES = {
    "model-1.bin": PatternContent(length=24 * MIB + 1, seed=1),
    "nested/model-2.bin": PatternContent(length=9 * MIB, seed=2),
    "config.json": inline('{"a": 1}\n'),
    "empty.txt": inline(b""),
    **{f"nested/{number % 3}/small-{number}.bin": PatternContent(length=number * 977) for number in range(1, 30)},
}
SECONDS = 60
KILLS = 30 if ALL else 6
CALLS = ["rename", "link", "linkat", "fsync", "mkdir", "openat", "pwrite64", "unlink", "rmdir"]
IN_CALLS = [(call, number) for call in CALLS for number in (1, 2, 3, 5, 8)] if ALL else [("rename", 3), ("fsync", 4)]


@pytest.fixture(scope="module")
def variables(installed, tmp_path_factory):
    """The environment of a cache that has the model."""
    cache = tmp_path_factory.mktemp("cache")
    with HttpOrigin("shelf", Shelf(FILES), log=RequestLog()) as origin:
        made = environment(origin.url, cache, installed)
        subprocess.run(command(), env=made, cwd=cache, capture_output=True, timeout=SECONDS, check=True)
    return {**made, "NIM_DISABLE_MODEL_DOWNLOAD": "1"}


def store_command(folder: Path, *options: str) -> list[str]:
    installed = str(Path(sys.executable).with_name("create-model-store"))
    return [installed, "--model-repo", URI, "--model-store", str(folder), *options]


def violations(store: Path, *, appears: bool) -> list[str]:
    """Return what is wrong with a store whose making may have been killed."""
    found = {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}
    found = {path for path in found if not path.startswith((".model-store", "..model-store"))}
    wrong = [path for path in found & FILES.keys() if (store / path).read_bytes() != FILES[path].data()]
    complete = "checksums.blake3" in found
    if complete or (appears and store.exists()):
        wrong += [f"lacks {path}" for path in sorted({*FILES, "checksums.blake3"} - found)]
    if complete:
        lines = [f"{it.digest('blake3').value}  {path}" for path, it in sorted(FILES.items())]
        wrong += [] if (store / "checksums.blake3").read_text().splitlines() == lines else ["wrong checksums"]
    return wrong + [f"is not of the model: {path}" for path in found - {*FILES, "checksums.blake3"}]


def finish(store: Path, variables) -> None:
    """Run the command to its end; then all is right, and what killed runs left is gone, or next to nothing."""
    done = subprocess.run(
        store_command(store), env=variables, cwd="/", capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (store / "checksums.blake3").exists()
    assert violations(store, appears=True) == []
    left = [*store.parent.glob(".model-store*"), *store.glob(".model-store*")]
    assert left == []


def run(store: Path, variables, options=(), delay: float | None = None) -> tuple[int, float]:
    """Run the command, killed ``delay`` seconds after it has begun a store; return its end, and how long it made it."""
    line, began = store_command(store, *options), None
    with subprocess.Popen(line, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and (began is None or delay is None or time.monotonic() - began < delay):
            if began is None and (any(store.parent.glob(".model-store*")) or any(store.glob(".model-store*"))):
                began = time.monotonic()
            time.sleep(0.0005)
        process.kill()
        _, said = process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, said
    return process.returncode, 0.0 if began is None else time.monotonic() - began


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "a folder that is there"])
@pytest.mark.parametrize("options", [(), ("--copy",)], ids=["links", "copies"])
def test_kills_at_random_moments(variables, tmp_path, there, options):
    chance = random.Random(f"{SEED} {there} {options}")
    _, usual = run(tmp_path / "measured/store", variables, options)
    assert usual > 0
    kills = 0
    for number in range(4 * KILLS):
        store = tmp_path / f"{number}/store"
        (store if there else store.parent).mkdir(parents=True)
        for _ in range(1 + chance.randrange(3)):
            code, _ = run(store, variables, options, chance.uniform(0, usual))
            kills += code != 0
            assert violations(store, appears=not there) == []
        finish(store, variables)
        shutil.rmtree(store.parent)
        if kills >= KILLS:
            break
    assert kills >= KILLS


@pytest.mark.parametrize(("call", "number"), IN_CALLS)
@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "a folder that is there"])
def test_kills_within_calls(traceable, variables, tmp_path, there, call, number):
    store = tmp_path / "shelves/store"
    (store if there else store.parent).mkdir(parents=True)
    line = [*killing(call, number), *store_command(store, "--copy")]
    done = subprocess.run(line, env=variables, cwd="/", capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode in {0, -signal.SIGKILL, 128 + signal.SIGKILL}, done.stderr
    assert violations(store, appears=not there) == []
    finish(store, variables)


_BY_HAND = """
import errno, os
def refuse(*_): raise OSError(errno.ENOSYS, "not here")
os.copy_file_range = refuse
from nim_core.cli.app import create_model_store
create_model_store()
"""


@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "a folder that is there"])
def test_the_power_fails(traceable, variables, tmp_path, there):
    """Copies are made by the program itself, so that the recording has their bytes."""
    folder = tmp_path / "disk"
    (folder / "store" if there else folder).mkdir(parents=True)
    line = [sys.executable, "-c", _BY_HAND, *store_command(folder / "store", "--copy")[1:]]
    recording = recorded(line, folder, environment=variables, cwd=tmp_path)
    assert recording.code == 0, recording.stderr
    operations = recording.operations
    assert tree_after(operations) == Tree.of(folder)
    chance = random.Random(f"{SEED} power {there}")
    for draw in range(100 if ALL else 15):
        stop = len(operations) if draw % 3 == 0 else chance.randrange(recording.already, len(operations) + 1)
        state = after_power_loss(operations[:stop], chance)
        disk = tmp_path / f"after-{draw}"
        state.write_to(disk)
        assert violations(disk / "store", appears=not there) == [], f"after {stop} operations"
        assert stop < len(operations) or (disk / "store/checksums.blake3").exists()
        shutil.rmtree(disk)


def test_two_at_once_make_one_store(variables, tmp_path):
    store = tmp_path / "store"
    running = [
        subprocess.Popen(store_command(store), env={**variables, "HOME": os.devnull}, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=SECONDS)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    finish(store, variables)
