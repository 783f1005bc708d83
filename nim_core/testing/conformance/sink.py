"""
The writing level: what a sink owes those who mirror models with it.

The sink is opened as the ``mirror`` command opens it, by the name of its spec, and what it wrote is read back by the
source of its scheme.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

import pytest
from attrs import evolve

from nim_core.errors import (
    AuthenticationError,
    NimError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RemoteChangedError,
    SourceError,
    TransientError,
    UnsupportedError,
)
from nim_core.registry.guard import GuardedSink
from nim_core.testing.conformance.hygiene import PluginSuite
from nim_core.testing.conformance.machine import nobodys_machine, silence
from nim_core.testing.conformance.sink_bench import Bench, Opened, Stored, answers, declared, loses_the_answer
from nim_core.testing.conformance.sink_copies import CopyCases
from nim_core.testing.conformance.sink_parts import PartCases
from nim_core.testing.conformance.suite import case
from nim_core.types import SinkSpec

__all__ = ["SinkSuite", "Stored"]

_KEYS: Final = (
    "nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json",
    "prefix/hf%3A%2F%2Forg%2Fname%3Frevision%3Dmain",
    "a%252Fb",
    "with blank and + plus",
    "übergrößé 模型.bin",
    "q?a=b&c#d;e:f@g=h,i!j'k(l)m*n~o$p[q]",
)
_LONG_KEY_BYTES: Final = 900
_THREADS: Final = 8
_SIZES: Final = (0, 1, 1 << 20, 100 << 20, 10 << 30, 1 << 40)
_LITERAL: Final = "keys are literal: encode a key once for the URL, and decode nothing of what was given"


class SinkSuite(PartCases, CopyCases, PluginSuite):
    """
    The tests of a sink; the author's fixture ``stored`` gives a :class:`Stored`.

    Attributes:
        sink: Name of the sink, as in its spec. Empty: that of the plugin.
    """

    sink: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def _alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Keep what this machine has set out of the tests."""
        nobodys_machine(self.info(), monkeypatch, tmp_path_factory.mktemp("home"))

    @pytest.fixture
    def bench(self, stored: Stored, tmp_path: Path) -> Iterator[Bench]:
        """What opens sinks, and makes what they write."""
        with Bench(self._spec(), self.info(), stored, tmp_path) as bench:
            yield bench

    @pytest.fixture
    def opened(self, bench: Bench) -> Opened:
        """The sink, and the wire it sends by."""
        return bench.open()

    @pytest.fixture
    def written(self, opened: Opened) -> GuardedSink:
        """The sink."""
        return opened.sink

    def _spec(self) -> SinkSpec:
        name = self.sink or self.plugin
        found = {spec.name: spec for spec in self.info().sinks}
        if name not in found:
            pytest.fail(f"the plugin brings no sink {name!r} but: {', '.join(found) or 'none'}", pytrace=False)
        return found[name]

    # --------------------------------------------------------------------------------------------------- without asking
    @case("writing")
    def test_making_a_sink_asks_nobody(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sink is made before anything is known to be wanted of it; also sizes of parts are asked for offline."""
        with silence(monkeypatch, "making the sink, or part_bytes(),"):
            sink = bench.open().sink
            sizes = {size: sink.part_bytes(size) for size in _SIZES}
        for size, part in sizes.items():
            assert part is None or part > 0, f"part_bytes({size}) answers {part}; None is for objects in one request"
            assert {size: sink.part_bytes(size)} == {size: part}, "part_bytes() has to give the same answer each time"

    # ---------------------------------------------------------------------------------------------------- what is there
    @case("writing")
    def test_where_nothing_is_there_is_none(self, bench: Bench, written: GuardedSink) -> None:
        """``mirror`` asks for every file before it sends it."""
        assert written.head(bench.key("nobody-wrote-this")) is None, "head() of a key without an object answers None"
        assert list(written.list_objects(bench.key("nobody"))) == [], "nothing is below that prefix"

    @case("writing")
    @pytest.mark.parametrize("in_memory", [False, True], ids=["from a file", "from memory"])
    def test_what_is_written_is_read(self, bench: Bench, written: GuardedSink, *, in_memory: bool) -> None:
        """Size, digests and bytes are those that were sent; core has small bodies in memory."""
        data, key = b"\r\n--\r\n\n\r\x00\xff\r\n" * 5000, bench.key("object")
        heard: list[int] = []
        new, body = bench.new(key, data), evolve(bench.body(data), progress=heard.append)
        written.put(new, evolve(body, data=data, offset=0) if in_memory else body)
        bench.check_holds(written, new)
        bench.check_digests(written, new)
        assert sum(heard) == len(data), (
            f"progress heard of {sum(heard)} bytes of {len(data)}; read Body.open(), hand the body to send(), or call "
            "Body.taken()"
        )

    @case("writing")
    def test_an_empty_object(self, bench: Bench, written: GuardedSink) -> None:
        """Models have empty files."""
        bench.check_holds(written, bench.put(written, bench.key("empty"), b""))

    @case("writing")
    def test_keys_are_literal(self, bench: Bench, written: GuardedSink) -> None:
        """A mirror's keys are percent-encoded URIs: one that is decoded on the way is never found again."""
        new = [bench.put(written, bench.key(key), f"content of {key}".encode()) for key in _KEYS]
        for each in new:
            bench.check_holds(written, each)
        listed = {item.key for item in written.list_objects(bench.key(""))}
        lost = {each.key for each in new} - listed
        assert not lost, f"list_objects() tells of {sorted(listed)} and not of {sorted(lost)}; {_LITERAL}"

    @case("writing")
    def test_keys_with_empty_segments(self, bench: Bench, written: GuardedSink) -> None:
        """Buckets know no folders: two slashes are two characters."""
        new = bench.put(written, bench.key("a//b"), b"two slashes")
        bench.check_holds(written, new)
        bench.check_absent(written, bench.key("a/b"), "which was written as a//b; two slashes are not one")

    @case("writing")
    def test_long_keys(self, bench: Bench, written: GuardedSink) -> None:
        """Encoded URIs are long; where a service takes no such key, the error says so before anything is sent."""
        key = bench.key("long-" * 400)[:_LONG_KEY_BYTES]
        try:
            bench.check_holds(written, bench.put(written, key, b"long"))
        except UnsupportedError:
            bench.check_absent(written, key, "though the key was refused")

    @case("writing")
    def test_listing_goes_by_how_keys_begin(self, bench: Bench, written: GuardedSink) -> None:
        """A prefix is no folder."""
        for name in ("a/b-c", "a/b-d", "a/bx", "b"):
            bench.put(written, bench.key(name), name.encode())
        found = {item.key: item.size for item in written.list_objects(bench.key("a/b-"))}
        expected = {bench.key(name): len(name) for name in ("a/b-c", "a/b-d")}
        assert found == expected, f"list_objects('.../a/b-') tells of {found}, expected {expected}; {_LITERAL}"

    @case("writing")
    def test_several_threads(self, bench: Bench, written: GuardedSink) -> None:
        """``mirror`` calls one sink from several threads at once."""

        def write(number: int) -> None:
            bench.check_holds(written, bench.put(written, bench.key(f"thread-{number}"), bytes([number]) * 70_000))

        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(write, range(2 * _THREADS)))

    # ---------------------------------------------------------------------------------------------------- other writers
    @case("writing")
    def test_what_somebody_else_wrote_stays(self, bench: Bench, written: GuardedSink) -> None:
        """``replaces`` is None: the key may not hold anything yet."""
        first = bench.put(written, bench.key("taken"), b"first")
        rule = "`new.replaces` is None, so that nothing may be overwritten (If-None-Match: *, or what the service has)"
        with bench.refused(RemoteChangedError, rule=rule):
            bench.put(written, first.key, b"second")
        bench.check_reads(first)

    @case("writing")
    def test_what_has_changed_since_stays(self, bench: Bench, written: GuardedSink) -> None:
        """``replaces`` names the one version that may be overwritten."""
        key = bench.key("changing")
        bench.put(written, key, b"first")
        seen = written.head(key)
        second = bench.put(written, key, b"second", seen)
        bench.check_holds(written, second)
        rule = "the key holds another version than `new.replaces` (If-Match, or what the service has)"
        with bench.refused(RemoteChangedError, rule=rule):
            bench.put(written, key, b"the third", seen)
        bench.check_reads(second)

    @case("writing")
    def test_a_write_may_be_repeated(self, bench: Bench, opened: Opened) -> None:
        """When an answer is lost, core writes again: what is there then is what was to be written."""
        key, data = bench.key("again"), b"the same" * 1000
        new = bench.new(key, data)
        with (
            opened.wire.failing(loses_the_answer),
            bench.refused(NimError, rule="what send() raises goes on to core"),
        ):
            opened.sink.put(new, bench.body(data))
        with suppress(RemoteChangedError):
            opened.sink.put(new, bench.body(data))
        bench.check_holds(opened.sink, new)

    # -------------------------------------------------------------------------------------------------- what goes wrong
    @case("writing")
    @pytest.mark.parametrize("before", [None, b"before"], ids=["a new key", "a key in use"])
    def test_a_body_that_is_cut_leaves_what_was_there(
        self, bench: Bench, written: GuardedSink, before: bytes | None
    ) -> None:
        """The connection ends in the middle of a body; at every moment a key holds all of an object."""
        key, data = bench.key("cut"), b"x" * 300_000
        old = None if before is None else bench.put(written, key, before)
        new = bench.new(key, data, None if old is None else written.head(key))
        body = bench.body(data)
        body.path.write_bytes(body.path.read_bytes()[:100_000])
        with bench.refused(NimError, rule="the body ended before its size was reached"):
            written.put(new, body)
        if old is None:
            bench.check_absent(written, key, "though its body was cut")
        else:
            bench.check_reads(old)

    @case("writing")
    def test_damaged_bytes_are_found_out(self, bench: Bench, written: GuardedSink) -> None:
        """Other bytes arrive than were hashed: the service compares the CRC-32C, or the sink does when it is done."""
        key = bench.key("damaged")
        new = bench.new(key, b"as it was read")
        rule = "other bytes were sent than NewObject.digests are of; send the CRC-32C along, or compare what is stored"
        with bench.refused(NimError, rule=rule):
            written.put(new, bench.body(b"as it was sent"))
        bench.check_absent(written, key, "whose content is not what its digests say; delete it")

    @case("writing")
    @pytest.mark.parametrize(
        ("status", "kinds"),
        [
            (401, (AuthenticationError, PermissionDeniedError)),
            (403, (AuthenticationError, PermissionDeniedError)),
            (429, (RateLimitedError, TransientError)),
            (500, (TransientError,)),
            (503, (RateLimitedError, TransientError)),
        ],
    )
    def test_statuses_are_the_contracts_errors(
        self, bench: Bench, opened: Opened, status: int, kinds: tuple[type[SourceError], ...]
    ) -> None:
        """Core waits and tries again, or tells the user, by the class alone; a proxy's answer has no body."""
        key = bench.key(f"status-{status}")
        with opened.wire.failing(answers(status)), bench.refused(*kinds, rule=f"the service answered {status}"):
            bench.put(opened.sink, key, b"refused")
        bench.check_absent(opened.sink, key, f"though its request was answered {status}")

    @case("writing")
    def test_a_bucket_that_does_not_exist(self, bench: Bench, stored: Stored) -> None:
        """Who has misspelled a bucket is told so, before anything is downloaded."""
        sink = bench.open(bucket=stored.missing).sink
        with bench.refused(NotFoundError, rule="the bucket of list_objects() does not exist"):
            list(sink.list_objects(""))

    @case("writing")
    def test_writing_to_a_bucket_that_does_not_exist(self, bench: Bench, stored: Stored) -> None:
        """No sink makes buckets: where they are, and who may read them, is for people to say."""
        sink = bench.open(bucket=stored.missing).sink
        with bench.refused(NotFoundError, rule="the bucket of put() does not exist"):
            bench.put(sink, bench.key("x"), b"x")

    @case("writing")
    def test_a_stranger_is_told_to_sign_in(self, bench: Bench, stored: Stored) -> None:
        """Who are you, is another question than what you may do."""
        environment = declared(stored.stranger, "Stored.stranger")
        with bench.refused(AuthenticationError, rule="nobody, or nobody known, is signed in"):
            bench.put(bench.open(environment=environment).sink, bench.key("strangers"), b"x")

    @case("writing")
    def test_a_reader_is_told_what_is_missing(self, bench: Bench, stored: Stored, written: GuardedSink) -> None:
        """The user is known, and may not write."""
        environment, key = declared(stored.reader, "Stored.reader"), bench.key("readers")
        with bench.refused(PermissionDeniedError, rule="who is signed in may not write"):
            bench.put(bench.open(environment=environment).sink, key, b"x")
        bench.check_absent(written, key, "though who wrote it may not write")

    @case("writing")
    def test_a_wrong_secret_is_not_shown(self, bench: Bench, stored: Stored) -> None:
        """Errors go to logs, and from there to anybody."""
        secret = [it.name for it in self.info().variables if it.secret and stored.environment.get(it.name)]
        if not secret:
            pytest.skip("not declared: a secret variable in the environment of `stored`")
        for name in secret:
            wrong = "nim-kit-" + "wrong-secret"
            sink = bench.open(environment={**stored.environment, name: wrong}).sink
            with pytest.raises(NimError) as caught:
                bench.put(sink, bench.key("wrong"), b"x")
            assert wrong not in f"{caught.value} {caught.value.hint} {caught.value!r}", (
                f"{type(caught.value).__name__} shows the value of {name}; say what the variable is called instead"
            )
