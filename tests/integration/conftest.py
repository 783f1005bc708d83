"""
A user's machine: the installed executables, run as a user runs them against servers on real sockets.

Nothing of the environment of the tests themselves reaches them: their HOME is an empty folder, and no key, proxy or
certificate is known unless a test says so. They run in a folder that has nothing to do with this repository.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen

from nim_core.testing.corpus import Corpus
from nim_core.testing.manifests import manifest_for, profile_id
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer

COMMAND = "download-to-cache"
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RUN_SECONDS = 60
OTHER_USER = 1000

# May read what root may, so that Python itself is found wherever it is; may write nothing that others may not.
AS_OTHER_USER = (
    "setpriv",
    f"--reuid={OTHER_USER}",
    f"--regid={OTHER_USER}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)


# --------------------------------------------------------------------------------------------------- what came of a run
@frozen(kw_only=True)
class Ended:
    """How a command ended: ``code`` is negative for a signal that killed it."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def last(self) -> str:
        """The last line on stderr: what Kubernetes and many people read."""
        return self.stderr.splitlines()[-1] if self.stderr else ""

    @property
    def said(self) -> str:
        """Everything it said."""
        return self.stdout + self.stderr

    def check(self) -> Ended:
        """Return itself; fails the test when the command did."""
        assert self.code == 0, self.stderr
        return self


@frozen(kw_only=True)
class Started:
    """A command under way."""

    process: subprocess.Popen[str]
    began: float

    def end(self, *, send: signal.Signals | None = None) -> Ended:
        """Wait for its end, after sending it a signal; ``seconds`` then counts from that."""
        began = self.began
        if send is not None:
            began = time.monotonic()
            self.process.send_signal(send)
        stdout, stderr = self.process.communicate(timeout=RUN_SECONDS)
        seconds = time.monotonic() - began
        return Ended(code=self.process.returncode, stdout=stdout, stderr=stderr, seconds=seconds)


# ----------------------------------------------------------------------------------------------------- what is on disk
@frozen
class Cache:
    """A cache folder, looked at from outside."""

    path: Path

    @property
    def blobs(self) -> list[Path]:
        """Files beneath any ``blobs``."""
        return sorted(self.path.glob("*/hub/*/blobs/*"))

    @property
    def links(self) -> list[Path]:
        """What is beneath any ``snapshots``, folders left out."""
        return sorted(
            path for path in self.path.glob("*/hub/*/snapshots/*/**/*") if path.is_symlink() or path.is_file()
        )

    @property
    def receipts(self) -> dict[str, dict[str, Any]]:
        """Receipts by the id in their file's name."""
        return {path.stem: json.loads(path.read_bytes()) for path in sorted(self.path.glob("receipts/*"))}

    @property
    def visible(self) -> list[Path]:
        """Everything that must never be half there."""
        return [*self.blobs, *self.links, *sorted(self.path.glob("receipts/*"))]

    @property
    def leftovers(self) -> list[Path]:
        """What is kept for a later run to go on with."""
        return sorted(self.path.glob("tmp/**/*"))

    def snapshot(self, model: NgcModel) -> Path:
        """Where the files of a model have to be."""
        repo = "--".join(["models", *(part for part in (model.org, model.team, model.name) if part)])
        return self.path / "ngc/hub" / repo / "snapshots" / model.version

    def blob(self, model: NgcModel, file: str) -> Path:
        """The blob that a file's link has to lead to."""
        return self.snapshot(model).parents[1] / "blobs" / model.files[file].digest("blake3").value

    def link(self, model: NgcModel, file: str) -> Path:
        """The link of a file."""
        return self.snapshot(model) / file

    def differences(self, model: NgcModel) -> list[str]:
        """Compare every byte of the snapshot with the model; one line per difference."""
        return Corpus(files=model.files).differences(self.snapshot(model))

    def copied_to(self, path: Path, *cp_options: str) -> Cache:
        """Return a copy made by ``cp``."""
        subprocess.run(["cp", *cp_options, self.path, path], check=True)
        return Cache(path)


