"""Faults that pass, drawn at random: the right bytes or a documented error, in the end and in time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nim_core.testing.corpus import PatternContent
from nim_core.testing.misbehaving import in_turn, random_faults
from tests.faults.downloads import RIGHT, Downloads

SMALL, LARGE = 100_000, 33 << 20
RETRIES = 8
HEALED = 2
"""So many faults, of whatever kind, are always got over: wrong content is fetched again twice before it is an error."""

PASSING_ERRORS = {
    "DigestMismatchError",
    "RateLimitedError",
    "RemoteChangedError",
    "SizeMismatchError",
    "StalledError",
    "TransientError",
    "UnsupportedError",
}


def faults_for(size):
    """Return sequences of faults for a file of ``size`` bytes; they shrink to fewer and earlier ones."""
    return st.lists(st.sampled_from(random_faults(seed=1, count=150, size=size)), min_size=1, max_size=6)


def check(installed, size, faults, **options):
    files = {"model/weights.bin": PatternContent(length=size, seed=size % 97)}
    with tempfile.TemporaryDirectory() as name:
        cache = Downloads(cache=Path(name), installed=installed, retries=RETRIES)
        ended = cache.from_shelf(files, in_turn(*faults), **options)
        assert ended.outcome in {RIGHT, *PASSING_ERRORS}, ended.error
        assert ended.faults == []
        assert ended.outcome == RIGHT or (ended.visible == [] and len(faults) > HEALED), ended.error
        assert cache.from_shelf(files, **options).outcome == RIGHT


ONE_BY_ONE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)


@pytest.mark.timeout(600)
@settings(ONE_BY_ONE, max_examples=60)
@given(faults=faults_for(SMALL), ranges=st.sampled_from([None, False]), sizes=st.booleans())
def test_a_small_file(installed, faults, ranges, sizes):
    check(installed, SMALL, faults, ranges=ranges, sizes=sizes)


@pytest.mark.timeout(600)
@settings(ONE_BY_ONE, max_examples=25)
@given(faults=faults_for(LARGE), ranges=st.sampled_from([None, False]), sizes=st.booleans())
def test_a_large_file(installed, faults, ranges, sizes):
    check(installed, LARGE, faults, ranges=ranges, sizes=sizes)


@pytest.mark.timeout(600)
@settings(ONE_BY_ONE, max_examples=30)
@given(faults=faults_for(1), ranges=st.sampled_from([None, False]))
def test_an_empty_file_of_unknown_size(installed, faults, ranges):
    check(installed, 0, faults, ranges=ranges, sizes=False)
