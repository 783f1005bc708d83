"""Manifests written, loaded and refused."""

from __future__ import annotations

import pytest

from nim_core.errors import ManifestError
from nim_core.manifest import load_manifest

ID = "a1" * 32


@pytest.fixture
def write(tmp_path):
    """Write a manifest and return its path."""

    def write(content, name="m.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def load(write):
    """Write a manifest and load it."""

    def load(content, name="m.yaml"):
        return load_manifest(write(content, name))

    return load


@pytest.fixture
def refusal(write):
    """Write a manifest that must be refused; return the error's message without the folder."""

    def refusal(content, name="m.yaml"):
        path = write(content, name)
        with pytest.raises(ManifestError) as caught:
            load_manifest(path)
        return caught.value.message.replace(f"{path.parent}/", "")

    return refusal


@pytest.fixture
def large():
    """A manifest large enough to be worth a parsed form."""

    def profile(number):
        files = "".join(
            f"      part-{part}.bin:\n        uri: ngc://o/m:{number}?file=part-{part}.bin\n"
            f"        checksum: 'blake3:{part:064x}'\n"
            for part in range(100)
        )
        return f"- id: '{number:064x}'\n  tags: {{tp: '{number}'}}\n  workspace:\n    files:\n{files}"

    return "schema_version: 2.0.0\nprofiles:\n" + "".join(map(profile, range(4)))
