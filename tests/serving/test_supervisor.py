"""The front and the engine share each other's end, as processes that are really ended."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import frozen

from tests.serving.conftest import engine_command, free_port, runs, until, written_pids

SERVE = Path(__file__).with_name("serve.py")
CHILDREN = ("--spawn", "plain", "--spawn", "session", "--spawn", "deeper")


@frozen(kw_only=True)
class Serving:
    """A serving process, where it answers, and who wrote down that it runs."""

    process: subprocess.Popen[str]
    url: str
    engine_url: str
    pids: Path

    def get(self, path: str, **options: Any) -> httpx.Response | None:
        """Ask, and return None where nobody answers."""
        try:
            return httpx.get(self.url + path, trust_env=False, timeout=20, **options)
        except httpx.HTTPError:
            return None

    def is_ready(self) -> bool:
        """Whether it says that it is ready."""
        answer = self.get("/v1/health/ready")
        return answer is not None and answer.status_code == 200

    def phase(self) -> str | None:
        """Return what it says is being done."""
        answer = self.get("/v1/health/ready")
        return None if answer is None else answer.json().get("phase")

    def ended(self) -> tuple[int, str]:
        """Wait for its end, and return exit code and output; nothing of it is left then."""
        output, _ = self.process.communicate(timeout=60)
        until(lambda: not any(map(runs, written_pids(self.pids))), 10)
        return self.process.returncode, output


@contextmanager
def serving(tmp_path: Path, *flags: str, **options: Any) -> Iterator[Serving]:
    """A serving process with an engine that has children."""
    port, engine_port, pids = free_port(), free_port(), tmp_path / "pids"
    engine = engine_command(engine_port, "--pids", str(pids), *CHILDREN, *flags)
    command = [sys.executable, str(SERVE), str(port), str(engine_port), json.dumps(options), *engine]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield Serving(
                process=process,
                url=f"http://127.0.0.1:{port}",
                engine_url=f"http://127.0.0.1:{engine_port}",
                pids=pids,
            )
        finally:
            process.kill()


class Streaming(threading.Thread):
    """A request in flight: what came, and whether it came to its end."""

    def __init__(self, url: str, count: int, pause: float) -> None:
        super().__init__()
        self._url = f"{url}/v1/stream?n={count}&pause={pause}"
        self.begun = threading.Event()
        self.received = b""
        self.complete = False

    def run(self) -> None:
        try:
            with httpx.stream("GET", self._url, trust_env=False, timeout=20) as answer:
                for piece in answer.iter_raw():
                    self.received += piece
                    self.begun.set()
            self.complete = True
        except httpx.HTTPError:
            self.begun.set()


def stream(serving: Serving, count: int, pause: float) -> Streaming:
    """Begin a request and wait for its first piece."""
    request = Streaming(serving.url, count, pause)
    request.start()
    assert request.begun.wait(20)
    return request


def test_the_front_answers_while_the_engine_loads(tmp_path: Path) -> None:
    with serving(tmp_path, "--load", "1.5") as served:
        until(lambda: served.phase() == "starting engine")
        live, chat = served.get("/v1/health/live"), served.get("/v1/models")
        assert live is not None
        assert live.status_code == 200
        assert chat is not None
        assert (chat.status_code, chat.json()["phase"]) == (503, "starting engine")
        until(served.is_ready)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_in_order(tmp_path: Path, number: int) -> None:
    with serving(tmp_path) as served:
        until(served.is_ready)
        request = stream(served, 12, 0.1)
        served.process.send_signal(number)
        time.sleep(0.4)
        assert served.get("/v1/health/ready") is None  # nobody new gets in
        assert served.ended() == (0, "")
        request.join()
        assert request.complete
        assert request.received.count(b"data: ") == 12


def test_requests_that_take_too_long_are_broken_off(tmp_path: Path) -> None:
    with serving(tmp_path, drain=0.5) as served:
        until(served.is_ready)
        request = stream(served, 600, 0.1)
        served.process.terminate()
        assert served.ended()[0] == 143
        request.join()
        assert not request.complete


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, drain=60) as served:
        until(served.is_ready)
        request = stream(served, 600, 0.1)
        served.process.terminate()
        time.sleep(0.5)
        begun = time.monotonic()
        served.process.terminate()
        assert served.ended()[0] == 143
        assert time.monotonic() - begun < 5
        request.join()
        assert not request.complete


def test_an_engine_that_ignores_signals_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, "--ignore-term", plan={"stop_seconds": 0.5}) as served:
        until(served.is_ready)
        begun = time.monotonic()
        served.process.terminate()
        assert served.ended()[0] == 143
        assert time.monotonic() - begun < 8


def test_a_signal_while_the_engine_loads(tmp_path: Path) -> None:
    with serving(tmp_path, "--load", "600") as served:
        until(lambda: len(written_pids(served.pids)) == 4)
        served.process.terminate()
        assert served.ended()[0] == 0


@pytest.mark.parametrize("status", [7, 0])
def test_an_engine_that_ends_ends_it_all(tmp_path: Path, status: int) -> None:
    with serving(tmp_path) as served:
        until(served.is_ready)
        request = stream(served, 600, 0.05)
        httpx.post(f"{served.engine_url}/misbehave/hang", trust_env=False)
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"{served.engine_url}/misbehave/die?status={status}", trust_env=False)
        code, output = served.ended()
        assert code == 73
        assert output.startswith(f"BackendExitedError: the engine ended while it served, with status {status}\n")
        request.join()
        assert not request.complete


def test_an_engine_that_crashes(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        until(served.is_ready)
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"{served.engine_url}/misbehave/abort", trust_env=False)
        code, output = served.ended()
        assert code == 73
        assert "with status 134 (SIGABRT)" in output


def test_an_engine_that_dies_loading_is_noticed_at_once(tmp_path: Path) -> None:
    begun = time.monotonic()
    with serving(tmp_path, "--die-loading", "1") as served:
        code, output = served.ended()
        assert code == 73
        assert "the engine ended before it could serve, with status 1" in output
        assert "out of memory, sadly" in output
    assert time.monotonic() - begun < 10


def test_an_engine_that_cannot_be_started(tmp_path: Path) -> None:
    command = [sys.executable, str(SERVE), str(free_port()), "1", "{}", "no-such-engine"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (told.returncode, told.stdout) == (
        71,
        "BackendMissingError: there is no program to serve with: no-such-engine\n",
    )


def test_a_front_that_fails_ends_it_all(tmp_path: Path) -> None:
    with serving(tmp_path, front_fails=1.5) as served:
        assert served.ended() == (70, "BackendError: the front ended by itself\n")


def test_an_engine_without_http_is_ready_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--load", "600", plan={"health_path": None}) as served:
        until(served.is_ready)
        served.process.terminate()
        assert served.ended()[0] == 0


def test_an_interrupt_at_a_terminal_drains(tmp_path: Path) -> None:
    port, engine_port, pids = free_port(), free_port(), tmp_path / "pids"
    engine = engine_command(engine_port, "--pids", str(pids))
    ours, theirs = pty.openpty()
    command = ["setsid", "--ctty", "--wait", sys.executable, str(SERVE), str(port), str(engine_port), "{}", *engine]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        served = Serving(process=process, url=f"http://127.0.0.1:{port}", engine_url="", pids=pids)
        until(served.is_ready)
        request = stream(served, 12, 0.1)
        os.write(ours, b"\x03")
        assert process.wait(30) == 0
        request.join()
        assert request.complete
    os.close(ours)
    os.close(theirs)
    assert not any(map(runs, written_pids(pids)))


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_left_of_a_killed_one(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with serving(tmp_path, "--load", "0.3") as served:
        time.sleep(chance.uniform(0.1, 2.5))
        served.process.kill()
        assert served.ended()[0] == -signal.SIGKILL
        time.sleep(0.3)
        assert not any(map(runs, written_pids(served.pids)))
