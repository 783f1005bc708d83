"""The real llama.cpp, as a process, asked over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path

import httpx
import pytest
from attrs import frozen
from nim_backend_llamacpp.backend import LlamaCppBackend
from nim_backend_llamacpp.options import SETTINGS, Setting
from nim_backend_llamacpp.plugin import VARIABLES
from nim_backend_llamacpp.server import read_arguments, to_parameters

from nim_core.testing.tiny_model import ANSWER, GGUF_FILE, QUESTION, sentences
from nim_core.types import Argument, ArgumentValue, Exposure, LaunchPlan, LaunchRequest, Layer, Secret, Variables

CHAT = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 100}
SMALL: dict[str, ArgumentValue] = {"max_model_len": "256", "threads": "1", "threads_batch": "1"}


def plan(
    *,
    folder: Path = GGUF_FILE.parent,
    port: int | None = None,
    exposure: Exposure | None = None,
    **arguments: ArgumentValue,
) -> LaunchPlan:
    """Plan to serve the tiny model with arguments as on a command line, their names with underscores."""
    named = {name.replace("_", "-"): value for name, value in {**SMALL, **arguments}.items()}
    request = LaunchRequest(
        workspace=folder,
        files=("model.gguf",),
        served_names=("nim/tiny",),
        port=port or free_port(),
        exposure=exposure,
        arguments={name: Argument(name=name, value=value, layer=Layer.COMMAND_LINE) for name, value in named.items()},
        variables=Variables(VARIABLES, {}),
    )
    return LlamaCppBackend(request.variables).plan_launch(request)


@frozen(kw_only=True)
class Running:
    """A server that answers, and what it said until now."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path

    def until_ready(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if self.client.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"not ready: {self.log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Launch = Callable[[LaunchPlan], Running]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[[LaunchPlan], Running]]:
    """Start what a plan says; what still runs at the end is ended."""
    started: list[Running] = []

    def start(plan: LaunchPlan) -> Running:
        port = next(word.removeprefix("--port=") for word in plan.argv if word.startswith("--port="))
        secrets = {name: value.reveal() if isinstance(value, Secret) else value for name, value in plan.environ.items()}
        environ = {name: value for name, value in os.environ.items() if name not in plan.without}
        log = tmp_path / f"engine-{len(started)}.log"
        with log.open("wb") as written:
            process = subprocess.Popen(plan.argv, env={**environ, **secrets}, stderr=written, cwd=tmp_path)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)
        started.append(Running(process=process, client=client, log=log))
        return started[-1]

    yield start
    for running in started:
        running.client.close()
        running.process.kill()
        running.process.wait()


def test_it_knows_the_sentences(launch: Launch) -> None:
    running = launch(plan())
    running.until_ready()
    for question, answer in sentences().items():
        chat = {**CHAT, "messages": [{"role": "user", "content": question}], "model": "nim/tiny"}
        said = running.client.post("/v1/chat/completions", json=chat).json()
        assert said["choices"][0]["message"]["content"] == answer
        assert said["model"] == "nim/tiny"


def test_it_streams(launch: Launch) -> None:
    running = launch(plan())
    running.until_ready()
    parts = []
    with running.client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        for line in answer.iter_lines():
            data = line.removeprefix("data: ")
            if line and data != "[DONE]":
                parts.append(json.loads(data)["choices"][0]["delta"].get("content") or "")
    assert "".join(parts) == ANSWER
    assert len(parts) > 10


def test_every_route_of_the_plan_answers(launch: Launch) -> None:
    described = plan()
    running = launch(described)
    running.until_ready()
    assert "llamacpp:prompt_tokens_total" in running.client.get(str(described.metrics_path)).text
    bodies = {"/tokenize": {"content": "a"}, "/detokenize": {"tokens": [5]}, "/apply-template": CHAT}
    assert set(bodies) == set(described.routes) - {"/v1/"}
    for route, body in bodies.items():
        assert running.client.post(route, json=body).status_code == 200


