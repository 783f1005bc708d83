"""The kit's levels, with a program that is called vllm; ``tests/engines`` has the real one."""

from __future__ import annotations

import pytest

from nim_core.testing.conformance import BackendSuite, ServedModel
from nim_core.testing.tiny_model import SAFETENSORS_FOLDER

pytest_plugins = ["nim_core.testing"]


class TestVllm(BackendSuite):
    plugin = "vllm"

    @pytest.fixture
    def model(self, tmp_path):
        program = tmp_path / "bin" / "vllm"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n", encoding="utf-8")
        program.chmod(0o755)
        return ServedModel(workspace=SAFETENSORS_FOLDER, environment={"PATH": str(program.parent)}, installed=None)
