"""The kit's levels."""

from __future__ import annotations

import pytest

from nim_core.testing.conformance import CredentialCase, CredentialSuite
from nim_core.types import BearerToken

KEY = "nvapi-of-the-kit"


class TestNgcKeys(CredentialSuite):
    plugin = "ngc"

    @pytest.fixture(params=["variable", "file"])
    def case(self, request, tmp_path):
        for folder, text in (("right", f"[CURRENT]\napikey = {KEY}\n"), ("broken", f"apikey {KEY}")):
            (tmp_path / folder / ".ngc").mkdir(parents=True)
            (tmp_path / folder / ".ngc" / "config").write_text(text, encoding="utf-8")
        in_file = {"NGC_CLI_HOME": str(tmp_path / "right")}
        return CredentialCase(
            source="ngc",
            endpoint="https://api.ngc.nvidia.com",
            expects=BearerToken,
            secrets=(KEY,),
            environment={"NGC_API_KEY": f" {KEY}\n"} if request.param == "variable" else in_file,
            broken={"NGC_CLI_HOME": str(tmp_path / "broken")},
            uri="ngc://nim/meta/llama3-8b-instruct:hf",
        )
