"""The reading level: what a source lists, and that core gets the right bytes from where it says they are."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Final

import httpx
import pytest
from structlog.testing import capture_logs

from nim_core.errors import NimError, NotFoundError, PluginError
from nim_core.testing.conformance.asking import SourceTests
from nim_core.testing.conformance.bench import Bench, wrong_files
from nim_core.testing.conformance.suite import case
from nim_core.types import CachePlacement, FileNaming, HttpObject, Listing, Location, RemoteFile, UriStyle

__all__ = ["ReadingTests"]

_THREADS: Final = 8
_START: Final = 100


class ReadingTests(SourceTests):
    """What a source lists and where it says the bytes are, while nothing goes wrong."""

    @case("reading")
    def test_making_a_source_asks_nobody(self, bench: Bench) -> None:
        """Core makes sources of runs that need none of them."""
        with bench.source():
            asked = bench.asked_for()
        assert not asked, f"the factory asks: {asked}; ask in list_files or locate, when there is a question"

    @case("reading", needs=("files",))
    def test_every_file_is_listed_and_no_other(self, bench: Bench) -> None:
        """The listing is the model."""
        listed = Counter(file.path for file in _listing(bench).files)
        twice = [path for path, count in listed.items() if count > 1]
        assert not twice, f"listed twice: {twice}; is a page asked for again?"
        missing, extra = sorted(bench.files.keys() - listed.keys()), sorted(listed.keys() - bench.files.keys())
        assert not missing, f"not listed: {missing}; are all pages asked for, and names taken to the letter?"
        assert not extra, f"listed, but not a file of the model: {extra}"

    @case("reading", needs=("files",))
    def test_sizes_are_right(self, listable: Bench) -> None:
        """A size is how core plans space and ranges; a wrong one fails every download."""
        wrong = [
            f"{file.path}: {file.size} instead of {listable.files[file.path].size}"
            for file in _known(listable)
            if file.size not in {None, listable.files[file.path].size}
        ]
        assert not wrong, f"wrong sizes: {'; '.join(wrong)}; leave size=None where the service does not say it in bytes"

    @case("reading", needs=("files",))
    def test_digests_are_right(self, listable: Bench) -> None:
        """A digest is of the whole content, by the algorithm that it is said to be."""
        wrong = [
            f"{file.path}: {digest} instead of {listable.files[file.path].digest(digest.algorithm)}"
            for file in _known(listable)
            for digest in file.digests
            if digest != listable.files[file.path].digest(digest.algorithm)
        ]
        assert not wrong, f"wrong digests: {'; '.join(wrong)}; leave out what is not the digest of the whole content"

    @case("reading", needs=("files",))
    def test_every_file_is_read(self, listable: Bench) -> None:
        """Core downloads the model, and each file has the right bytes, whatever its name, and be it empty."""
        wrong = wrong_files(listable, listable.download())
        assert not wrong, f"{'; '.join(wrong)}; look at what locate answers"

    @case("reading", needs=("files in URIs", "several files"))
    def test_one_file_can_be_named(self, works: Bench) -> None:
        """``URI?file=PATH`` is that file alone."""
        path = sorted(works.files)[-1]
        done = works.download(f"{works.served.uri}?file={path}")
        assert done.result is not None, f"the download of {path!r} alone failed: {done.error}"
        (target,) = done.result.targets
        assert [wanted.path for wanted in target.target.files] == [path]

    @case("reading", needs=("missing",))
    def test_what_is_missing_is_not_found(self, listable: Bench) -> None:
        """A name that is wrong is the commonest mistake of users; core says how to look for the right one."""
        error = listable.error(listable.served.missing)
        assert isinstance(error, NotFoundError), (
            f"{listable.served.missing}: {_told(error)}; raise NotFoundError for what is not there"
        )

    @case("reading")
    def test_listing_twice_gives_the_same(self, listable: Bench) -> None:
        """Two processes that ask for one model have to agree."""
        with listable.source() as source:
            first, second = source.list_files(listable.asked()), source.list_files(listable.asked())
        assert first.pinned == second.pinned, f"pinned was {first.pinned!r}, then {second.pinned!r}, of one content"
        assert set(first.files) == set(second.files), "two listings of one model differ"
        assert first.uri == listable.asked(), f"Listing.uri is {first.uri}, not the URI that was asked for"

    @case("reading", needs=("pins_revisions", "revisions in URIs"))
    def test_the_pinned_revision_can_be_asked_for(self, listable: Bench) -> None:
        """What is pinned names the same content when it is asked for by that name."""
        listing = _listing(listable)
        assert listing.pinned is not None, "pins_revisions is declared, but Listing.pinned is None"
        uri = listable.asked()
        again = listable.listing(f"{uri.scheme}://{uri.location}:{listing.pinned}")
        assert again.pinned == listing.pinned, (
            f"the revision pinned by {uri.display} is {listing.pinned!r}, and that of {again.uri.display} is "
            f"{again.pinned!r}; pinned has to be the immutable revision itself, not a name that leads to one"
        )
        assert set(again.files) == set(listing.files), f"{again.uri.display} lists other files than {uri.display}"

    @case("reading", needs=("pins_revisions", "change"))
    def test_another_content_is_another_revision(self, listable: Bench) -> None:
        """A pinned revision never gets another content, so that cached files of it need not be asked for again."""
        before = _listing(listable)
        assert listable.served.change is not None
        listable.served.change()
        after = listable.listing()
        assert set(after.files) != set(before.files), "Served.change changes nothing that is listed"
        assert after.pinned != before.pinned, (
            f"the content changed, and pinned stayed {after.pinned!r}; pinned has to be immutable, such as a commit or "
            "a version that is never published twice; leave pins_revisions off when there is no such thing"
        )

    @case("reading", needs=("files", "data behind URLs"))
    def test_locate_answers_several_threads_at_once(self, listable: Bench) -> None:
        """Core asks from up to eight threads."""
        with (
            listable.client() as client,
            closing(listable.registry().open_source(listable.uri().scheme, client)) as source,
            _switching_often(),
        ):
            listing = source.list_files(listable.asked())
            ready = threading.Barrier(_THREADS)

            def locate_all(number: int) -> list[str]:
                ready.wait()
                turned = listing.files[number:] + listing.files[:number]
                places = [(file, source.locate(listing.uri, file)) for file in turned]
                return [file.path for file, place in places if _misleads(listable, client, place, file)]

            with ThreadPoolExecutor(_THREADS) as pool:
                wrong = sorted({path for paths in pool.map(locate_all, range(_THREADS)) for path in paths})
        assert not wrong, (
            f"asked from {_THREADS} threads at once, locate gives places that are others' or nobody's for {wrong}; "
            "keep what belongs to one call in local variables, and guard what is shared with a lock"
        )

    @case("reading", needs=("cache_key",))
    def test_cache_key_is_pure(self, listable: Bench) -> None:
        """Core asks for places in the cache offline, without a listing."""
        pinned = _listing(listable).pinned
        with listable.source() as source:
            assert isinstance(source, CachePlacement)
            listable.forget()
            keys = {source.cache_key(listable.asked(), pinned) for _ in range(2)}
        assert len(keys) == 1, f"cache_key gives several answers to one question: {keys}"
        _nobody_was_asked(listable, "cache_key")

    @case("reading", needs=("file_name",))
    def test_file_name_is_pure_and_right(self, listable: Bench) -> None:
        """Core asks for it instead of a listing."""
        listed = [file.path for file in _listing(listable).files]
        with listable.source() as source:
            assert isinstance(source, FileNaming)
            listable.forget()
            name = source.file_name(listable.asked())
        _nobody_was_asked(listable, "file_name")
        assert listable.asked().style is UriStyle.OBJECT, "file_name is for sources of OBJECT style"
        assert listed == [name], f"file_name says {name!r}, a listing has {listed}"

    @case("reading")
    def test_closing_leaves_nothing_running(self, listable: Bench) -> None:
        """Core calls close once, also for a source that was never asked."""
        before = set(threading.enumerate())
        with listable.source():
            pass
        _listing(listable)
        ours = [thread.name for thread in set(threading.enumerate()) - before if not _is_servers(thread)]
        assert not ours, f"threads are left after close: {ours}"

    @case("reading", needs=("relay",))
    def test_it_asks_through_core(self, listable: Bench) -> None:
        """Proxies, trust and redirects are rules of core's client, which a connection of the plugin's own escapes."""
        done = listable.download()
        past = listable.past_relay()
        assert not past, (
            f"the plugin opens connections of its own, to {', '.join(sorted(set(past)))}; ask by context.http, or "
            "point the vendor's library at it"
        )
        seen = len(listable.relay.seen())
        if not self.network:
            assert not seen, f"network = False, but {seen} requests went out; leave the line out"
        elif done.error is None:
            assert seen, "no request came to core's proxy: ask by context.http, and give out http:// URLs as they are"

    @case("reading")
    def test_asking_prints_nothing(self, listable: Bench, capfd: pytest.CaptureFixture[str]) -> None:
        """What a command prints is read by other programs."""
        with capture_logs():
            listable.download()
        printed = "".join(capfd.readouterr())
        assert not printed, f"listing or locating prints {printed[:200]!r}; log by structlog, or say nothing"

    @case("reading")
    def test_it_changes_nothing_of_the_process(self, listable: Bench) -> None:
        """Other plugins and the user's own code live in the same process."""
        before = (dict(os.environ), os.getcwd())  # noqa: PTH109 - as it is
        listable.download()
        changed = [name for name in {*before[0], *os.environ} if before[0].get(name) != os.environ.get(name)]
        assert not changed, (
            f"environment variables are changed: {', '.join(sorted(changed))}; give the vendor's library its settings "
            "by arguments"
        )
        assert os.getcwd() == before[1], "the working folder is changed"  # noqa: PTH109


