"""Registries with the sample model, sources of this plugin, and a user's commands."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import frozen
from nim_source_oci.plugin import nim_provide_credential, nim_register_sources
from nim_source_oci.source import OciSource
from real_registry import HTPASSWD, Registry, Storage, TokenService, basic, redirecting, running_registry

from nim_core.testing.harness import source_context

pytest_plugins = ["nim_core.testing"]


@pytest.fixture
def registry(tmp_path_factory) -> Iterator[Registry]:
    """A registry that lets everybody in."""
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def closed_registry(tmp_path_factory) -> Iterator[Registry]:
    """A registry that wants user and password with every request."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    with running_registry(folder, auth=auth, authorization=lambda _: basic()) as running:
        yield running


@pytest.fixture
def tokens(certificates) -> Iterator[TokenService]:
    """The token service of the ``token_registry`` fixture."""
    service = TokenService(certificates)
    with service.origin:
        yield service


@pytest.fixture
def token_registry(tmp_path_factory, tokens) -> Iterator[Registry]:
    """A registry that wants a token, as Docker Hub, GitHub and GitLab do."""
    auth = {"token": tokens.config}
    with running_registry(tmp_path_factory.mktemp("registry"), auth=auth, authorization=tokens.for_pushing) as running:
        yield running


@pytest.fixture
def storage(tmp_path_factory) -> Iterator[Storage]:
    """The storage of the ``redirecting_registry`` fixture."""
    stored = Storage(tmp_path_factory.mktemp("registry") / "data")
    with stored.origin:
        yield stored


@pytest.fixture
def redirecting_registry(storage, tokens) -> Iterator[Registry]:
    """A registry that wants a token and redirects to storage elsewhere, as large registries do."""
    with redirecting(storage, tokens) as running:
        yield running


@pytest.fixture
def open_source() -> Iterator[Callable[..., OciSource]]:
    """Return a function that makes a source from variables, closed at the end of the test."""
    [spec] = nim_register_sources()
    with ExitStack() as stack:

        def open_one(environment=None, *, provide=nim_provide_credential) -> OciSource:
            variables = {"DOCKER_CONFIG": "/nonexistent", **(environment or {})}
            context = stack.enter_context(source_context(spec, variables, provide=provide))
            source = spec.factory(context)
            stack.callback(source.close)
            return source

        yield open_one


@frozen
class User:
    """Runs installed commands in ``folder``, which has a home and a cache and nothing else."""

    folder: Path

    def run(self, command, *arguments, code=0, env=None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; fails the test when it does not end with ``code``."""
        done = subprocess.run(
            [Path(sysconfig.get_path("scripts"), command), *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "NIM_CACHE_PATH": str(self.folder / "cache"),
                "NO_COLOR": "1",
                **(env or {}),
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def download(self, uri, *options, code=0, env=None) -> str:
        """Download a model into the cache; return what was said on stderr."""
        return self.run("download-to-cache", "--model-uri", uri, *options, code=code, env=env).stderr


@pytest.fixture
def user(tmp_path) -> User:
    """A user without any credential."""
    return User(tmp_path)
