"""
The power fails in the middle of a download.

A real run of the command is recorded; after each of many of its operations, the disk is put into one of the states that
file systems allow then. Whatever that is, nothing wrong may be visible, and the same command completes the download.
"""

from __future__ import annotations

import os
import random
import shutil

import pytest
from attrs import frozen

from nim_core.testing import bad_answers as bad
from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.misbehaving import in_turn
from nim_core.testing.power_loss import Sync, Tree, Write, after_power_loss, tree_after
from nim_core.testing.storage import Recording, recorded
from tests.crash.commands import ALL, PART_BYTES, command, environment, small_parts
from tests.faults.downloads import Downloads
from tests.faults.invariants import violations
from tests.faults.shelf import Shelf

FILES = {
    "model-1.bin": PatternContent(length=3 * PART_BYTES + 12_345, seed=1),
    "model-2.bin": PatternContent(length=2 * PART_BYTES + 1, seed=2),
    "nested/deeper/model-3.bin": PatternContent(length=PART_BYTES + PART_BYTES // 2, seed=3),
    "config.json": inline('{"a": 1}\n'),
    "empty.txt": inline(b""),
    **{f"nested/small-{number}.bin": PatternContent(length=number * 977, seed=number) for number in range(1, 9)},
}
DRAWS = int(os.environ.get("NIM_TEST_POWER_LOSSES", "200" if ALL else "10"))


@frozen
class Recorded:
    """A recording, and the points at which it is interesting to stop."""

    recording: Recording

    def stop(self, chance):
        """Return after how many operations the power fails: mostly around flushes and changes of names."""
        operations = self.recording.operations
        first = self.recording.already
        if chance.random() < 0.2:
            return chance.randrange(first, len(operations) + 1)
        events = [number for number in range(first, len(operations)) if not isinstance(operations[number], Write)]
        return min(len(operations), chance.choice(events) + chance.randrange(2))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, installed, traceable):
    """A run that is refused half-way, one that goes on with what that left, and one that meets no trouble."""
    folder = tmp_path_factory.mktemp("recorded")
    refusing = lambda request, number: bad.status(402) if "model" in request.path and number > 1 else None  # noqa: E731
    return {
        "refused half-way": record(folder / "a", installed, refusing, 34),
        "going on": record(folder / "a", installed, in_turn(), 0),
        "undisturbed": record(folder / "b", installed, in_turn(), 0),
    }


def record(cache, installed, script, code):
    cache.mkdir(exist_ok=True)
    with HttpOrigin("shelf", Shelf(FILES, script), log=RequestLog()) as origin:
        variables = environment(origin.url, cache, installed)
        recording = recorded(command(small=True), cache, environment=variables, cwd=installed)
    assert recording.code == code, recording.stderr
    assert tree_after(recording.operations) == Tree.of(cache), "the recording does not say everything that was done"
    return Recorded(recording)


@pytest.fixture(scope="module")
def shelf():
    with HttpOrigin("shelf", Shelf(FILES), log=RequestLog()) as origin:
        yield origin


@pytest.mark.parametrize("name", ["refused half-way", "going on", "undisturbed"])
@pytest.mark.parametrize("seed", range(DRAWS))
def test_what_is_visible_is_right_and_a_rerun_completes(recordings, installed, shelf, tmp_path, name, seed):
    chance = random.Random(f"{name} {seed}")
    found = recordings[name]
    stop = found.stop(chance)
    state = after_power_loss(found.recording.operations[:stop], chance)
    cache = tmp_path / "cache"
    state.write_to(cache)
    assert violations(cache, FILES) == [], f"after {stop} operations"
    with small_parts():
        error = Downloads(cache=cache, installed=installed).fetch(shelf.url)
    assert error is None
    assert violations(cache, FILES, complete=True) == []
    shutil.rmtree(cache)


def test_a_finished_download_survives_whole(recordings):
    operations = recordings["undisturbed"].recording.operations
    whole = tree_after(operations)
    visible = {path: data for path, data in whole.files.items() if "/blobs/" in path or path.startswith("receipts/")}
    for seed in range(50):
        state = after_power_loss(operations, random.Random(seed))
        assert {path: data for path, data in state.files.items() if path in visible} == visible
        assert state.links == whole.links


def test_a_recording_has_flushes_of_files_and_folders(recordings):
    """Else the tests above would prove nothing."""
    flushed = [it.node for it in recordings["undisturbed"].recording.operations if isinstance(it, Sync)]
    assert len(set(flushed)) >= 4