def test_without_a_front_it_asks_for_a_key_itself(launch: Launch) -> None:
    running = launch(plan(exposure=Exposure(), api_key=("sk-1", "sk-2"), served_model_name=("b", "a")))
    running.until_ready()
    statuses = {}
    for key in ("", "sk-3", "sk-1", "sk-2"):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        statuses[key] = running.client.post("/v1/chat/completions", json=CHAT, headers=headers).status_code
    assert statuses == {"": 401, "sk-3": 401, "sk-1": 200, "sk-2": 200}
    seen = Path(f"/proc/{running.process.pid}/cmdline").read_text()
    assert "sk-" not in seen + running.log.read_text()


def test_without_a_front_other_origins_are_told(launch: Launch) -> None:
    running = launch(plan(exposure=Exposure(allowed_origins=("https://chat.example",))))
    running.until_ready()
    answer = running.client.get("/v1/models", headers={"Origin": "https://other.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://chat.example"


def test_an_adapter_changes_what_is_said(launch: Launch, tmp_path: Path) -> None:
    """Of rank 1, for a matrix of 128 by 192; a request may turn it off."""
    adapter = tmp_path / "adapter.gguf"
    tensors = {"blk.0.ffn_down.weight.lora_a": (192, 1), "blk.0.ffn_down.weight.lora_b": (1, 128)}
    adapter.write_bytes(lora_file(tensors))
    running = launch(plan(lora=(str(adapter),)))
    running.until_ready()
    said = {}
    for scale in (1.0, 0.0):
        chat = {**CHAT, "lora": [{"id": 0, "scale": scale}]}
        said[scale] = running.client.post("/v1/chat/completions", json=chat).json()["choices"][0]["message"]["content"]
    assert said[0.0] == ANSWER
    assert said[1.0] != ANSWER


def lora_file(tensors: Mapping[str, tuple[int, int]]) -> bytes:
    """Return an adapter full of ones; the specification of GGUF says how one is written."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    words = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(words) + 1)
    for name, value in words.items():
        head += text(name) + struct.pack("<I", 8) + text(value)
    head += text("adapter.lora.alpha") + struct.pack("<If", 6, 1.0)
    data = b""
    for name, (columns, rows) in tensors.items():
        head += text(name) + struct.pack("<IQQIQ", 2, columns, rows, 0, len(data))
        data += struct.pack("<f", 1.0) * (columns * rows)
    return head + b"\0" * (-len(head) % 32) + data


def test_a_longer_prompt_than_the_context_is_refused(launch: Launch) -> None:
    running = launch(plan(max_model_len="256"))
    running.until_ready()
    long = {**CHAT, "messages": [{"role": "user", "content": QUESTION * 100}]}
    answer = running.client.post("/v1/chat/completions", json=long)
    assert answer.status_code == 400
    assert answer.json()["error"]["n_ctx"] == 256


def test_four_requests_at_a_time_share_the_context(launch: Launch) -> None:
    running = launch(plan(slots=True))
    running.until_ready()
    assert [slot["n_ctx"] for slot in running.client.get("/slots").json()] == [256] * 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(launch: Launch, number: signal.Signals) -> None:
    running = launch(plan())
    running.until_ready()
    running.process.send_signal(number)
    assert running.process.wait(10) == 0


def test_requests_in_flight_are_answered_first(launch: Launch) -> None:
    """Some thousand tokens take a second and more; the signal comes after the first."""
    running = launch(plan(max_model_len="8192"))
    running.until_ready()
    body = {"prompt": "a", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    lines = []
    with running.client.stream("POST", "/v1/completions", json=body) as answer:
        for line in answer.iter_lines():
            if not lines:
                running.process.terminate()
            lines.append(line)
    assert "data: [DONE]" in lines
    assert '"finish_reason":"length"' in "".join(lines)
    assert running.process.wait(10) == 0


def test_a_second_signal_ends_it_at_once(launch: Launch) -> None:
    running = launch(plan(max_model_len="8192", parallel="1"))
    running.until_ready()
    body = {"prompt": "a", "max_tokens": 8000, "ignore_eos": True}
    asking = threading.Thread(target=_asked, args=(running, body))
    asking.start()
    while "launch_slot_" not in running.log.read_text():
        time.sleep(0.01)
    running.process.terminate()
    time.sleep(0.3)
    assert running.process.poll() is None
    running.process.terminate()
    assert running.process.wait(2) == 0
    asking.join()


def _asked(running: Running, body: dict[str, object]) -> None:
    with contextlib.suppress(httpx.TransportError):
        running.client.post("/v1/completions", json=body)


def test_a_model_that_does_not_load_ends_it(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(GGUF_FILE.read_bytes()[:100_000])
    running = launch(plan(folder=tmp_path))
    assert running.process.wait(20) == 1
    last = running.log.read_text().splitlines()[-1]
    assert last.startswith(f"error: llama.cpp cannot serve {tmp_path / 'model.gguf'}: ")


def test_a_port_that_is_taken_is_said(launch: Launch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = launch(plan(port=port))
        assert running.process.wait(20) == 1
    assert running.log.read_text().endswith(f"cannot listen on 127.0.0.1 port {port}: Address already in use\n")


def test_an_argument_that_is_none_is_said(launch: Launch) -> None:
    running = launch(plan(n_gpu_layers="some"))
    assert running.process.wait(20) == 1
    assert "invalid literal for int() with base 10: 'some'" in running.log.read_text().splitlines()[-1]


def test_it_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    """The parent here starts it, says its number, and is killed."""
    described = plan()
    log = tmp_path / "engine.log"
    code = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"
    command = [sys.executable, "-c", code, *described.argv]
    with log.open("wb") as written, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written) as parent:
        assert parent.stdout
        engine = os.pidfd_open(int(parent.stdout.readline()))
        while b"listening on" not in log.read_bytes():
            time.sleep(0.02)
        parent.kill()
    ended, _, _ = select.select([engine], [], [], 20)
    if not ended:
        signal.pidfd_send_signal(engine, signal.SIGKILL)
    os.close(engine)
    assert ended
    assert log.read_text().splitlines()[-1] == "error: the process that started llama.cpp is gone"


SAMPLES = {"integer": ("7", 7), "number": ("0.5", 0.5), "text": ("chatml", "chatml")}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.option.name)
def test_an_argument_sets_what_it_stands_for(setting: Setting) -> None:
    """Each against the real parameters, with a value that is not the one they have anyway."""
    name = f"--{setting.option.name}"
    base = ["--model=m.gguf", "--port=1"]
    if setting.option.kind == "switch":
        cases = [([name], not setting.inverted), ([f"--no-{setting.option.name}"], setting.inverted)]
    elif setting.values:
        cases = [([f"{name}={word}"], value) for word, value in setting.values.items()]
    else:
        word, value = SAMPLES[setting.option.kind]
        cases = [([f"{name}={word}"], value)]
    for words, expected in cases:
        parameters = to_parameters(read_arguments([*base, *words]))
        for path in setting.fields:
            found = attrgetter(path)(parameters)
            assert getattr(found, "name", found) == expected


def test_the_other_arguments_set_what_they_stand_for(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages[0].content }}")
    words = [
        "--model=m.gguf",
        "--port=1",
        "--n-gpu-layers=all",
        "--tensor-split=3,1",
        f"--chat-template-file={template}",
        '--chat-template-kwargs={"enable_thinking": false}',
        "--mmproj=p.gguf",
        "--lora",
        "a.gguf",
        "b.gguf",
    ]
    parameters = to_parameters(read_arguments(words), ["k"])
    assert parameters.n_gpu_layers == -2
    assert parameters.tensor_split[:3] == [3.0, 1.0, 0.0]
    assert parameters.chat_template == "{{ messages[0].content }}"
    assert parameters.default_template_kwargs == {"enable_thinking": "false"}
    assert parameters.mmproj.path == "p.gguf"
    assert [adapter.path for adapter in parameters.lora_adapters] == ["a.gguf", "b.gguf"]
    assert parameters.api_keys == ["k"]
