"""Sources of this plugin, opened against the kit's stand-in for ModelScope."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from nim_source_modelscope.plugin import nim_provide_credential, nim_register_sources
from nim_source_modelscope.source import ModelScopeSource

from nim_core.testing.harness import source_context
from nim_core.testing.modelscope_server import ModelScopeServer

pytest_plugins = ["nim_core.testing"]

OpenSource = Callable[..., ModelScopeSource]


class Naps:
    """Takes the place of sleeping; what was asked for is kept."""

    def __init__(self):
        self.seconds = []

    def __call__(self, seconds):
        self.seconds.append(seconds)


@pytest.fixture
def naps() -> Naps:
    """How long the sources of this test would have slept."""
    return Naps()


@pytest.fixture
def open_source(naps: Naps) -> Iterator[OpenSource]:
    """Return a function that makes a source from variables, closed at the end of the test."""
    [spec] = nim_register_sources()
    with ExitStack() as stack:

        def open_one(environment, *, provide=nim_provide_credential, trust=None) -> ModelScopeSource:
            context = stack.enter_context(source_context(spec, environment, provide=provide, trust=trust))
            source = ModelScopeSource(context, sleep=naps)
            stack.callback(source.close)
            return source

        yield open_one


@pytest.fixture
def source(open_source: OpenSource, modelscope_server: ModelScopeServer) -> ModelScopeSource:
    """A source with a token for the server of the ``modelscope_server`` fixture."""
    return open_source(modelscope_server.environment())
