"""The part of the writing level that is for sinks that have the service copy objects by itself."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import pytest
from attrs import evolve

from nim_core.errors import RemoteChangedError
from nim_core.registry.guard import GuardedSink
from nim_core.testing.conformance.sink_bench import Bench, Opened
from nim_core.testing.conformance.suite import Suite, case
from nim_core.types import Digest, NewObject

__all__ = ["CopyCases"]

_DATA: Final = b"0123456789" * 10_000


class CopyCases(Suite):
    """Tests for sinks that are a CopyingSink; left out for others."""

    @pytest.fixture
    def origin(self, bench: Bench, written: GuardedSink) -> NewObject:
        """An object that a mirror wrote."""
        if not written.copies:
            pytest.skip("not declared: CopyingSink, copies that the service makes")
        return bench.put(written, bench.key("origin"), _DATA)

    @case("writing")
    def test_the_service_copies(self, bench: Bench, opened: Opened, origin: NewObject) -> None:
        """The copy has the digests, too, and its bytes did not come here."""
        before, new = opened.wire.bodies, evolve(origin, key=bench.key("copy"))
        assert opened.sink.copy(new, bench.uri(origin.key)), (
            "copy() answers False for an object in the same bucket whose stored digests are those of `new`"
        )
        bench.check_holds(opened.sink, new)
        assert opened.wire.bodies == before, "copy() sends the bytes; have the service copy, or answer False"

    @case("writing")
    def test_what_nobody_vouches_for_is_not_copied(self, bench: Bench, written: GuardedSink, origin: NewObject) -> None:
        """The content is the one that was meant, or nothing is copied."""
        wrong = tuple(Digest(it.algorithm, "0" * len(it.value)) for it in origin.digests)
        for key, other in (("digest", evolve(origin, digests=wrong)), ("size", evolve(origin, size=origin.size + 1))):
            new = evolve(other, key=bench.key(f"other-{key}"))
            assert not written.copy(new, bench.uri(origin.key)), (
                f"copy() copies an object of another {key} than `new`; compare with what the service tells of it first"
            )
            bench.check_absent(written, new.key, f"copied from an object of another {key}")

    @case("writing")
    def test_what_cannot_be_copied_comes_from_here(self, bench: Bench, written: GuardedSink, origin: NewObject) -> None:
        """False, not an error: core has other ways."""
        new = evolve(origin, key=bench.key("uncopied"))
        elsewhere = evolve(bench.uri(origin.key), scheme="nim-kit-other")
        for uri in (bench.uri(bench.key("nobody-wrote-this")), elsewhere):
            assert not written.copy(new, uri), f"copy() says that it copied {uri.display}, which it cannot"
        bench.check_absent(written, new.key, "though there was nothing to copy")

    @case("writing")
    def test_a_copy_replaces_nothing(self, bench: Bench, written: GuardedSink, origin: NewObject) -> None:
        """The same rules hold as for what is sent."""
        taken = bench.put(written, bench.key("taken-by-another"), b"another mirror's")
        with suppress(RemoteChangedError):
            assert not written.copy(evolve(origin, key=taken.key), bench.uri(origin.key)), (
                "copy() says that it copied onto a key that holds something, where `new.replaces` is None"
            )
        bench.check_reads(taken)
