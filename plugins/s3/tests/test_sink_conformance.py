"""The kit's levels, against a real server."""

from __future__ import annotations

import uuid
from typing import ClassVar

import pytest
from nim_source_s3 import sink

from nim_core.testing.conformance import CredentialCase, CredentialSuite, SinkSuite, Stored
from nim_core.types import KeyPair


class TestS3Sink(SinkSuite):
    plugin = "s3"
    set_aside: ClassVar = {
        "test_keys_with_empty_segments": "SeaweedFS keeps no empty segments; Amazon S3 does",
        "test_writing_to_a_bucket_that_does_not_exist": "SeaweedFS makes buckets by itself; Amazon S3 does not",
    }

    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch):
        """The smallest parts that S3 takes."""
        monkeypatch.setattr(sink, "_PART_BYTES", 5 << 20)
        monkeypatch.setattr(sink, "_AT_ONCE_BYTES", 5 << 20)

    @pytest.fixture
    def stored(self, server):
        name = f"kit-{uuid.uuid4().hex[:8]}"
        server.client().create_bucket(Bucket=name)
        return Stored(
            bucket=name,
            missing=f"{name}-missing",
            environment=server.environment(),
            stranger={"AWS_ENDPOINT_URL": server.url},
            reader=server.environment(server.reader),
        )


class TestS3Keys(CredentialSuite):
    plugin = "s3"

    @pytest.fixture
    def case(self):
        keys = {"AWS_SECRET_ACCESS_KEY": "secret-of-the-kit", "AWS_SESSION_TOKEN": "session-of-the-kit"}
        return CredentialCase(
            source="s3",
            endpoint="https://s3.example",
            expects=KeyPair,
            secrets=tuple(keys.values()),
            environment={"AWS_ACCESS_KEY_ID": "AKIAKIT", **keys},
            broken=keys,
        )
