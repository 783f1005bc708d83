"""The part of the backend level that starts the engine; for machines that have it."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pytest
from attrs import frozen

from nim_core.serving.process import EngineProcess
from nim_core.testing.conformance.backend_bench import BackendBench
from nim_core.testing.conformance.suite import Suite, case
from nim_core.types import LaunchPlan

__all__ = ["RunningCases"]

_HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 300.0
_GRACE_SECONDS: Final = 5.0
_LINES: Final = 30


class RunningCases(Suite):
    """Tests of the process itself, as core starts, watches and ends it; where ``installed`` says that it can be."""

    @case("backend")
    def test_the_engine_serves_and_ends(self, bench: BackendBench) -> None:
        """It becomes ready at ``health_path``, answers, and ends at SIGTERM; nothing of it is left."""
        if not bench.model.installed:
            pytest.skip("not declared: ServedModel.installed, an engine that can be started")
        port = _free_port()
        plan = bench.plan(host=_HOST, port=port)
        with _started(plan, port) as engine:
            engine.wait_until_ready()
            status = engine.status_of(bench.model.asks)
            assert status == 200, f"{bench.model.asks} answers {status} when the engine is ready: {engine.told}"
            for path in (plan.metrics_path, *(route for route in plan.routes if not route.endswith("/"))):
                assert path is None or engine.knows(path), f"the plan names {path}, and the engine has no such path"
            engine.end()


@frozen(eq=False)
class _Engine:
    """An engine that was started."""

    plan: LaunchPlan
    process: EngineProcess
    port: int
    lines: deque[str]

    @property
    def told(self) -> str:
        """What it wrote last."""
        return "\n".join(self.lines)

    def wait_until_ready(self) -> None:
        """Wait until it can serve; fails the test when it ends before, or takes too long."""
        if self.plan.health_path is None:
            return
        deadline = time.monotonic() + _START_SECONDS
        while self.status_of(self.plan.health_path) != 200:
            if self.process.ended.is_set():
                pytest.fail(f"the engine ended with {self.process.status} before it was ready: {self.told}")
            if time.monotonic() > deadline:
                pytest.fail(f"{self.plan.health_path} does not answer 200 within {_START_SECONDS:.0f} s: {self.told}")
            time.sleep(0.05)

    def knows(self, path: str) -> bool:
        """Whether there is a path, whatever it thinks of being asked for nothing."""
        return any(self.status_of(path, method) not in {None, 404} for method in ("GET", "POST"))

    def status_of(self, path: str, method: str = "GET") -> int | None:
        """Return what a request is answered with. None when there is no answer."""
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=20)
        try:
            body = "{}" if method == "POST" else None
            connection.request(method, path, body, {"Content-Type": "application/json"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def end(self) -> None:
        """Ask it to end; fails the test when that takes longer than it said, or leaves something."""
        begun, seconds = time.monotonic(), self.plan.stop_seconds
        self.process.terminate()
        if not self.process.ended.wait(seconds + _GRACE_SECONDS):
            pytest.fail(f"the engine does not end within stop_seconds ({seconds:g}) of SIGTERM: {self.told}")
        gone = self.process.wait(_GRACE_SECONDS)
        assert gone is not None, (
            f"processes of the engine are left {time.monotonic() - begun:.0f} s after SIGTERM; let it end its own"
        )
        assert self.status_of(self.plan.health_path or "/") is None, "somebody still listens at the engine's port"


@contextmanager
def _started(plan: LaunchPlan, port: int) -> Iterator[_Engine]:
    """Start an engine; what is left of it in the end is killed."""
    lines: deque[str] = deque(maxlen=_LINES)
    process = EngineProcess(plan, os.environ, lines.append)
    process.start()
    try:
        yield _Engine(plan, process, port, lines)
    finally:
        with suppress(OSError):
            process.kill()
        process.wait(_GRACE_SECONDS)


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as reserved:
        return int(reserved.getsockname()[1])
