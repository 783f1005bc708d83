"""When to try again and how long to wait before: pure decisions, shared by both paths."""

from __future__ import annotations

import email.utils
import random
import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Final

from attrs import frozen

from nim_core.settings import Settings

__all__ = [
    "MAX_BACKOFF_SECONDS",
    "RETRYABLE_STATUSES",
    "RetryBudget",
    "RetryPolicy",
    "backoff_seconds",
    "is_retryable_status",
    "parse_retry_after",
    "retry_policy",
]

RETRYABLE_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_BACKOFF_SECONDS: Final = 30.0
MAX_WAIT_SECONDS: Final = 120.0
"""How long one control request may wait between attempts, all waits together."""

_SECONDS = re.compile(r"\d+(\.\d+)?", re.ASCII)


def is_retryable_status(status: int) -> bool:
    """Whether the same request may be answered better later."""
    return status in RETRYABLE_STATUSES


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """
    Return how many seconds the server asks to wait.

    ``Retry-After`` in seconds or as an HTTP date wins; else the longest ``t`` of the ``RateLimit`` items that have
    nothing remaining (``"api";r=0;t=55``, draft-ietf-httpapi-ratelimit-headers). A moment that has passed is 0.

    Args:
        headers: Names in any case.
        now: Unix time in seconds, against which a date is read.

    Returns:
        Seconds. None when the server asks for nothing that can be understood.
    """
    named = {name.lower(): value.strip() for name, value in headers.items()}
    waits = [*_retry_after(named.get("retry-after", ""), now)] or [*_rate_limits(named.get("ratelimit", ""))]
    return max(waits, default=None)


def _retry_after(value: str, now: float) -> Iterator[float]:
    if _SECONDS.fullmatch(value):
        yield float(value)
    elif value:
        try:
            when = email.utils.parsedate_to_datetime(value)  # without a zone in asctime's form, which is UTC
            yield max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now)
        except (ValueError, OverflowError):
            return


def _rate_limits(value: str) -> Iterator[float]:
    for item in value.split(","):
        pairs = (part.strip().partition("=") for part in item.split(";"))
        parameters = {name: text for name, _, text in pairs}
        wait = parameters.get("t", "")
        if parameters.get("r", "0") == "0" and _SECONDS.fullmatch(wait):
            yield float(wait)


def backoff_seconds(attempt: int, base: float, rng: random.Random) -> float:
    """
    Return the wait before the retry after failed attempt number ``attempt``, counted from 1, with full jitter.

    That is anything between 0 and ``base`` seconds doubled for each attempt before, at most MAX_BACKOFF_SECONDS.
    """
    ceiling = min(MAX_BACKOFF_SECONDS, base * 2 ** min(attempt - 1, 32))
    return rng.uniform(0.0, ceiling)


@frozen(kw_only=True)
class RetryPolicy:
    """
    How often to try again.

    Attributes:
        retries: Retries after the first attempt.
        base_seconds: Ceiling of the wait before the first retry; doubled for each further one.
        max_wait_seconds: Ceiling of all waits together.
    """

    retries: int
    base_seconds: float
    max_wait_seconds: float = MAX_WAIT_SECONDS


def retry_policy(settings: Settings) -> RetryPolicy:
    """Return the policy the settings make. Raises ConfigError naming a variable that is not a number."""
    variables = settings.variables
    return RetryPolicy(
        retries=int(variables.number("NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT") or 0),
        base_seconds=(variables.number("NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS") or 0) / 1000,
    )


class RetryBudget:
    """
    What is left of a policy within one request, its redirects included.

    Args:
        policy: How often to try again.
        rng: Source of jitter.
    """

    def __init__(self, policy: RetryPolicy, rng: random.Random) -> None:
        self._policy = policy
        self._rng = rng
        self._attempts = 0
        self._waited = 0.0

    def next_wait(self, asked: float | None) -> float | None:
        """
        Count a failed attempt and return the seconds to wait before the next.

        A server's wish (``asked``) is obeyed, with some jitter on top so that those it turned away do not return
        together. None when no attempt is left, or none within the policy's patience.
        """
        self._attempts += 1
        wait = (asked or 0.0) + backoff_seconds(1 if asked else self._attempts, self._policy.base_seconds, self._rng)
        if self._attempts > self._policy.retries or self._waited + wait > self._policy.max_wait_seconds:
            return None
        self._waited += wait
        return wait