# --------------------------------------------------------------------------------------------------- a user's machine
@define
class Machine:
    """
    Where commands are run.

    Attributes:
        folder: Room for the test's own files.
        cache: Where NIM_CACHE_PATH leads.
        environment: Set for every command, beyond PATH, HOME and NIM_CACHE_PATH.
    """

    folder: Path
    cache: Cache
    environment: dict[str, str] = field(factory=dict)

    @classmethod
    def in_folder(cls, folder: Path) -> Machine:
        """Return a machine whose HOME and working folder are empty."""
        for name in ("home", "elsewhere"):
            (folder / name).mkdir()
        return cls(folder=folder, cache=Cache(folder / "cache"))

    def start(
        self,
        *arguments: str | Path,
        command: Sequence[str] = (COMMAND,),
        within: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Started:
        """
        Start a command.

        Args:
            arguments: What follows the command.
            command: An executable of this project, with sub-commands.
            within: A program to run it under, with its arguments.
            env: More variables.
        """
        executable = Path(sysconfig.get_path("scripts"), command[0])
        process = subprocess.Popen(
            [*within, executable, *command[1:], *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=self.folder / "elsewhere",
            env={
                "PATH": PROGRAMS,
                "HOME": str(self.folder / "home"),
                "NIM_CACHE_PATH": str(self.cache.path),
                **self.environment,
                **(env or {}),
            },
        )
        return Started(process=process, began=time.monotonic())

    def run(
        self,
        *arguments: str | Path,
        command: Sequence[str] = (COMMAND,),
        within: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a command to its end; arguments as :meth:`start`."""
        return self.start(*arguments, command=command, within=within, env=env).end()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which nothing was downloaded."""
    return Machine.in_folder(tmp_path)


@pytest.fixture(scope="session")
def new_machine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Machine]:
    """Return a function that makes such machines, for more tests than one."""
    tmp_path_factory.getbasetemp()  # made by whoever asks first, and machines are made on several threads
    return lambda: Machine.in_folder(tmp_path_factory.mktemp("machine"))


# ------------------------------------------------------------------------------------------------------------- servers
@frozen(kw_only=True)
class Served:
    """
    A server with its models, and what leads a user to them.

    Attributes:
        server: Runs.
        manifest: Has one profile per model.
        models: All of them.
    """

    server: NgcServer
    manifest: Path
    models: tuple[NgcModel, ...]

    @property
    def model(self) -> NgcModel:
        """The first model."""
        return self.models[0]

    @property
    def profile(self) -> str:
        """The profile of the first model."""
        return profile_id(self.model)

    @property
    def bodies(self) -> dict[str, int]:
        """How often bytes of each file were sent by the storage, by path there."""
        counts: dict[str, int] = {}
        for exchange in self.server.log.select(origin="storage"):
            counts[exchange.request.path] = counts.get(exchange.request.path, 0) + 1
        return counts


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """
    Return a function that starts a server for models and writes their manifest.

    Fails the test when a credential reached a storage.
    """
    with ExitStack() as stack:
        running: list[NgcServer] = []

        def start(*models: NgcModel, tags: Sequence[Mapping[str, str]] = (), **options: Any) -> Served:
            server = stack.enter_context(NgcServer(models, **options))
            running.append(server)
            manifest = tmp_path / f"manifest-{len(running)}.yaml"
            text = manifest_for(*models, tags=tags) if tags else manifest_for(*models)
            manifest.write_text(text, encoding="utf-8")
            return Served(server=server, manifest=manifest, models=models)

        yield start
    assert [request.target for server in running for request in server.storage.leaks] == []


# -------------------------------------------------------------------------------------------------- what needs root
def _as_root(what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"{what} needs root")


@pytest.fixture
def other_user() -> Sequence[str]:
    """What runs a command as a user who is not root."""
    _as_root("another user")
    return AS_OTHER_USER


@pytest.fixture
def shared_machine() -> Iterator[Machine]:
    """A machine whose folder other users can get to; the tests' own they cannot."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield Machine.in_folder(folder)


Mount = Callable[..., Path]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Return a function that mounts something for the rest of the test: ``mount(folder, *arguments of mount)``."""
    with ExitStack() as stack:

        def mount_one(folder: Path, *arguments: str | Path) -> Path:
            _as_root("mounting")
            folder.mkdir(exist_ok=True)
            done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot mount here: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
            return folder

        yield mount_one


# --------------------------------------------------------------------------------------------------- watched commands
@frozen
class Sockets:
    """Runs commands under strace and tells which sockets they opened."""

    log: Path

    @property
    def within(self) -> Sequence[str]:
        """What runs a command so that it is watched."""
        calls = "trace=socket,connect"
        return ("strace", "-f", "-qq", "-e", calls, "-e", "signal=none", "-o", str(self.log))

    @property
    def lines(self) -> list[str]:
        """The calls, one each; those within this machine, such as to ask for a user's name, are left out."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if "AF_UNIX" not in line]

    @property
    def ports(self) -> set[int]:
        """Ports that were connected to."""
        return {int(line.partition("htons(")[2].partition(")")[0]) for line in self.lines if "htons(" in line}


@pytest.fixture
def sockets(tmp_path: Path) -> Sockets:
    """A watched command's sockets; skips where commands cannot be watched."""
    found = Sockets(tmp_path / "strace.log")
    _installed("strace", "strace")
    works = subprocess.run([*found.within, "true"], capture_output=True, text=True, check=False)
    if works.returncode:
        pytest.skip(f"strace does not work here: {works.stderr.strip()}")
    return found


def _installed(name: str, package: str) -> str:
    found = shutil.which(name, path=PROGRAMS)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not installed: apt-get install {package}")
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {package}")
    return found
