"""What the kit asks of every source."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nim_core.testing.conformance import Served, SourceSuite
from nim_core.testing.corpus import Corpus
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer


class TestHub(SourceSuite):
    plugin = "hf"

    @pytest.fixture
    def served(self, corpus: Corpus) -> Iterator[Served]:
        model = HubModel(files=corpus.files)
        newer = HubModel(files={"config.json": corpus.files["config.json"]})
        with HubServer([model], page_size=4) as server:
            yield Served(
                uri=model.uri(),
                files=corpus.files,
                environment=server.environment(),
                missing="hf://nobody/nothing",
                expire=server.expire_urls,
                change=lambda: server.add(newer),
            )
