"""The kit's levels; the real engine is started where it is installed."""

from __future__ import annotations

import importlib.util

import pytest

from nim_core.testing.conformance import BackendSuite, ServedModel
from nim_core.testing.tiny_model import SAFETENSORS_FOLDER

pytest_plugins = ["nim_core.testing"]

INSTALLED = all(importlib.util.find_spec(name) for name in ("transformers", "torch", "fastapi", "uvicorn"))


class TestTransformers(BackendSuite):
    plugin = "transformers"

    @pytest.fixture
    def model(self, tmp_path, monkeypatch):
        if not INSTALLED:  # so that there is a program to plan for
            program = tmp_path / "transformers"
            program.touch(mode=0o755)
            monkeypatch.setenv("PATH", str(tmp_path))
        return ServedModel(workspace=SAFETENSORS_FOLDER, installed=INSTALLED or None)
