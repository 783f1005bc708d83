"""The kit's levels, against both servers: each is right about what the other is wrong about."""

from __future__ import annotations

from typing import ClassVar

import pytest
from nim_source_gcs import sink

from nim_core.testing.conformance import CredentialCase, CredentialSuite, SinkSuite, Stored
from nim_core.types import Ambient

_PART = 256 * 1024
_IN_PARTS = "the stand-in, unlike Google, obeys no ifGenerationMatch of a resumable upload"
_COPIES = "the stand-in, unlike Google, obeys no ifGenerationMatch of a copy"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """The smallest parts that Google takes."""
    monkeypatch.setattr(sink, "_PART", _PART)
    monkeypatch.setattr(sink, "_AT_ONCE", _PART)


def stored_at(server, key_file):
    """Return where the sink may write at a server."""
    server.make_bucket("models")
    environment = {"NO_GCE_CHECK": "true", **server.environment()}
    return Stored(bucket="models", environment={**environment, **key_file}, stranger=environment)


class TestGcsSink(SinkSuite):
    plugin = "gcs"
    set_aside: ClassVar = {
        "test_parts_do_not_replace_what_somebody_else_wrote": _IN_PARTS,
        "test_a_copy_replaces_nothing": _COPIES,
        "test_another_process_goes_on": "fake-gcs-server ends an upload when it is asked how far it is",
        "test_what_is_dropped_is_gone": "fake-gcs-server goes on with an upload that was given up",
    }

    @pytest.fixture
    def stored(self, gcs_server, key_file):
        return stored_at(gcs_server, key_file)


class TestGcsSinkInParts(SinkSuite):
    plugin = "gcs"
    set_aside: ClassVar = {
        "test_parts_do_not_replace_what_somebody_else_wrote": _IN_PARTS,
        "test_a_copy_replaces_nothing": _COPIES,
        "test_what_somebody_else_wrote_stays": "gcp-storage-emulator ignores ifGenerationMatch",
        "test_what_has_changed_since_stays": "gcp-storage-emulator ignores ifGenerationMatch",
        "test_a_token_of_another_object": "gcp-storage-emulator does not let an upload be given up (501)",
        "test_what_is_dropped_is_gone": "gcp-storage-emulator does not let an upload be given up (501)",
    }

    @pytest.fixture
    def stored(self, gcs_emulator, key_file):
        return stored_at(gcs_emulator, key_file)


class TestGoogleCredentials(CredentialSuite):
    plugin = "gcs"

    @pytest.fixture
    def case(self):
        return CredentialCase(source="gcs", endpoint="https://storage.googleapis.com", expects=Ambient)
