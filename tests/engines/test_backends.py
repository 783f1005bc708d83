"""
The backends of llama.cpp and transformers serve the tiny model over HTTP, and both say the same.

Plans are carried out as they are, with nothing between; what the front does for an engine is tested with the front.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import frozen

from nim_core.registry import load_registry
from nim_core.settings import Settings
from nim_core.testing.tiny_model import ANSWER, GGUF_FILE, QUESTION, SAFETENSORS_FOLDER, sentences
from nim_core.types import Argument, ArgumentValue, LaunchPlan, LaunchRequest, Layer, Option, Secret

HERE = Path(__file__).parent
ENGINES = ("transformers", "transformers_oldest")
KNOWN = [[answer, "stop"] for answer in sentences().values()]

pytestmark = pytest.mark.timeout(300)


def python_of(engine: str) -> Path:
    variable = f"NIM_TEST_{engine.upper()}_PYTHON"
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no Python that has {engine}")
    return Path(os.environ[variable])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def plan(name: str, folder: Path, **arguments: ArgumentValue) -> LaunchPlan:
    """Plan by an installed backend, found by its entry point, with arguments as on a command line."""
    registry = load_registry(Settings({}))
    named = {key.replace("_", "-"): value for key, value in arguments.items()}
    request = LaunchRequest(
        workspace=folder,
        files=tuple(file.name for file in folder.iterdir()),
        served_names=("nim/tiny",),
        port=free_port(),
        arguments={key: Argument(name=key, value=value, layer=Layer.COMMAND_LINE) for key, value in named.items()},
        variables=registry.backend_variables(name),
    )
    backend = registry.open_backend(name)
    verdict = backend.probe(request)
    assert verdict.can_serve, verdict.reason
    return backend.plan_launch(request)


@frozen(kw_only=True)
class Running:
    plan: LaunchPlan
    process: subprocess.Popen[bytes]
    url: str
    log: Path
    seconds: float

    def post(self, path: str, content: Mapping[str, object]) -> httpx.Response:
        """Ask on a connection of its own, with the model's name as the engine wants it."""
        return httpx.post(
            self.url + path, json={"model": self.plan.duties.model, **content}, timeout=100, trust_env=False
        )

    def say(self, question: str, **more: object) -> httpx.Response:
        messages = [{"role": "user", "content": question}]
        chat = {"messages": messages, "temperature": 0, "max_tokens": 100, **more}
        return self.post("/v1/chat/completions", chat)

    def answers(self) -> list[list[str]]:
        choices = [self.say(question).json()["choices"][0] for question in sentences()]
        return [[choice["message"]["content"], choice["finish_reason"]] for choice in choices]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[LaunchPlan], Running]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(described: LaunchPlan) -> Running:
        port = next(word.removeprefix("--port=") for word in described.argv if word.startswith("--port="))
        given = {
            name: value.reveal() if isinstance(value, Secret) else value for name, value in described.environ.items()
        }
        environ = {name: value for name, value in os.environ.items() if name not in described.without}
        log = tmp_path / f"engine-{len(started)}.log"
        since = time.monotonic()
        with log.open("wb") as written:
            process = subprocess.Popen(described.argv, env={**environ, **given}, stdout=written, stderr=written)
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        while not is_ready(url + str(described.health_path)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - since < 120, log.read_text()
            time.sleep(0.05)
        seconds = time.monotonic() - since
        print(f"ready in {seconds:.1f} s, {proportional_bytes(process.pid) >> 20} MiB: {' '.join(described.argv[:4])}")
        return Running(plan=described, process=process, url=url, log=log, seconds=seconds)

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(params=ENGINES)
def transformers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python that has transformers, its programs first on PATH."""
    python = python_of(request.param)
    monkeypatch.setenv("PATH", f"{python.parent}{os.pathsep}{os.environ['PATH']}")
    return python


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def proportional_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def test_both_say_the_same(transformers: Path, serve: Callable[[LaunchPlan], Running]) -> None:
    llamacpp = serve(plan("llamacpp", GGUF_FILE.parent, max_model_len="256"))
    other = serve(plan("transformers", SAFETENSORS_FOLDER))
    assert llamacpp.answers() == other.answers() == KNOWN


def test_transformers_streams_and_ends(transformers: Path, serve: Callable[[LaunchPlan], Running]) -> None:
    running = serve(plan("transformers", SAFETENSORS_FOLDER))
    lines = [line.removeprefix("data: ") for line in running.say(QUESTION, stream=True).text.splitlines() if line]
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    said = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]]
    assert "".join(said) == ANSWER
    since = time.monotonic()
    running.process.terminate()
    assert running.process.wait(running.plan.stop_seconds) in {0, -signal.SIGTERM}
    print(f"ended in {time.monotonic() - since:.1f} s")


def test_every_route_of_transformers_answers(transformers: Path, serve: Callable[[LaunchPlan], Running]) -> None:
    running = serve(plan("transformers", SAFETENSORS_FOLDER))
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": QUESTION}]},
        "/v1/completions": {"prompt": "a", "max_tokens": 2},
        "/v1/responses": {"input": QUESTION, "stream": False},
    }
    assert {route for route in running.plan.routes if not route.startswith("/v1/models")} == set(bodies)
    assert {route: running.post(route, body).status_code for route, body in bodies.items()} == dict.fromkeys(
        bodies, 200
    )


def test_transformers_wants_the_name_of_the_plan(transformers: Path, serve: Callable[[LaunchPlan], Running]) -> None:
    running = serve(plan("transformers", SAFETENSORS_FOLDER))
    assert running.say(QUESTION, model="nim/tiny").status_code == 400


def test_a_model_that_does_not_load_ends_transformers(transformers: Path, tmp_path: Path) -> None:
    for file in SAFETENSORS_FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    described = plan("transformers", tmp_path)
    done = subprocess.run(described.argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "SafetensorError" in done.stderr


def words_of(option: Option) -> list[str]:
    """Return an argument as a command line has it, with a value of its kind."""
    values = {"integer": "7", "number": "0.5", "json": '{"a":1}', "text": (*option.choices, "text")[0]}
    return [f"--{option.name}"] if option.kind == "switch" else [f"--{option.name}", values[option.kind]]


def test_the_parser_of_transformers_takes_our_arguments(transformers: Path) -> None:
    """Every one is its, read as the same kind, and none of its is forgotten."""
    from nim_backend_transformers.options import ENGINE

    lines = [["model", *words_of(option)] for option in ENGINE]
    lines += [["model", f"--no-{option.name}"] for option in ENGINE if option.kind == "switch"]
    command = [str(transformers), str(HERE / "parse_transformers.py")]
    done = subprocess.run(command, input=json.dumps(lines), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    names, *read = json.loads(done.stdout.splitlines()[-1])
    left_out = {
        "--host",  # both are the request's
        "--port",
        "--enable-cors",  # the front's
        "--model-timeout",  # without effect on a model that is named
        "--decision-config",  # not in 5.17
        "--non-blocking",  # for its own tests
        *("--help", "--format", "--json", "--quiet", "--no-truncate"),
    }
    assert {f"--{option.name}" for option in ENGINE} == set(names) - left_out
    kinds = {"integer": 7, "number": 0.5, "json": '{"a":1}', "switch": True}
    for option, values in zip(ENGINE, read, strict=False):
        expected = kinds.get(option.kind, (*option.choices, "text")[0])
        assert values[option.name.replace("-", "_")] == expected
    switches = [option for option in ENGINE if option.kind == "switch"]
    for option, values in zip(switches, read[len(ENGINE) :], strict=True):
        assert values[option.name.replace("-", "_")] is False
