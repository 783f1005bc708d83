"""What the kit asks of every source."""

from __future__ import annotations

import pytest

from nim_core.testing.conformance import Served, SourceSuite
from nim_core.testing.corpus import Corpus
from nim_core.testing.s3_server import S3Server


@pytest.fixture(scope="module")
def filled(server: S3Server, corpus: Corpus) -> S3Server:
    """The server, with the sample model below ``s3://models/sample/``."""
    client = server.client()
    for path, content in corpus.files.items():
        client.put_object(Bucket="models", Key=f"sample/{path}", Body=content.data(), ChecksumAlgorithm="SHA256")
    return server


class TestS3(SourceSuite):
    plugin = "s3"

    @pytest.fixture
    def served(self, filled: S3Server, corpus: Corpus) -> Served:
        return Served(
            uri="s3://models/sample/",
            files=corpus.files,
            environment=filled.environment(filled.reader) | {"AWS_EC2_METADATA_DISABLED": "true"},
            missing="s3://models/nothing",
        )
