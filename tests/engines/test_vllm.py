"""
vLLM, started as its plugin says, answers: over HTTP, with adapters, keys, TLS, out of a bucket, on several nodes.

The session ``serve-vllm`` runs this on vLLM's CPU build, ``gpu`` on the one for GPUs. NIM_TEST_VLLM_PYTHON names the
Python that has it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import define, evolve

from nim_core.profiles.nvml import detect
from nim_core.testing.certificates import make_certificates
from nim_core.testing.s3_server import S3Server
from nim_core.testing.tiny_model import ANSWER, QUESTION, SAFETENSORS_FOLDER
from nim_core.types import Argument, Exposure, LaunchPlan, LaunchRequest, Layer, Nodes, Secret, Variables
from tests.engines.adapters import children, make_adapter

backend = pytest.importorskip("nim_backend_vllm.backend", reason="the plugin vllm is not installed")
environment = pytest.importorskip("nim_backend_vllm.environment")

PYTHON = Path(os.environ.get("NIM_TEST_VLLM_PYTHON", ""))
START_SECONDS = 240
CHAT = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 100}
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(Path() == PYTHON, reason="NIM_TEST_VLLM_PYTHON names no Python that has vllm"),
]


@define
class Engine:
    """A process, as planned; core's part in a few lines."""

    plan: LaunchPlan
    request: LaunchRequest
    log: Path
    process: subprocess.Popen[bytes]
    trust: Any = True

    @property
    def url(self) -> str:
        scheme = "http" if self.request.exposure is None else "https"
        return f"{scheme}://127.0.0.1:{self.request.port}"

    def call(self, method: str, path: str, content: object = None, **headers: str) -> httpx.Response:
        with httpx.Client(base_url=self.url, trust_env=False, timeout=60, verify=self.trust) as client:
            return client.request(method, path, json=content, headers=headers)

    def chat(self, model: str, **headers: str) -> str:
        answer = self.call("POST", "/v1/chat/completions", {"model": model, **CHAT}, **headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def wait(self) -> float:
        """Return the seconds until it was healthy."""
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            assert self.process.poll() is None, self.tail()
            try:
                if self.plan.health_path is None or self.call("GET", self.plan.health_path).status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                time.sleep(0.2)
        pytest.fail(f"not healthy: {self.tail()}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(self.plan.stop_seconds)

    def tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]


def make_request(values: Mapping[str, str] | None = None, *arguments: Argument, **fields: Any) -> LaunchRequest:
    """Return a request for the tiny model whose arguments have come out."""
    variables = Variables(environment.ENVIRONMENT, {"PATH": str(PYTHON.parent), **(values or {})})
    request = LaunchRequest(
        variables=variables,
        port=free_port(),
        gpus=detect().gpus[:1],
        **{"workspace": SAFETENSORS_FOLDER, "served_names": ("tiny",), **fields},
    )
    small = given("kv-cache-memory-bytes", "256M")
    proposed = [*backend.VllmBackend(variables).propose(request), small, *arguments]
    strongest = {it.name: it for it in sorted(proposed, key=lambda it: -it.layer)}
    return evolve(request, arguments=strongest)


def given(name: str, value: Any) -> Argument:
    return Argument(name=name, value=value, layer=Layer.COMMAND_LINE)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(request: LaunchRequest, folder: Path, trust: Any = True, **environ: str) -> Iterator[Engine]:
    """Start what is planned for a request; ended, at the latest, afterwards."""
    planner = backend.VllmBackend(request.variables)
    verdict = planner.probe(request)
    assert verdict.can_serve, verdict.reason
    plan = planner.plan_launch(request)
    inherited = {**os.environ, "HF_HUB_OFFLINE": "1", **environ}
    base = {name: value for name, value in inherited.items() if name not in plan.without}
    added = {name: it.reveal() if isinstance(it, Secret) else it for name, it in plan.environ.items()}
    log = folder / f"{request.port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(plan.argv, env={**base, **added}, stdout=output, stderr=output)
    try:
        yield Engine(plan=plan, request=request, log=log, process=process, trust=trust)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(plan.stop_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    """One with everything: two names, a key, an adapter from the start, and place for others."""
    request = make_request(
        {"NIM_MAX_MODEL_LEN": "256", "NIM_LOG_LEVEL": "INFO", "VLLM_PORT": "tcp://10.0.0.1:8000"},
        given("api-key", ("sk-one",)),
        served_names=("tiny", "org/tiny"),
        adapters=(make_adapter(folder, "static", 1),),
        changing_adapters=True,
    )
    with running(request, folder, VLLM_PORT="tcp://10.0.0.1:8000") as started:
        print(f"healthy after {started.wait():.1f} s")
        yield started


KEY = {"Authorization": "Bearer sk-one"}


def test_it_answers_to_every_name(engine: Engine) -> None:
    for name in engine.plan.served_names:
        assert engine.chat(name, **KEY) == ANSWER
    models = engine.call("GET", "/v1/models", **KEY).json()["data"]
    assert [it["id"] for it in models][:2] == ["tiny", "org/tiny"]
    assert models[0]["max_model_len"] == 256


def test_it_streams(engine: Engine) -> None:
    content = {"model": "tiny", "stream": True, **CHAT}
    said, pieces = "", 0
    with httpx.stream(
        "POST", f"{engine.url}/v1/chat/completions", json=content, headers=KEY, trust_env=False, timeout=60
    ) as answer:
        for line in answer.iter_lines():
            data = line.removeprefix("data: ")
            if data and data != "[DONE]":
                said += json.loads(data)["choices"][0]["delta"].get("content") or ""
                pieces += 1
    assert (said, data) == (ANSWER, "")
    assert pieces > 5


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-two"}])
def test_a_wrong_key(engine: Engine, headers: Mapping[str, str]) -> None:
    assert engine.call("POST", "/v1/chat/completions", {"model": "tiny", **CHAT}, **headers).status_code == 401
    assert engine.call("GET", "/health", **headers).status_code == 200


def test_nobody_sees_the_key(engine: Engine) -> None:
    assert b"sk-one" not in Path(f"/proc/{engine.process.pid}/cmdline").read_bytes()
    assert "sk-one" not in engine.log.read_text(encoding="utf-8")


def test_metrics(engine: Engine) -> None:
    assert engine.plan.metrics_path is not None
    answer = engine.call("GET", engine.plan.metrics_path)
    assert answer.status_code == 200
    assert "vllm:request_success_total" in answer.text


def test_an_adapter_from_the_start_says_something_else(engine: Engine) -> None:
    assert engine.chat("static", **KEY) != ANSWER
    assert engine.chat("tiny", **KEY) == ANSWER


def test_adapters_come_and_go(engine: Engine, folder: Path) -> None:
    adapter = make_adapter(folder, "later", 2)
    planner = backend.VllmBackend(engine.request.variables)
    said = []
    for call in (planner.load_adapter(adapter, engine.request), planner.unload_adapter(adapter, engine.request)):
        headers = {name: value.reveal() for name, value in call.headers.items()}
        answer = engine.call("POST", call.path, dict(call.content), **headers)
        assert answer.status_code == 200, answer.text
        said.append(engine.call("POST", "/v1/chat/completions", {"model": "later", **CHAT}, **KEY).status_code)
    assert said == [200, 404]


def test_the_routes_are_all_that_are_for_clients(engine: Engine) -> None:
    """What it serves and the plan leaves out is known here; something new has to be judged."""
    served = set(engine.call("GET", "/openapi.json").json()["paths"])
    left_out = {path for path in served if not is_offered(path, engine.plan.routes)}
    assert left_out == {
        "/adapters", "/adapters/{adapter_name}", "/generative_scoring", "/health", "/invocations",
        "/is_scaling_elastic_ep", "/kv_event_sources", "/metrics", "/scale_elastic_ep", "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
    }  # fmt: skip


def is_offered(path: str, routes: Iterable[str]) -> bool:
    return any(path == route or (route.endswith("/") and path.startswith(route)) for route in routes)


def test_it_ends_soon_and_well(engine: Engine) -> None:
    began = time.monotonic()
    assert engine.stop() == 0, engine.tail()
    print(f"ended after {time.monotonic() - began:.1f} s")


def test_an_engine_that_dies_takes_the_rest_along(folder: Path) -> None:
    with running(make_request(), folder) as engine:
        print(f"healthy after {engine.wait():.1f} s")
        below = children(engine.process.pid)
        assert below
        for pid in below:
            if "EngineCore" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8"):
                os.kill(pid, signal.SIGKILL)
        print(f"ended with {engine.process.wait(60)}")


def test_clients_with_a_certificate(folder: Path) -> None:
    certificates = make_certificates(folder / "tls")
    client = make_client(folder / "client")
    exposure = Exposure(certificate=certificates.certificate, key=certificates.key, client_authority=client)
    request = make_request(exposure=evolve(exposure, allowed_origins=("https://a.example",)))
    trust = certificates.client_context()
    trust.load_cert_chain(client)
    with running(request, folder, trust) as engine:
        print(f"healthy after {engine.wait():.1f} s")
        assert engine.chat("tiny") == ANSWER
        answers = [engine.call("GET", "/version", Origin=f"https://{it}.example").headers for it in "ab"]
        assert [it.get("access-control-allow-origin") for it in answers] == ["https://a.example", None]
        engine.trust = certificates.client_context()
        with pytest.raises(httpx.TransportError):
            engine.call("GET", "/health")


def make_client(folder: Path) -> Path:
    """Return a file with the key of a client and its certificate, which vouches for itself."""
    folder.mkdir()
    file = folder / "client.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=client"
    subprocess.run([*command.split(), "-keyout", file, "-out", folder / "c"], check=True, capture_output=True)
    with file.open("a") as stream:
        stream.write((folder / "c").read_text())
    return file


def test_straight_out_of_a_bucket(folder: Path) -> None:
    with S3Server(folder=folder / "s3", buckets=("models",)) as store:
        fill(store, "models", "llm/tiny")
        values = {"NIM_STREAM_MODEL": "1", **store.environment(store.reader)}
        request = make_request(values, model_uri="s3://models/llm/tiny/", workspace=folder / "nothing")
        with running(request, folder, **store.environment(store.reader), AWS_EC2_METADATA_DISABLED="true") as engine:
            print(f"healthy after {engine.wait():.1f} s")
            assert engine.chat("tiny") == ANSWER


def fill(store: S3Server, bucket: str, prefix: str) -> None:
    boto3 = pytest.importorskip("boto3", reason="boto3 fills the bucket; it comes with the plugin s3")
    client = boto3.client(
        "s3",
        endpoint_url=store.url,
        region_name="us-east-1",
        aws_access_key_id=store.admin.access_key,
        aws_secret_access_key=store.admin.secret_key,
    )
    for file in SAFETENSORS_FOLDER.iterdir():
        client.put_object(Bucket=bucket, Key=f"{prefix}/{file.name}", Body=file.read_bytes())


def test_two_nodes(folder: Path) -> None:
    """Two processes with half of the model each; the one that follows serves no HTTP."""
    if len(detect().gpus) == 1:
        pytest.skip("two nodes on one machine need two GPUs, or none")
    port = free_port()
    nodes = [Nodes(count=2, rank=rank, leader="127.0.0.1", port=port, address="127.0.0.1") for rank in range(2)]
    leading, following = (make_request({"NIM_TENSOR_PARALLEL_SIZE": "2"}, nodes=it) for it in nodes)
    cores = sorted(os.sched_getaffinity(0))
    bound = [
        {"VLLM_CPU_OMP_THREADS_BIND": str(core), "CUDA_VISIBLE_DEVICES": str(gpu)}
        for gpu, core in enumerate((cores[0], cores[-1]))
    ]
    with running(following, folder, **bound[1]) as follower, running(leading, folder, **bound[0]) as leader:
        assert (follower.plan.health_path, follower.plan.routes) == (None, ())
        print(f"healthy after {leader.wait():.1f} s")
        assert leader.chat("tiny") == ANSWER
        assert leader.stop() == 0, leader.tail()
        began = time.monotonic()
        print(f"the follower ended with {follower.stop()} after {time.monotonic() - began:.1f} s")
