"""What the kit asks of every source."""

from __future__ import annotations

from pathlib import Path

import pytest

from nim_core.testing.conformance import Served, SourceSuite
from nim_core.testing.corpus import Corpus


class TestLocal(SourceSuite):
    plugin = "local"
    network = False

    @pytest.fixture
    def served(self, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Served:
        folder: Path = tmp_path_factory.mktemp("models") / "sample"
        corpus.write_to(folder)
        return Served(uri=f"local://{folder}", files=corpus.files, missing=f"local://{folder}-2")
