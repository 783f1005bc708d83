"""What the kit asks of every source."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nim_core.testing.conformance import Served, SourceSuite
from nim_core.testing.corpus import Corpus
from nim_core.testing.modelscope_models import ModelScopeModel
from nim_core.testing.modelscope_server import ModelScopeServer


class TestModelScope(SourceSuite):
    plugin = "modelscope"

    @pytest.fixture
    def served(self, corpus: Corpus) -> Iterator[Served]:
        model = ModelScopeModel(files=corpus.files)
        with ModelScopeServer([model]) as server:
            yield Served(
                uri=model.uri(),
                files=corpus.files,
                environment=server.environment(),
                missing="modelscope://nobody/nothing",
                expire=server.expire_urls,
            )
