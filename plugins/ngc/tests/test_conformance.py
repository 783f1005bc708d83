"""What the kit asks of every source."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nim_core.testing.conformance import Served, SourceSuite
from nim_core.testing.corpus import Corpus
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer


class TestNgc(SourceSuite):
    plugin = "ngc"

    @pytest.fixture
    def served(self, corpus: Corpus) -> Iterator[Served]:
        model = NgcModel(files=corpus.files)
        newer = NgcModel(files={"config.json": corpus.files["config.json"]}, version="2.0")
        with NgcServer([model], page_size=5) as server:
            yield Served(
                uri=model.uri().partition(":hf")[0],
                files=model.served_files,
                environment=server.environment(),
                endpoints=(server.api_url,),
                missing="ngc://nvidia/none/nothing:1",
                expire=server.expire_urls,
                change=lambda: server.add(newer),
            )
