from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from nim_core.cli.tally import ActiveFile, Snapshot, Tally
from nim_core.plan import Fetch, Plan
from nim_core.types import CacheKey, ModelUri, RemoteFile, TransferEvent

KEY = CacheKey(root="store/hub", repo="models--a", snapshot="v1")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def uri(name: str) -> ModelUri:
    return ModelUri(scheme="store", location="a/b", revision="v1", file=name)


def plan(**sizes: int | None) -> Plan:
    return Plan(
        fetches=tuple(
            Fetch(identity=uri(name), uri=uri(name), file=RemoteFile(path=name, size=size), key=KEY)
            for name, size in sizes.items()
        )
    )


def event(kind: str, name: str, count: int | None = None, total: int | None = None) -> TransferEvent:
    return TransferEvent(kind=kind, uri=str(uri(name)), file=name, bytes=count, total=total)  # type: ignore[arg-type]


def started(clock: Clock, **sizes: int | None) -> Tally:
    tally = Tally(clock)
    tally.planned(plan(**sizes))
    tally.phase("fetching")
    return tally


def test_before_anything() -> None:
    assert Tally(Clock()).snapshot() == Snapshot(total=0)


def test_a_phase_lasts() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.phase("listing")
    clock.now += 3
    assert tally.snapshot() == Snapshot(phase="listing", seconds=3, total=0)


def test_a_download() -> None:
    clock = Clock()
    tally = started(clock, a=1000, b=500)
    for item in (event("started", "a", 200, 1000), event("started", "b", 0, 500), event("progress", "a", 300, 1000)):
        tally.event(item)
    clock.now += 2
    tally.event(event("published", "b", 500, 500))
    assert tally.snapshot() == Snapshot(
        phase="fetching",
        seconds=2,
        done=1000,
        total=1500,
        files_done=1,
        files=2,
        speed=150,
        active=(ActiveFile(name="a", done=500, total=1000),),
        to_send=1500,
    )


def test_a_restart_takes_back_what_was_counted() -> None:
    tally = started(Clock(), a=1000)
    for item in (event("started", "a", 100), event("progress", "a", 300), event("restart", "a", -250)):
        tally.event(item)
    assert tally.snapshot().done == 150
    tally.event(event("restart", "a"))
    assert tally.snapshot().done == 0
    tally.event(event("restart", "a", -5))
    assert tally.snapshot().done == 0


def test_an_unknown_size_leaves_the_total_open_until_it_is_known() -> None:
    tally = started(Clock(), a=1000, b=None)
    assert tally.snapshot().total is None
    assert tally.snapshot().share is None
    tally.event(event("started", "b", 0, 500))
    assert tally.snapshot().total == 1500


def test_a_file_is_done_once() -> None:
    tally = started(Clock(), a=10)
    tally.event(event("published", "a", 10))
    tally.event(event("published", "a", 10))
    assert (tally.snapshot().files_done, tally.snapshot().done) == (1, 10)


def test_speed_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    tally = started(clock, a=10**9)
    for count in [1000] * 20 + [0] * 30:
        clock.now += 1
        tally.event(event("progress", "a", count))
        tally.snapshot()
    assert tally.snapshot().speed == 0
    assert tally.snapshot().seconds_left is None


def test_time_left() -> None:
    assert Snapshot(done=500, total=1500, speed=100).seconds_left == 10
    assert Snapshot(done=500, total=None, speed=100).seconds_left is None


def test_nothing_to_fetch_is_all_done() -> None:
    tally = started(Clock())
    assert tally.snapshot().share == 1.0


kinds = st.sampled_from(["started", "progress", "restart", "published", "retry", "stall", "failed"])
events = st.builds(
    event, kinds, st.sampled_from("abc"), st.none() | st.integers(-1000, 1000), st.none() | st.integers(0, 1000)
)


@given(st.lists(events, max_size=40))
def test_no_order_of_events_leads_astray(several: list[TransferEvent]) -> None:
    tally = started(Clock(), a=1000, b=None)
    for item in several:
        tally.event(item)
        snapshot = tally.snapshot()
        assert snapshot.done == max(0, snapshot.done)
        assert snapshot.files_done <= (snapshot.files or 0)
        assert snapshot.share is None or 0 <= snapshot.share <= 1


def test_many_threads() -> None:
    tally = started(Clock(), a=10**9)

    def work() -> None:
        for _ in range(2000):
            tally.event(event("progress", "a", 1))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.snapshot().done == 16_000
