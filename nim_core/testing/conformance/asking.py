"""What the levels of the source suite have in common: the author's server, core before it, and what is declared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from nim_core.errors import NimError
from nim_core.testing.certificates import Certificates
from nim_core.testing.conformance.bench import PROXY_VARIABLES, Bench, wrong_files
from nim_core.testing.conformance.hygiene import PluginSuite
from nim_core.testing.conformance.relay import Relay
from nim_core.testing.conformance.served import Served
from nim_core.types import CachePlacement, FileNaming, HttpObject, SourceSpec, UriStyle

__all__ = ["SourceTests"]


class SourceTests(PluginSuite):
    """
    What all tests of sources need.

    Attributes:
        network: Whether the source asks anybody over a network.
    """

    network: ClassVar[bool] = True

    @pytest.fixture
    def served(self) -> Iterator[Served]:
        """Yield a :class:`Served`; the author's class has to have this fixture."""
        pytest.fail(
            f"{type(self).__name__} needs a fixture called served, which starts a server and yields "
            "Served(uri=..., files=..., environment=...)",
            pytrace=False,
        )

    @pytest.fixture
    def bench(
        self, served: Served, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Bench]:
        """Core as a command has it, its home empty, with a relay between it and the author's server."""
        plugin = self.info()
        for name in (*(variable.name for variable in plugin.variables), *PROXY_VARIABLES):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        with Relay(served.token_services) as relay:
            # Reading the machine's authorities, hundreds of them, takes longer than most tests.
            environment = {"SSL_CERT_FILE": str(certificates.ca), **served.environment}
            bench = Bench(plugin=plugin, served=served, relay=relay, folder=tmp_path, environment=environment)
            bench.watch.clear()
            yield bench

    @pytest.fixture
    def works(self, bench: Bench) -> Bench:
        """The same, where a plain download works: how it behaves when disturbed says nothing otherwise."""
        reason = _plain_download(type(self), bench)
        if reason is not None:
            pytest.skip(f"comes after test_every_file_is_read: {reason}")
        return bench

    @pytest.fixture
    def listable(self, bench: Bench) -> Bench:
        """The same, where the model can be listed at all."""
        reason = _plain_listing(type(self), bench)
        if reason is not None:
            pytest.skip(f"comes after test_every_file_is_listed_and_no_other: {reason}")
        return bench

    def declares(self, what: str) -> bool:
        """Say whether the source, its capabilities, or the author's fixture has what a test needs."""
        if what == "network":
            return self.network
        bench: Bench = self._request.getfixturevalue("bench")
        key = (type(self), bench.served.known_as, what)
        if key not in _KNOWN:
            with suppress(NimError):  # what asks the source, where the source fails, is for the test to tell
                _KNOWN[key] = _DECLARED[what](bench)
            bench.forget()
        return _KNOWN.get(key, True)


_KNOWN: Final[dict[tuple[type, str, str], bool]] = {}
_LISTING: Final[dict[tuple[type, str], str | None]] = {}
_WORKING: Final[dict[tuple[type, str], str | None]] = {}


def _plain_listing(suite: type, bench: Bench) -> str | None:
    """Return why the model cannot be listed, found out once for a class. None: it can be."""
    key = (suite, bench.served.known_as)
    if key not in _LISTING:
        try:
            bench.listing()
            _LISTING[key] = None
        except NimError as exc:
            _LISTING[key] = f"{type(exc).__name__}: {exc}"
        bench.forget()
    return _LISTING[key]


def _plain_download(suite: type, bench: Bench) -> str | None:
    """Return what is wrong when nothing is put in the way, found out once for a class. None: nothing."""
    key = (suite, bench.served.known_as)
    if key not in _WORKING:
        done = bench.download(cache="plain")
        if bench.served.files is None:
            _WORKING[key] = None if done.error is None else str(done.error)
        else:
            _WORKING[key] = next(iter(wrong_files(bench, done)), None)
        bench.forget()
    return _WORKING[key]


def spec_of(bench: Bench) -> SourceSpec:
    """Return the source that is tested."""
    return bench.plugins.source_spec(bench.uri().scheme)


def _has(ability: Any) -> Callable[[Bench], bool]:
    def has(bench: Bench) -> bool:
        with bench.source() as source:
            return isinstance(source, ability)

    return has


def _digests(bench: Bench) -> bool:
    return any(file.digests for file in bench.listing().files)


def _urls(bench: Bench) -> bool:
    """Say whether the largest file is behind a URL."""
    with bench.source() as source:
        listing = source.list_files(bench.asked())
        if not listing.files:
            return False
        largest = max(listing.files, key=lambda file: file.size or 0)
        if largest.size == 0:
            return False
        found = isinstance(source.locate(listing.uri, largest), HttpObject)
    bench.relay.clear()
    return found


_DECLARED: Final[Mapping[str, Callable[[Bench], bool]]] = {
    "relay": lambda bench: bench.relayed,
    "files": lambda bench: bench.served.files is not None,
    "several files": lambda bench: bench.served.files is not None and len(bench.served.files) > 1,
    "missing": lambda bench: bench.served.missing is not None,
    "expire": lambda bench: bench.served.expire is not None,
    "change": lambda bench: bench.served.change is not None,
    "token services": lambda bench: bool(bench.served.token_services),
    "secrets": lambda bench: bool(bench.secrets),
    "secret variables": lambda bench: bool(bench.secret_variables & bench.environment.keys()),
    "pins_revisions": lambda bench: spec_of(bench).capabilities.pins_revisions,
    "revisions in URIs": lambda bench: spec_of(bench).uri_style is UriStyle.REPOSITORY,
    "files in URIs": lambda bench: spec_of(bench).uri_style is not UriStyle.OBJECT,
    "cache_key": _has(CachePlacement),
    "file_name": _has(FileNaming),
    "digests": _digests,
    "sizes": lambda bench: all(file.size is not None for file in bench.listing().files),
    "data behind URLs": _urls,
}
"""What tests need, by the word that the summary shows."""
