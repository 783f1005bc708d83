"""What the kit asks of every source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nim_core.testing.conformance import Served, SourceSuite
from nim_core.testing.corpus import Corpus
from nim_core.testing.gcs_server import GcsServer
from nim_core.testing.google_auth import GoogleAuth


@pytest.fixture(scope="module")
def auth() -> Iterator[GoogleAuth]:
    """Google's token services."""
    with GoogleAuth() as running:
        yield running


@pytest.fixture(scope="module")
def server(auth: GoogleAuth, corpus: Corpus) -> Iterator[GcsServer]:
    """The server, with the sample model below ``gs://models/sample/``."""
    with GcsServer(auth=auth) as running:
        for path, content in corpus.files.items():
            running.put("models", f"sample/{path}", content)
        yield running


class TestGcs(SourceSuite):
    plugin = "gcs"

    @pytest.fixture
    def served(self, server: GcsServer, auth: GoogleAuth, corpus: Corpus, tmp_path_factory) -> Served:
        folder: Path = tmp_path_factory.mktemp("keys")
        key = auth.service_account_file(folder)
        return Served(
            uri="gs://models/sample/",
            files=corpus.files,
            environment={
                **server.environment(),
                "GOOGLE_APPLICATION_CREDENTIALS": str(key),
                "NO_GCE_CHECK": "true",
            },
            endpoints=(server.url, auth.url),
            token_services=(auth.url,),
            secrets=tuple(key.read_text(encoding="utf-8").split('"private_key": "')[1].split("\\n")[1:3]),
            missing="gs://models/nothing",
        )
