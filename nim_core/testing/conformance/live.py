"""The suite of sources at a real service: its own addresses, credentials and proxies, and no relay in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nim_core.errors import NimError
from nim_core.testing.conformance.bench import Bench
from nim_core.testing.conformance.relay import Relay
from nim_core.testing.conformance.served import Served
from nim_core.testing.conformance.source import SourceSuite

__all__ = ["LiveSuite", "live_fixtures"]


class LiveSuite(SourceSuite):
    """The tests that can be had without knowing what a model consists of; they list it, and read little."""

    @pytest.fixture
    def bench(self, served: Served, tmp_path: Path) -> Iterator[Bench]:
        """Core as a command has it, in this very environment."""
        with Relay(()) as relay:
            yield Bench(
                plugin=self.info(),
                served=served,
                relay=relay,
                folder=tmp_path,
                environment=served.environment,
                relayed=False,
            )

    @pytest.fixture
    def listable(self, bench: Bench) -> Bench:
        """The same; that the model cannot be listed fails each test, as nothing else says so here."""
        try:
            bench.listing()
        except NimError as exc:
            pytest.fail(f"{type(exc).__name__}: {exc}", pytrace=False)
        bench.forget()
        return bench


def live_fixtures(uri: str, environment: Mapping[str, str]) -> dict[str, Callable[..., Any]]:
    """Return what a class of :class:`LiveSuite` needs beside the plugin's name."""
    served = Served(uri=uri, files=None, environment=environment)

    def give(_self: object) -> Served:
        return served

    return {"served": pytest.fixture(name="served")(give)}
