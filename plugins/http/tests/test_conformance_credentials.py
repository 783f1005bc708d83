"""The kit's levels."""

from __future__ import annotations

import pytest

from nim_core.testing.conformance import CredentialCase, CredentialSuite
from nim_core.types import BasicPair

pytest_plugins = ["nim_core.testing"]

PASSWORD = "password-of-the-kit"


class TestNetrc(CredentialSuite):
    plugin = "http"

    @pytest.fixture
    def case(self, tmp_path):
        right, broken = tmp_path / "netrc", tmp_path / "broken"
        right.write_text(f"machine files.example login kit password {PASSWORD}\n", encoding="utf-8")
        broken.write_text(f"machine files.example password {PASSWORD} {PASSWORD}\n", encoding="utf-8")
        for file in (right, broken):
            file.chmod(0o600)
        return CredentialCase(
            source="http",
            endpoint="https://files.example",
            expects=BasicPair,
            secrets=(PASSWORD,),
            environment={"NETRC": str(right)},
            broken={"NETRC": str(broken)},
            foreign_endpoint="https://files.example.org",
        )
