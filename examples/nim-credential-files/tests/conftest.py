"""A mounted Secret as a kubelet makes and changes one, and a user's commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import define, frozen
from nim_credential_files.plugin import nim_provide_credential, nim_register_environment

from nim_core.testing.harness import object_uri, repository_uri
from nim_core.types import CredentialRequest, Variables

pytest_plugins = ["nim_core.testing"]


@define
class Mount:
    """
    A volume of kind ``secret``: files in a folder that the link ``..data`` leads to, and links to those.

    Source: Kubernetes, pkg/volume/util/atomic_writer.go.
    """

    path: Path
    _number: int = 0

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Replace all files at once, and remove those of before, as a kubelet does."""
        before = self.path / f"..{self._number}"
        self._number += 1
        turn = self.path / f"..{self._number}"
        turn.mkdir(parents=True)
        for name, text in files.items():
            (turn / name).parent.mkdir(parents=True, exist_ok=True)
            (turn / name).write_bytes(text if isinstance(text, bytes) else text.encode())
            (turn / name).chmod(0o644)
        (self.path / "..data_tmp").symlink_to(turn.name)
        (self.path / "..data_tmp").rename(self.path / "..data")
        for top in {name.partition("/")[0] for name in files}:
            if not (self.path / top).is_symlink():
                (self.path / top).symlink_to(f"..data/{top}")
        shutil.rmtree(before, ignore_errors=True)

    def asked(self, endpoint="https://api.example.com", uri=None, source="acme"):
        """Return what the plugin answers."""
        if uri is not None:
            uri = object_uri(uri) if source in {"http", "s3", "oci"} else repository_uri(uri)
        variables = Variables(nim_register_environment(), {"NIM_CREDENTIALS_DIR": str(self.path)})
        request = CredentialRequest(source=source, endpoint=endpoint, uri=uri, variables=variables)
        return nim_provide_credential(request)


@pytest.fixture
def mount(tmp_path) -> Mount:
    """An empty volume."""
    (tmp_path / "secrets").mkdir()
    return Mount(tmp_path / "secrets")


@frozen
class User:
    """Runs installed commands in ``folder``, which has a home and a cache and nothing else."""

    folder: Path
    mount: Mount

    def download(self, uri, *, code=0, env=None) -> str:
        """Download a model into the cache; return what was said on stderr. Fails when the exit code is another."""
        done = subprocess.run(
            [Path(sysconfig.get_path("scripts"), "download-to-cache"), "--model-uri", uri],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "NIM_CACHE_PATH": str(self.folder / "cache"),
                "NIM_CREDENTIALS_DIR": str(self.mount.path),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "NO_COLOR": "1",
                **(env or {}),
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr


@pytest.fixture
def user(tmp_path, mount) -> User:
    """A user with a volume of credentials."""
    return User(tmp_path, mount)