def _listing(bench: Bench) -> Listing:
    """Return the listing; fails the test when the source raises."""
    try:
        return bench.listing()
    except PluginError as exc:
        pytest.fail(f"{exc.message}: {exc.__cause__!r}; raise errors of nim_core.errors only", pytrace=False)
    except NimError as exc:
        pytest.fail(f"listing {bench.served.uri} fails: {_told(exc)}", pytrace=False)


def _known(bench: Bench) -> list[RemoteFile]:
    return [file for file in _listing(bench).files if file.path in bench.files]


def _told(error: BaseException | None) -> str:
    return "no error" if error is None else f"{type(error).__name__}: {error}"


def _nobody_was_asked(bench: Bench, what: str) -> None:
    asked = bench.asked_for()
    assert not asked, f"{what} asks: {asked}; it is to be worked out from the URI alone"


def _misleads(bench: Bench, client: httpx.Client, location: Location, file: RemoteFile) -> bool:
    """Whether other bytes than those of ``file`` are where it is said to be."""
    content = bench.files.get(file.path)
    if not isinstance(location, HttpObject) or content is None or not content.size:
        return False
    stop = min(content.size, _START)
    return bench.fetched(client, location, stop) != content.read(0, stop)


def _is_servers(thread: threading.Thread) -> bool:
    """Whether a thread belongs to a server of the tests: those run until the test ends."""
    return "process_request" in thread.name or thread.name.startswith("origin ")


@contextmanager
def _switching_often() -> Iterator[None]:
    """Have threads take turns as often as can be, so that what is not safe shows."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
