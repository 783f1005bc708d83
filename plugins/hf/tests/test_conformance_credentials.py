"""The kit's levels."""

from __future__ import annotations

import pytest
from huggingface_hub import constants  # noqa: TID253

from nim_core.testing.conformance import CredentialCase, CredentialSuite
from nim_core.types import BearerToken

TOKEN = "hf_of_the_kit"


class TestHubToken(CredentialSuite):
    plugin = "hf"

    @pytest.fixture
    def case(self, tmp_path, monkeypatch):
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        return CredentialCase(
            source="hf",
            endpoint="https://huggingface.co",
            expects=BearerToken,
            secrets=(TOKEN,),
            environment={"HF_TOKEN": f"{TOKEN}\n"},
            uri="hf://org/name",
        )
