"""Sources of this plugin, and a user's commands, against the kit's stand-in for the Hub."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import frozen
from nim_source_hf.plugin import nim_provide_credential, nim_register_sources
from nim_source_hf.source import HfSource

from nim_core.testing.harness import source_context

pytest_plugins = ["nim_core.testing"]

OpenSource = Callable[..., HfSource]


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No variable, token or cache of the person who runs the tests is found."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def open_source() -> Iterator[OpenSource]:
    """Return a function that makes a source from variables, closed at the end of the test."""
    [spec] = nim_register_sources()
    with ExitStack() as stack:

        def open_one(environment, *, provide=nim_provide_credential, **options) -> HfSource:
            context = stack.enter_context(source_context(spec, environment, provide=provide))
            source = HfSource(context, **options)
            stack.callback(source.close)
            return source

        yield open_one


@pytest.fixture
def source(open_source, hub_server) -> HfSource:
    """A source with a member's token for the server of the ``hub_server`` fixture."""
    return open_source(hub_server.environment())


@frozen
class User:
    """
    Runs installed commands, knowing no more than it is told.

    Attributes:
        folder: Has its home, its caches, and nothing else.
        environment: Set for every command.
    """

    folder: Path
    environment: Mapping[str, str]

    @property
    def cache(self) -> Path:
        """Where NIM_CACHE_PATH leads."""
        return self.folder / "cache"

    def run(self, command, *arguments, code=0, env=None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; fails the test when it does not end with ``code``."""
        quiet = {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_COLOR": "1"}
        done = subprocess.run(
            [Path(sysconfig.get_path("scripts"), command), *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "NIM_CACHE_PATH": str(self.cache),
                **quiet,
                **self.environment,
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
        """Download a model; return what was said on stderr."""
        return self.run("download-to-cache", "--model-uri", uri, *options, code=code, env=env).stderr


@pytest.fixture
def user(tmp_path, hub_server) -> User:
    """A user with a member's token for the server of the ``hub_server`` fixture."""
    return User(tmp_path, hub_server.environment())
