"""The kit's levels."""

from __future__ import annotations

import pytest

from nim_core.testing.conformance import CredentialCase, CredentialSuite
from nim_core.types import BearerToken


class TestModelScopeToken(CredentialSuite):
    plugin = "modelscope"

    @pytest.fixture
    def case(self):
        return CredentialCase(
            source="modelscope",
            endpoint="https://modelscope.cn",
            expects=BearerToken,
            secrets=("ms-token-of-the-kit",),
            environment={"MODELSCOPE_API_TOKEN": "ms-token-of-the-kit"},
        )
