"""The faults level: when the service misbehaves, a download ends with right bytes or an error, never wrong bytes."""

from __future__ import annotations

from typing import Final

import pytest
from attrs import evolve

from nim_core.errors import IntegrityError, NimError, PluginError, SourceError
from nim_core.testing import bad_answers as bad
from nim_core.testing.bad_answers import Misbehaviour
from nim_core.testing.conformance.asking import SourceTests
from nim_core.testing.conformance.bench import Bench, wrong_blobs, wrong_files
from nim_core.testing.conformance.suite import case
from nim_core.testing.corpus import Content, PartContent, part_of, with_flipped_byte
from nim_core.testing.http_server import Response

__all__ = ["FaultTests"]

_AT: Final = 10
_PASSING: Final = (
    *(bad.no_answer(), bad.reset_at_once(), bad.cut(_AT), bad.reset(_AT), bad.stall(_AT), bad.late(float("inf"))),
    *(bad.status(500), bad.status(503), bad.rate_limited("seconds", 1), bad.rate_limited("no time")),
    *(bad.whole_file(), bad.shifted_range(1), bad.no_content_range(), bad.short_body(1), bad.chunked()),
)
_LASTING: Final = (bad.short_body(1), bad.long_body(1), bad.cut(_AT), bad.status(500), bad.not_http())


def _named(fault: Misbehaviour) -> str:
    return str(fault)


class FaultTests(SourceTests):
    """Downloads while data come badly; most of it is core's work, by what the source says."""

    @pytest.mark.parametrize("fault", _PASSING, ids=_named)
    @case("faults", needs=("network", "files", "data behind URLs"))
    def test_a_passing_fault_is_survived(self, works: Bench, fault: Misbehaviour) -> None:
        """The next answer is a good one, and the download ends with the right bytes."""
        works.relay.fault(fault, "data", file=works.largest, times=1)
        wrong = wrong_files(works, works.download())
        assert not wrong, (
            f"after one answer that {fault}, the download does not end well: {'; '.join(wrong)}; look at size, "
            "validator and ranges of what locate answers"
        )

    @pytest.mark.parametrize("fault", _LASTING, ids=_named)
    @case("faults", needs=("network", "files", "data behind URLs", "sizes"))
    def test_a_lasting_fault_is_an_error(self, works: Bench, fault: Misbehaviour) -> None:
        """Where no answer is a good one, the download fails, and no wrong byte is to be seen in the cache."""
        works.relay.fault(fault, "data", file=works.largest)
        done = works.download()
        _ends_with(done.error, IntegrityError, SourceError, when=f"every answer {fault}")
        assert not wrong_blobs(works, done.cache), f"the cache has files with wrong bytes, as every answer {fault}"

    @case("faults", needs=("network", "files", "data behind URLs", "digests"))
    def test_wrong_bytes_are_never_published(self, works: Bench) -> None:
        """A digest that is listed is compared."""
        works.relay.fault(bad.wrong_bytes(_AT), "data", file=works.largest)
        done = works.download()
        _ends_with(done.error, IntegrityError, when="bytes are not those of the listed digest")
        assert not wrong_blobs(works, done.cache), "wrong bytes are in the cache"

    @case("faults", needs=("network", "files", "data behind URLs"))
    def test_a_file_that_changes_meanwhile_is_never_mixed(self, works: Bench) -> None:
        """The first half of one version and the second half of another is no file."""
        content = works.files[works.largest]
        other = with_flipped_byte(with_flipped_byte(content, 0), content.size - 1)
        works.relay.fault(bad.cut(content.size // 2), "data", file=works.largest, times=1)
        works.relay.fault(_replaced(other), "data", file=works.largest, after=1)
        done = works.download()
        if done.error is not None:
            _ends_with(done.error, IntegrityError, SourceError, when="the file changes")
        mixed = wrong_blobs(works, done.cache, or_else=other)
        assert not mixed, (
            f"the cache has a mixture of two versions: {mixed}; give HttpObject a validator, or RemoteFile digests"
        )

    @pytest.mark.parametrize("status", [500, 503, 429])
    @case("faults", needs=("network",))
    def test_a_listing_that_fails_once_is_asked_for_again(self, works: Bench, status: int) -> None:
        """By core, where the plugin asks by its client."""
        works.relay.fault(bad.status(status), "listing", times=1)
        done = works.download()
        assert done.error is None, f"one HTTP {status} for a listing ends the download: {done.error}"

    @case("faults", needs=("network",))
    def test_a_listing_that_is_cut_is_asked_for_again(self, works: Bench) -> None:
        """Half an answer is none."""
        works.relay.fault(bad.cut(1), "listing", times=1)
        done = works.download()
        assert done.error is None, f"one cut in a listing ends the download: {done.error}"


def _replaced(other: Content) -> Misbehaviour:
    """Answer from another version of the file, under another entity tag."""

    def change(response: Response) -> Response:
        body = response.body
        part = part_of(other, body.start, body.stop) if isinstance(body, PartContent) else other
        return evolve(response, headers={**response.headers, "ETag": '"another"'}, body=part)

    return Misbehaviour("has another version", change)


def _ends_with(error: NimError | None, *expected: type[NimError], when: str) -> None:
    names = " or ".join(kind.__name__ for kind in expected)
    assert error is not None, f"when {when}, the download ends as if all were well; expected {names}"
    assert not isinstance(error, PluginError), f"when {when}, an exception leaves the plugin: {error.__cause__!r}"
    assert isinstance(error, expected), f"when {when}, the download ends with {type(error).__name__}: {error}"
