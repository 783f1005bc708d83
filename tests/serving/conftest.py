"""An engine as a process of its own, a front before it, and what looks after both."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import frozen

from nim_core.serving import guardian
from nim_core.serving.front import FrontOptions, make_front
from nim_core.serving.listener import Listener
from nim_core.serving.state import Engine, Served, ServingState
from nim_core.types import LaunchPlan

ENGINE = Path(__file__).with_name("engine.py")

SERVED = Served(
    profile_id="ab" * 32,
    profile_name="tiny-fp16-tp1",
    model_urls=("ngc://nim/meta/tiny:1.0",),
    manifest="schema: 2\n",
    licenses={"legal/LICENSE": "Be kind.\n"},
    backend={"name": "stand-in", "version": "1"},
)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def engine_command(port: int, *flags: str) -> tuple[str, ...]:
    """Return the command line of the engine for tests."""
    return (sys.executable, str(ENGINE), "--port", str(port), *flags)


def until(holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := holds():
            return value
        time.sleep(0.02)
    raise AssertionError(f"did not come true within {seconds} s: {holds}")


def runs(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def written_pids(file: Path) -> list[int]:
    """Return the pids of an engine and its children, as they wrote them."""
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@frozen(kw_only=True)
class RunningEngine:
    """An engine that answers."""

    url: str
    process: subprocess.Popen[bytes]

    def told(self) -> dict[str, Any]:
        """Return what it says of itself."""
        return httpx.get(f"{self.url}/told", trust_env=False).json()


@contextmanager
def running_engine(*flags: str) -> Iterator[RunningEngine]:
    """An engine that answers, for as long as the context lasts."""
    port = free_port()
    with subprocess.Popen(engine_command(port, *flags)) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: _answers(f"{url}/health"))
            yield RunningEngine(url=url, process=process)
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """An engine that a module's tests share and leave as it is."""
    with running_engine() as running:
        yield running


class Fronts:
    """Makes fronts that end with the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def before(self, url: str | None, options: dict[str, Any] | None = None, **plan: Any) -> Front:
        """Return a front before an engine; without ``url`` before none yet."""
        state = ServingState()
        listener = Listener(make_front(state, FrontOptions(release="2.0.9", **(options or {}))), "127.0.0.1", 0)
        listener.start()
        self._stack.callback(listener.stop, 0.1)
        if url is not None:
            plan = {"argv": ("engine",), "metrics_path": "/metrics", "served_names": ("meta/tiny",), **plan}
            state.started(Engine(url=url, plan=LaunchPlan(**plan)))
            state.enter("serving")
        client = self._stack.enter_context(httpx.Client(base_url=listener.url, trust_env=False, timeout=20))
        return Front(state=state, listener=listener, client=client)


@frozen(kw_only=True)
class Front:
    """A front that listens, and a client of it."""

    state: ServingState
    listener: Listener
    client: httpx.Client


@pytest.fixture
def fronts() -> Iterator[Fronts]:
    """Makes fronts that end with the test."""
    with ExitStack() as stack:
        yield Fronts(stack)


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    """Fail a test that leaves a process behind; what outlived a killed parent lands here, and has time to end."""
    before = set(_children())
    yield
    until(lambda: not [pid for pid in _children() if pid not in before and runs(pid)])


def _children() -> list[int]:
    return [pid for pid, parent, _session in guardian.processes() if parent == os.getpid()]
