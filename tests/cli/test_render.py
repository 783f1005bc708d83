from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from attrs import evolve
from rich.console import Console

from nim_core.cli.live import draw, live_progress
from nim_core.cli.logging import HUMAN
from nim_core.cli.render import Display, Troubles, heartbeat, planned_text, progress_text
from nim_core.cli.tally import ActiveFile, Snapshot, Tally
from nim_core.plan import Fetch, Plan, Present
from nim_core.types import CacheKey, ModelUri, RemoteFile, TransferEvent

URI = ModelUri(scheme="store", location="a/b", revision="v1", file="model.bin")
FETCH = Fetch(
    identity=URI,
    uri=URI,
    file=RemoteFile(path="model.bin", size=2_900_000_000),
    key=CacheKey(root="store/hub", repo="models--a", snapshot="v1"),
)
PRESENT = Present(identity=URI, blob=Path("/blob"), link=None, size=1_100_000_000, mtime_ns=0)
SNAPSHOT = Snapshot(
    phase="fetching",
    seconds=7,
    done=1_230_000_000,
    total=2_900_000_000,
    files_done=3,
    files=18,
    speed=210_000_000,
    active=tuple(ActiveFile(name=f"part-{number}.bin", done=number * 10**6, total=10**8) for number in range(6)),
)
RETRY = TransferEvent(
    kind="retry", uri=str(URI), file="model.bin", host="cdn", offset=7, seconds=1.44, reason="reset after 0 ms"
)


class FakeLog:
    """Remembers what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def debug(self, event: str, **facts: object) -> None:
        self.lines.append(("debug", event, facts))

    def info(self, event: str, **facts: object) -> None:
        self.lines.append(("info", event, facts))

    def warning(self, event: str, **facts: object) -> None:
        self.lines.append(("warning", event, facts))


@pytest.mark.parametrize(
    ("snapshot", "text"),
    [
        (SNAPSHOT, "downloading  42%  1.2/2.9 GB  210 MB/s  3/18 files  8 s left"),
        (evolve(SNAPSHOT, done=2_900_000_000), "downloading 100%  2.9/2.9 GB  210 MB/s  3/18 files  0 s left"),
        (evolve(SNAPSHOT, done=0, speed=0.0), "downloading   0%  0.0/2.9 GB  0 B/s  3/18 files"),
        (evolve(SNAPSHOT, total=None), "downloading  1.2 GB  210 MB/s  3/18 files"),
        (Snapshot(phase="listing", seconds=12.3), "listing  12 s"),
        (evolve(SNAPSHOT, phase="finishing"), "finishing  7 s"),
    ],
)
def test_progress_as_a_line(snapshot: Snapshot, text: str) -> None:
    assert progress_text(snapshot) == text


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Plan(fetches=(FETCH,)), "to fetch: 1 file, 2.9 GB"),
        (Plan(present=(PRESENT,) * 3), "nothing to fetch; on this machine: 3 files, 3.3 GB"),
        (
            Plan(fetches=(FETCH, evolve(FETCH, file=RemoteFile(path="x")))),
            "to fetch: 2 files, 2.9 GB and 1 of unknown size",
        ),
    ],
)
def test_a_plan_as_a_line(plan: Plan, text: str) -> None:
    assert planned_text(plan) == text


def test_trouble_is_logged_once_in_a_while() -> None:
    log, now = FakeLog(), [0.0]
    troubles = Troubles(log, lambda: now[0])
    for number in range(10):
        troubles.event(evolve(RETRY, reason=f"reset after {number} ms"))
    now[0] = 6.0
    troubles.event(RETRY)
    troubles.event(evolve(RETRY, reason="other"))
    facts = {"file": "model.bin", "host": "cdn", "offset": 7, "reason": "reset after 0 ms", "seconds": 1.4}
    assert log.lines == [
        ("warning", "transfer_retry", facts),
        ("warning", "transfer_retry", facts | {"repeated": 9}),
        ("warning", "transfer_retry", facts | {"reason": "other"}),
    ]


def test_the_display_counts_and_logs() -> None:
    log, tally = FakeLog(), Tally()
    display = Display(tally, log)
    display.phase("fetching")
    display.planned(Plan(fetches=(FETCH,), present=(PRESENT,)))
    display.event(TransferEvent(kind="started", uri=str(URI), file="model.bin", bytes=0))
    display.event(TransferEvent(kind="published", uri=str(URI), file="model.bin", bytes=2_900_000_000))
    assert tally.snapshot().files_done == 1
    assert [(level, event) for level, event, _ in log.lines] == [
        ("debug", "phase"),
        ("info", "planned"),
        ("debug", "file_published"),
    ]


def test_whom_it_waits_for_is_said_at_once_and_once() -> None:
    log = FakeLog()
    display = Display(Tally(), log)
    for phase in ("listing", "waiting for process 1 on a", "waiting for process 1 on a (5%)", "fetching"):
        display.phase(phase)
    assert [(event, facts["phase"]) for level, event, facts in log.lines if level == "info"] == [
        ("waiting", "waiting for process 1 on a")
    ]


def test_a_heartbeat() -> None:
    log, tally = FakeLog(), Tally()
    tally.planned(Plan(fetches=(FETCH,)))
    with heartbeat(tally, log, 0.01):
        time.sleep(0.05)
        assert log.lines == []
        tally.phase("fetching")
        deadline = time.monotonic() + 10
        while not log.lines and time.monotonic() < deadline:
            time.sleep(0.01)
    count = len(log.lines)
    level, event, facts = log.lines[0]
    assert (level, event, facts["percent"], facts["files"]) == ("info", "progress", 0, 1)
    assert str(facts[HUMAN]).startswith("downloading   0%")
    time.sleep(0.03)
    assert len(log.lines) == count


def drawn(snapshot: Snapshot, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, legacy_windows=False)
    console.print(draw(snapshot))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


def test_the_live_display() -> None:
    lines = drawn(SNAPSHOT, 100)
    assert re.fullmatch(r"━{9,11}[╸╺]?[━ ]*" + re.escape(progress_text(SNAPSHOT)), lines[0])
    assert lines[1:] == [
        "  part-0.bin    0.0/100 MB",
        "  part-1.bin    1.0/100 MB",
        "  part-2.bin    2.0/100 MB",
        "  part-3.bin    3.0/100 MB",
        "  and 2 more",
    ]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_the_live_display_keeps_within_the_terminal(width: int) -> None:
    wide = evolve(SNAPSHOT, active=(ActiveFile(name="a/very/long/" * 20, done=1, total=None),))
    for snapshot in (SNAPSHOT, wide, Snapshot(), Snapshot(phase="listing", seconds=3)):
        lines = drawn(snapshot, width)
        assert max(map(len, lines)) <= width
        assert len(lines) <= 6


def test_names_cannot_bring_markup() -> None:
    odd = evolve(SNAPSHOT, active=(ActiveFile(name="[red]x[/red]", done=0, total=1),))
    assert drawn(odd, 80)[1].startswith("  [red]x[/red]")


def test_lines_above_the_live_display_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with live_progress(Tally()) as write:
        write("x" * 300 + " [bold]y")
    assert "x" * 300 + " [bold]y" in capsys.readouterr().err
