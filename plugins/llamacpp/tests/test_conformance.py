"""The kit's levels, with the real engine and a model that really answers."""

from __future__ import annotations

import pytest

from nim_core.testing.conformance import BackendSuite, ServedModel
from nim_core.testing.tiny_model import GGUF_FILE

pytest_plugins = ["nim_core.testing"]


class TestLlamaCpp(BackendSuite):
    plugin = "llamacpp"

    @pytest.fixture
    def model(self):
        return ServedModel(workspace=GGUF_FILE.parent, installed=True)
