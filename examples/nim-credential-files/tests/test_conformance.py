"""What nim-core's kit asks of everybody who provides credentials."""

from __future__ import annotations

import pytest

from nim_core.testing.conformance import CredentialCase, CredentialSuite
from nim_core.types import BasicPair, BearerToken, KeyPair


class TestSource(CredentialSuite):
    plugin = "files"

    @pytest.fixture
    def case(self, mount, tmp_path):
        mount.write({"hf/token": "t0ken-of-the-file\n"})
        return CredentialCase(
            source="hf",
            endpoint="https://hub.example.com",
            expects=BearerToken,
            secrets=("t0ken-of-the-file",),
            environment={"NIM_CREDENTIALS_DIR": str(mount.path), "HF_TOKEN": "t0ken-of-the-variable"},
            nothing={"NIM_CREDENTIALS_DIR": str(tmp_path / "none")},
        )


class TestHost(CredentialSuite):
    plugin = "files"

    @pytest.fixture
    def case(self, mount, tmp_path):
        mount.write({"files.example.com/username": "bob", "files.example.com/password": "s3cret-of-the-file"})
        (tmp_path / "broken/files.example.com/username").mkdir(parents=True)
        return CredentialCase(
            source="http",
            endpoint="https://files.example.com",
            expects=BasicPair,
            secrets=("s3cret-of-the-file",),
            environment={"NIM_CREDENTIALS_DIR": str(mount.path)},
            nothing={"NIM_CREDENTIALS_DIR": str(tmp_path / "none")},
            broken={"NIM_CREDENTIALS_DIR": str(tmp_path / "broken")},
            foreign_endpoint="https://other.example.com",
            uri="https://files.example.com/model.bin",
        )


class TestKeys(CredentialSuite):
    plugin = "files"

    @pytest.fixture
    def case(self, mount, tmp_path):
        keys = {"access-key-id": "AKIA", "secret-access-key": "s3cret-of-the-file", "session-token": "s3ssion"}
        mount.write({f"s3/{name}": text for name, text in keys.items()})
        (tmp_path / "broken/s3").mkdir(parents=True)
        (tmp_path / "broken/s3/access-key-id").write_text("AKIA")
        return CredentialCase(
            source="s3",
            endpoint="https://s3.example.com",
            expects=KeyPair,
            secrets=("s3cret-of-the-file", "s3ssion"),
            environment={"NIM_CREDENTIALS_DIR": str(mount.path)},
            nothing={"NIM_CREDENTIALS_DIR": str(tmp_path / "none")},
            broken={"NIM_CREDENTIALS_DIR": str(tmp_path / "broken")},
        )
