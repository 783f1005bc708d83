import random
from email.utils import formatdate

import pytest

from nim_core.errors import ConfigError
from nim_core.settings import Settings
from nim_core.transfer.retry import (
    MAX_BACKOFF_SECONDS,
    RetryBudget,
    RetryPolicy,
    backoff_seconds,
    is_retryable_status,
    parse_retry_after,
    retry_policy,
)

NOW = 1_700_000_000.0


class Ceiling(random.Random):
    """Jitter that always takes all it may."""

    def uniform(self, a, b):
        return b


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"Retry-After": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"Retry-After": "Tue, 99 Foo 2023 00:00:00 GMT"}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"ratelimit": '"api"; r=0; t=55'}, 55.0),
        ({"RateLimit": '"api";r=12;t=55'}, None),
        ({"RateLimit": '"api";t=55'}, 55.0),
        ({"RateLimit": '"a";r=0;t=5, "b";r=0;t=50, "c";r=9;t=500'}, 50.0),
        ({"RateLimit": '"api";r=0;t=soon'}, None),
        ({"RateLimit": "nonsense"}, None),
        ({"Retry-After": "7", "RateLimit": '"api";r=0;t=55'}, 7.0),
        ({"Retry-After": "soon", "RateLimit": '"api";r=0;t=55'}, 55.0),
    ],
)
def test_how_long_a_server_asks_to_wait(headers, seconds):
    assert parse_retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (10_000, 30.0)])
def test_backoff_doubles_up_to_a_ceiling(attempt, ceiling):
    assert backoff_seconds(attempt, 0.5, Ceiling()) == ceiling


def test_backoff_has_full_jitter():
    rng = random.Random(1)
    waits = [backoff_seconds(5, 0.5, rng) for _ in range(1000)]
    assert 0 <= min(waits) < 0.1
    assert 7.9 < max(waits) <= 8.0 <= MAX_BACKOFF_SECONDS


@pytest.mark.parametrize(
    ("status", "again"), [(200, False), (404, False), (408, True), (429, True), (501, False), (503, True)]
)
def test_retryable_statuses(status, again):
    assert is_retryable_status(status) is again


def test_a_budget_ends_with_its_retries():
    budget = RetryBudget(RetryPolicy(retries=2, base_seconds=1.0), Ceiling())
    assert [budget.next_wait(None) for _ in range(3)] == [1.0, 2.0, None]


def test_a_budget_obeys_the_server_and_adds_jitter():
    budget = RetryBudget(RetryPolicy(retries=2, base_seconds=0.5), Ceiling())
    assert budget.next_wait(10.0) == 10.5


def test_a_budget_ends_with_its_patience():
    budget = RetryBudget(RetryPolicy(retries=9, base_seconds=0.0, max_wait_seconds=15.0), Ceiling())
    assert [budget.next_wait(10.0), budget.next_wait(6.0), budget.next_wait(5.0)] == [10.0, None, 5.0]


def test_the_policy_comes_from_the_settings():
    environ = {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "3", "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "250"}
    assert retry_policy(Settings(environ)) == RetryPolicy(retries=3, base_seconds=0.25)
    assert retry_policy(Settings({})) == RetryPolicy(retries=8, base_seconds=0.5)


def test_no_retries_can_be_asked_for():
    assert retry_policy(Settings({"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "0"})).retries == 0


def test_a_setting_that_is_no_number_is_named():
    with pytest.raises(ConfigError, match="NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT"):
        retry_policy(Settings({"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "many"}))
