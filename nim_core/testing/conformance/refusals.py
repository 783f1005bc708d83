"""The first half of the credentials level: what a source makes of refusals and of answers that are none."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

import pytest
from attrs import evolve

from nim_core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    PluginError,
    RateLimitedError,
    SourceError,
    TransientError,
)
from nim_core.testing import bad_answers as bad
from nim_core.testing.conformance.asking import SourceTests
from nim_core.testing.conformance.bench import Bench
from nim_core.testing.conformance.suite import case
from nim_core.testing.corpus import Content, PatternContent, inline
from nim_core.testing.faults import answer_with
from nim_core.testing.http_server import Response

__all__ = ["RefusalTests"]

_WAIT_SECONDS: Final = 4
_SOON: Final = 3.0
_ANSWERS: Final = {
    "an HTML page": (inline("<html><body><h1>Sign in to the network</h1></body></html>\n"), "text/html"),
    "nothing": (inline(b""), "application/json"),
    "half a JSON text": (inline('{"files": [{"path": "config.json", "si'), "application/json"),
    "JSON null": (inline("null"), "application/json"),
    "an empty JSON array": (inline("[]"), "application/json"),
    "an array of numbers": (inline("[1, 2, 3]"), "application/json"),
    "JSON of another shape": (inline('{"files": 7, "data": null, "items": {"a": [null]}}'), "application/json"),
    "bytes that are no text": (inline(b"\xff\xfe\x00\x80" * 20), "application/json"),
}


class RefusalTests(SourceTests):
    """What a source says when a service says no, or talks nonsense."""

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (401, AuthenticationError),
            (403, PermissionDeniedError),
            (404, NotFoundError),
            (429, RateLimitedError),
            (500, TransientError),
            (503, TransientError),
        ],
    )
    @case("credentials", needs=("network",))
    def test_refusals_are_told_apart(self, works: Bench, status: int, expected: type[SourceError]) -> None:
        """Who are you, not you, not there, not now: each has its own class, exit code and way out."""
        error = _answered(works, status)
        assert type(error) is expected or isinstance(error, expected), (
            f"HTTP {status} becomes {_told(error)}; raise {expected.__name__}"
            + ("" if error is not None else ", and never make a listing of an answer that is none")
        )

    @case("credentials", needs=("network",))
    def test_core_alone_tries_again(self, works: Bench) -> None:
        """How often, and how long to wait, is the user's to say."""
        impatient = evolve(works, retries=0)
        _answered(impatient, 503)
        asked = Counter((it.request.method, it.request.target) for it in works.relay.seen("listing"))
        often = [f"{method} {url}: {count} times" for (method, url), count in asked.items() if count > 1]
        assert not often, (
            f"the plugin tries again by itself: {'; '.join(often)}; raise TransientError, and turn the vendor's "
            "library's own retries off: core tries again as NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT says"
        )

    @case("credentials", needs=("network",))
    def test_a_wish_to_wait_is_passed_on(self, works: Bench) -> None:
        """Core waits, as it knows what else there is to do, and when the user gives up."""
        works.relay.fault(bad.rate_limited("seconds", _WAIT_SECONDS), "listing")
        began = time.monotonic()
        error = evolve(works, retries=0).error()
        seconds = time.monotonic() - began
        assert seconds < _SOON, f"the plugin waits by itself, {seconds:.1f} s; raise RateLimitedError at once"
        assert isinstance(error, RateLimitedError), f"HTTP 429 becomes {_told(error)}; raise RateLimitedError"
        assert error.retry_after == _WAIT_SECONDS, (
            f"Retry-After: {_WAIT_SECONDS} becomes retry_after={error.retry_after}; pass on what the service asks for"
        )

    @pytest.mark.parametrize("answer", _ANSWERS)
    @case("credentials", needs=("network",))
    def test_an_answer_that_is_none_is_refused(self, works: Bench, answer: str) -> None:
        """Proxies and sign-in pages answer 200; a service in trouble sends half of what it meant to."""
        body, kind = _ANSWERS[answer]
        self._refused(works, answer, body, kind)

    @pytest.mark.parametrize("answer", _ANSWERS)
    @case("credentials", needs=("network", "token services"))
    def test_a_token_that_is_none_is_refused(self, works: Bench, answer: str) -> None:
        """The same of a service for tokens."""
        body, kind = _ANSWERS[answer]
        works.relay.fault(answer_with(Response(headers={"Content-Type": kind}, body=body)), "token")
        error = works.error()
        assert isinstance(error, SourceError), (
            f"{answer} instead of a token ends in {_told(error)}; raise AuthenticationError or TransientError"
        )

    @case("credentials", needs=("network",))
    def test_an_endless_answer_is_refused(self, works: Bench) -> None:
        """Core ends an answer of more than 64 MiB, where the plugin reads it by core's client."""
        self._refused(works, "an endless answer", PatternContent(length=80 << 20), "application/json")

    def _refused(self, bench: Bench, what: str, body: Content, kind: str) -> None:
        right = set(bench.served.files or ()) or {file.path for file in bench.listing().files}
        bench.relay.fault(answer_with(Response(headers={"Content-Type": kind}, body=body)), "listing")
        try:
            listed = {file.path for file in bench.listing().files}
        except PluginError as exc:
            pytest.fail(
                f"{what} as an answer ends in {type(exc.__cause__).__name__}, which leaves the plugin; raise "
                "SourceError from it",
                pytrace=False,
            )
        except SourceError:
            return
        assert listed == right, f"{what} as an answer becomes a listing of {len(listed)} files; raise SourceError"


def _answered(bench: Bench, status: int) -> BaseException | None:
    """Return what the source raises when every answer has that status."""
    bench.relay.fault(bad.status(status), "listing")
    return bench.error()


def _told(error: BaseException | None) -> str:
    if error is None:
        return "no error"
    cause = f" (from {error.__cause__!r})" if isinstance(error, PluginError) else ""
    return f"{type(error).__name__}: {error}{cause}"
