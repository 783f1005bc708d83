"""The second half of the credentials level: where what signs in goes, and where it must not be seen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from attrs import evolve
from structlog.testing import capture_logs

from nim_core.errors import PluginError
from nim_core.testing import bad_answers as bad
from nim_core.testing.conformance.asking import SourceTests, spec_of
from nim_core.testing.conformance.bench import Bench, origin_of, wrong_files
from nim_core.testing.conformance.relay import ELSEWHERE, Kind
from nim_core.testing.conformance.suite import case

__all__ = ["SecrecyTests"]

_TROUBLES: Final = (
    *(bad.status(code) for code in (400, 401, 403, 404, 429, 500)),
    bad.short_body(1),
    bad.no_answer(),
)


class SecrecyTests(SourceTests):
    """Where keys, tokens and signed addresses go."""

    @case("credentials", needs=("network", "secrets"))
    def test_what_signs_in_goes_to_its_endpoint_alone(self, works: Bench) -> None:
        """A token in a request to a storage service or a mirror is a token lost."""
        works.download()
        _no_strangers(works)

    @case("credentials", needs=("network", "secrets"))
    def test_what_signs_in_stays_behind_when_a_listing_is_redirected(self, works: Bench) -> None:
        """A service may send its clients anywhere; core leaves credentials behind, so leave redirects to it."""
        _redirected(works, "listing")

    @case("credentials", needs=("network", "secrets", "data behind URLs"))
    def test_what_signs_in_stays_behind_when_data_are_redirected(self, works: Bench) -> None:
        """The same for the address that locate answers."""
        _redirected(works, "data")

    @case("credentials", needs=("network", "secret variables"))
    def test_without_credentials_none_is_sent(self, works: Bench) -> None:
        """Public models are for those who have no account."""
        secret = {variable.name for variable in works.plugin.variables if variable.secret}
        environment = {name: value for name, value in works.environment.items() if name not in secret}
        done = evolve(works, environment=environment).download()
        assert not isinstance(done.error, PluginError), f"without credentials: {done.error}: {done.error.__cause__!r}"
        sent = sorted({it.request.header("Authorization") or "" for it in works.relay.seen()} - {""})
        assert not any(map(works.found_secret, sent)), "what signs in is sent although no variable has it"

    @case("credentials", needs=("network", "secrets"))
    def test_credentials_are_asked_for_by_endpoint(self, works: Bench) -> None:
        """Whoever provides credentials has to know whom they are for."""
        registry = works.registry()
        with works.client() as client:
            source = registry.open_source(works.uri().scheme, client)
            source.list_files(works.asked())
            source.close()
        allowed = {origin_of(url) for url in works.served.allowed}
        asked = {given.endpoint for given in registry.given_credentials}
        odd = sorted(endpoint for endpoint in asked if urlsplit(endpoint).scheme not in {"http", "https"})
        assert not odd, f"context.credential is asked for {odd}, which are no URLs; give it the service's origin"
        strange = sorted(endpoint for endpoint in asked if origin_of(endpoint) not in allowed)
        assert not strange, f"context.credential is asked for {strange}, but Served.allowed has {sorted(allowed)} only"

    @case("credentials", needs=("network", "secrets"))
    def test_errors_show_no_secret(self, works: Bench) -> None:
        """Messages are copied into tickets and chats."""
        for trouble in _TROUBLES:
            works.relay.clear()
            works.relay.fault(trouble, "listing")
            error = evolve(works, retries=0).error()
            text = f"{error!r} {error} {getattr(error, 'hint', '')}"
            assert works.found_secret(text) is None, (
                f"when the service {trouble}, the error has a secret in its text: {type(error).__name__}; name the "
                "variable that has it, and URLs without userinfo and query"
            )

    @case("credentials", needs=("network", "secrets"))
    def test_logs_show_no_secret(self, works: Bench, caplog: pytest.LogCaptureFixture) -> None:
        """What is logged is kept, and read by others."""
        with _captured(works, caplog) as said:
            works.download()
            works.relay.fault(bad.status(401), "listing")
            works.error()
        leaks = [line[:40] for line in said() if works.found_secret(line)]
        assert not leaks, f"a secret is logged: {leaks}; log what was done, not with what"

    @case("credentials", needs=("network", "secrets"))
    def test_what_locate_answers_shows_no_secret(self, works: Bench) -> None:
        """Core logs what it works with by its repr."""
        with works.source() as source:
            listing = source.list_files(works.asked())
            shown = repr(listing) + "".join(repr(source.locate(listing.uri, file)) for file in listing.files)
        assert works.found_secret(shown) is None, (
            "the repr of a listing or a location shows a secret; wrap it in Secret"
        )

    @case("credentials", needs=("secrets",))
    def test_no_program_is_given_a_secret(self, works: Bench) -> None:
        """Arguments of programs can be read by every user of the machine."""
        works.download()
        assert not any(map(works.found_secret, works.watch.commands)), (
            "a program is started with a secret among its arguments; hand it over by a pipe or a file"
        )

    @pytest.mark.parametrize("as_json", ["0", "1"], ids=["text", "JSON"])
    @case("credentials", needs=("secrets",))
    def test_the_command_shows_and_keeps_no_secret(self, works: Bench, as_json: str) -> None:
        """Nothing that is printed, logged or in the cache has it."""
        cache = works.folder / f"command-{as_json}"
        said = {"NIM_CACHE_PATH": str(cache), "NIM_LOG_LEVEL": "DEBUG", "NIM_JSONL_LOGGING": as_json}
        done = works.run("download-to-cache", "--model-uri", works.served.uri, environment=said)
        assert done.returncode == 0, f"nim-llm download-to-cache fails: {done.stderr[-1000:]}"
        assert works.found_secret(done.stdout + done.stderr) is None, "the command prints or logs a secret"
        kept = [path for path in cache.rglob("*") if _has_secret(works, path)]
        assert not kept, f"a secret is kept in the cache: {[str(path.relative_to(cache)) for path in kept]}"

    @pytest.mark.parametrize("status", [401, 403, 410])
    @case("credentials", needs=("network", "files", "data behind URLs"))
    def test_a_refused_url_is_located_again(self, works: Bench, status: int) -> None:
        """Signed addresses expire while a large model is fetched."""
        works.relay.fault(bad.status(status), "data", file=works.largest, times=1)
        wrong = wrong_files(works, works.download())
        assert not wrong, (
            f"a URL that was refused once with HTTP {status} ends the download: {'; '.join(wrong)}; locate is asked "
            "again then, and has to give an address that works"
        )

    @case("credentials", needs=("network", "files", "data behind URLs", "expire"))
    def test_an_expired_url_is_not_given_out_again(self, works: Bench) -> None:
        """What was refused must not come from memory."""
        assert works.served.expire is not None
        works.relay.before_data(works.served.expire)
        wrong = wrong_files(works, works.download())
        assert not wrong, (
            f"after the service let its URLs expire, the download fails: {'; '.join(wrong)}; ask the service anew each "
            "time locate is called for a file whose URL was given out before"
        )


def _redirected(bench: Bench, kind: Kind) -> None:
    bench.relay.send_elsewhere(kind)
    done = bench.download()
    targets = {origin_of(it.request.target) for it in bench.relay.seen()}
    followed = origin_of(ELSEWHERE) in targets
    assert followed or done.error is not None, f"a redirect of a request for {kind} is taken for an answer"
    _no_strangers(bench, ELSEWHERE)


def _no_strangers(bench: Bench, origin: str | None = None) -> None:
    found = bench.strangers(origin)
    allowed = ", ".join(sorted({origin_of(url) for url in bench.served.allowed}))
    assert not found, (
        f"{'; '.join(found)}. Only {allowed} may get what signs in: leave headers out of an HttpObject for another "
        "origin, and let core follow redirects. If that origin is the service's too, name it in Served.endpoints"
    )


@contextmanager
def _captured(bench: Bench, caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """
    Yield what returns all lines that were logged, by structlog and by the standard library.

    Debugging of other libraries is left out, as core leaves it out.
    """
    own = spec_of(bench).factory.__module__.partition(".")[0]
    with (
        capture_logs() as entries,
        caplog.at_level(logging.INFO),
        caplog.at_level(logging.DEBUG, logger=own),
    ):
        yield lambda: [*map(str, entries), *(record.getMessage() for record in caplog.records)]


def _has_secret(bench: Bench, path: Any) -> bool:
    if bench.found_secret(path.name):
        return True
    return path.is_file() and bench.found_secret(path.read_bytes().decode("latin-1")) is not None
