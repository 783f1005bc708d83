"""What nim-core's kit asks of every source, and of everybody who provides credentials."""

from __future__ import annotations

import base64
import itertools
import json

import pytest
from real_registry import PASSWORD, USER, Storage, TokenService, redirecting

from nim_core.testing.conformance import CredentialCase, CredentialSuite, Served, SourceSuite
from nim_core.types import BasicPair

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def running(tmp_path_factory, certificates):
    """One registry for all tests, which wants tokens and redirects to storage; each test has its own repository."""
    tokens, storage = TokenService(certificates), Storage(tmp_path_factory.mktemp("registry") / "data")
    with tokens.origin, storage.origin, redirecting(storage, tokens) as registry:
        yield registry, tokens


class TestOci(SourceSuite):
    plugin = "oci"

    @pytest.fixture
    def served(self, corpus, running):
        registry, tokens = running
        name = f"team/model{next(_NUMBERS)}"
        registry.push(name, "v1", corpus.files)
        return Served(
            uri=f"oci://{registry.host}/{name}:v1",
            files=corpus.files,
            missing=f"oci://{registry.host}/{name}:none",
            environment={**registry.variables(), "DOCKER_CONFIG": "/nonexistent"},
            endpoints=(f"http://{registry.host}", tokens.origin.url),
            token_services=(tokens.origin.url,),
            change=lambda: registry.push(name, "v1", {"config.json": corpus.files["config.json"]}),
        )


class TestVariables(CredentialSuite):
    plugin = "oci"

    @pytest.fixture
    def case(self):
        environment = {"OCI_REGISTRY": "r.example.com:5000", "OCI_USERNAME": USER, "OCI_PASSWORD": PASSWORD}
        return CredentialCase(
            source="oci",
            endpoint="https://r.example.com:5000",
            expects=BasicPair,
            secrets=(PASSWORD,),
            environment=environment,
            broken={"OCI_USERNAME": USER, "OCI_PASSWORD": PASSWORD},
            foreign_endpoint="https://r.example.com",
            uri="oci://r.example.com:5000/team/model:v1",
        )


class TestDockerConfig(CredentialSuite):
    plugin = "oci"

    @pytest.fixture
    def case(self, tmp_path):
        for folder, text in (
            ("good", {"auths": {"r.example.com": {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}}),
            ("bad", {"auths": {"r.example.com": {"auth": PASSWORD}}}),
        ):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "config.json").write_text(json.dumps(text))
        return CredentialCase(
            source="oci",
            endpoint="https://r.example.com",
            expects=BasicPair,
            secrets=(PASSWORD,),
            environment={"DOCKER_CONFIG": str(tmp_path / "good")},
            broken={"DOCKER_CONFIG": str(tmp_path / "bad")},
            foreign_endpoint="https://other.example.com",
        )
