"""How many requests a host gets, and bytes per second, with time as an argument."""

from __future__ import annotations

import pytest

from nim_core.transfer.pace import HostPace, TokenBucket


def climb(pace: HostPace, rate_of, seconds: int, start: float = 0.0) -> list[int]:
    """Let ``seconds`` pass with a server that gives ``rate_of(allowed)`` bytes per second."""
    seen = []
    for second in range(seconds + 1):
        pace.adapt(start + second, waiting=True)
        pace.received(int(rate_of(pace.allowed)))
        seen.append(pace.allowed)
    return seen


def test_a_server_that_caps_each_connection_gets_more_of_them():
    assert climb(HostPace(8, 64), lambda allowed: allowed * 50e6, 30)[-1] == 64


def test_where_more_bring_nothing_the_number_goes_back():
    seen = climb(HostPace(8, 64), lambda _allowed: 500e6, 9)
    assert max(seen) == 16
    assert seen[-1] == 8


def test_it_tries_again_after_a_while():
    seen = climb(HostPace(8, 64), lambda _allowed: 500e6, 40)
    assert seen.count(10) >= 2


def test_a_refusal_halves_and_holds():
    pace = HostPace(16, 64, in_flight=16)
    pace.refused(0.0)
    assert pace.allowed == 8
    assert set(climb(pace, lambda allowed: allowed * 50e6, 25)) == {8}


def test_one_is_the_least():
    pace = HostPace(1, 64, in_flight=1)
    pace.refused(0.0)
    assert pace.allowed == 1


def test_without_waiting_requests_nothing_changes():
    pace = HostPace(8, 64)
    for second in range(10):
        pace.adapt(float(second), waiting=False)
        pace.received(second * 10**9)
    assert pace.allowed == 8


@pytest.mark.parametrize("piece", [1_000, 100_000, 3_000_000])
def test_a_bucket_gives_its_rate(piece):
    bucket, now, taken = TokenBucket(1_000_000), 0.0, 0
    while now < 20:
        if bucket.open(now):
            bucket.take(piece)
            taken += piece
        now += 0.001
    assert 19_000_000 <= taken <= 20_000_000 + 2 * piece
