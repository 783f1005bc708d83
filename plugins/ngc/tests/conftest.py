"""Sources of this plugin, opened against the kit's stand-in for NGC."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from nim_source_ngc.plugin import nim_provide_credential, nim_register_sources
from nim_source_ngc.source import NgcSource

from nim_core.testing.harness import source_context
from nim_core.testing.ngc_server import NgcServer

pytest_plugins = ["nim_core.testing"]

OpenSource = Callable[..., NgcSource]


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No key of the person who runs the tests is found."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def open_source() -> Iterator[OpenSource]:
    """Return a function that makes a source from variables, closed at the end of the test."""
    [spec] = nim_register_sources()
    with ExitStack() as stack:

        def open_one(environment, *, provide=nim_provide_credential, clock=time.time, trust=None) -> NgcSource:
            context = stack.enter_context(source_context(spec, environment, provide=provide, trust=trust))
            source = NgcSource(context, clock=clock)
            stack.callback(source.close)
            return source

        yield open_one


@pytest.fixture
def source(open_source: OpenSource, ngc_server: NgcServer) -> NgcSource:
    """A source with an nvapi key for the server of the ``ngc_server`` fixture."""
    return open_source(ngc_server.environment())
