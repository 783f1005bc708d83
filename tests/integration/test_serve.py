"""``nim-serve`` with a real engine: llama.cpp, and a model that gives a known answer to a known question."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from attrs import frozen

from nim_core.testing.certificates import make_certificates
from nim_core.testing.corpus import inline
from nim_core.testing.manifests import profile_id
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer
from nim_core.testing.tiny_model import ANSWER, GGUF_FILE, QUESTION, tiny_corpus
from tests.integration.conftest import RUN_SECONDS, Started

pytest_plugins = ["nim_core.testing"]

SERVE = ("nim-serve",)
TINY = tiny_corpus("gguf").files
TAGS = {"llm_engine": "llamacpp", "tp": "1", "pp": "1", "precision": "fp16", "model_name": "nim-tiny"}
MODEL = NgcModel(files=TINY, name="nim-tiny")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
ONCE = {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "0"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@frozen
class Server:
    """A ``nim-serve`` under way."""

    started: Started
    url: str
    tls: ssl.SSLContext | None = None

    def get(self, path, content=None, **headers):
        """Return status and body of an answer, whatever the status; the body as JSON where it is."""
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **headers})
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.tls)
        )
        try:
            with opener.open(request, timeout=20) as answer:
                status, body = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read().decode()
        return status, json.loads(body) if body[:1] in "{[" else body

    def ask(self, question=QUESTION, model="nim-tiny", **more):
        messages = [{"role": "user", "content": question}]
        content = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 100, **more}
        status, answer = self.get("/v1/chat/completions", content)
        assert status == 200, answer
        return answer["choices"][0]["message"]["content"]

    def until(self, path, holds):
        """Ask until an answer is as wanted; fails when the server ends before."""
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            assert self.started.process.poll() is None, self.started.process.communicate()
            with suppress(OSError):
                status, body = self.get(path)
                if holds(status, body):
                    return body
            time.sleep(0.02)
        raise AssertionError(f"{path} did not come to be as wanted")

    def ready(self):
        self.until("/v1/health/ready", lambda status, _body: status == 200)
        return self


@pytest.fixture
def nim_serve(machine):
    """Start ``nim-serve`` on a free port; it is killed, if need be, when the test is over."""
    running = []

    def start(*arguments, url="http://127.0.0.1:{port}", tls=None, port=None, **env):
        port = port or free_port()
        environ = {"NIM_SERVER_PORT": str(port), **env}
        started = machine.start(*arguments, command=SERVE, env=environ)
        running.append(started.process)
        return Server(started, url.format(port=port), tls)

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def ngc(machine):
    """NGC with the tiny model, and its manifest."""
    with NgcServer([MODEL]) as server:
        machine.environment |= {**server.environment(), **ONCE}
        yield server


@pytest.fixture
def manifest(serve, machine):
    served = serve(MODEL, tags=[TAGS])
    machine.environment |= {**served.server.environment(), **ONCE, "NIM_MANIFEST_PATH": str(served.manifest)}
    return served


def children(pid):
    """Return the processes beneath ``pid``, at any depth."""
    found = [int(it) for task in Path(f"/proc/{pid}/task").iterdir() for it in (task / "children").read_text().split()]
    return [*found, *(deeper for child in found for deeper in children(child))]


def gone(pids):
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# ------------------------------------------------------------------------------------------------------ one command
def test_from_ngc_to_an_answer(manifest, nim_serve, machine):
    server = nim_serve().ready()
    assert server.ask() == ANSWER
    status, models = server.get("/v1/models")
    assert (status, [model["id"] for model in models["data"]]) == (200, ["nim-tiny"])
    status, metadata = server.get("/v1/metadata")
    assert metadata["profile_id"] == profile_id(MODEL, TAGS)
    assert metadata["modelInfo"][0]["modelUrl"] == MODEL.uri()
    assert "schema_version" in server.get("/v1/manifest")[1]["manifest_file"]
    assert server.get("/v1/version")[1]["release"] == metadata["version"]
    ended = server.started.end(send=signal.SIGTERM)
    assert (ended.code, ended.stdout) == (0, "")
    assert "Selected profile: " in ended.stderr
    assert "Starting llama" in ended.stderr
    assert NgcServer.nvapi_key not in ended.said


def test_a_model_by_its_uri_and_again_without_its_source(ngc, nim_serve):
    server = nim_serve(MODEL.uri()).ready()
    assert server.ask(model="nim/meta/nim-tiny") == ANSWER
    server.started.end(send=signal.SIGTERM).check()
    ngc.__exit__(None, None, None)
    server = nim_serve(MODEL.uri()).ready()
    assert server.ask(model="nim/meta/nim-tiny") == ANSWER
    ended = server.started.end(send=signal.SIGTERM).check()
    assert "nothing to fetch" in ended.stderr


def test_a_folder_of_this_machine(nim_serve):
    server = nim_serve(str(GGUF_FILE.parent), NIM_SERVED_MODEL_NAME="tiny, small").ready()
    assert [server.ask(model=name) for name in ("tiny", "small")] == [ANSWER, ANSWER]
    status, refusal = server.get("/v1/chat/completions", {"model": "other", "messages": []})
    assert (status, refusal["error"]["code"]) == (404, "model_not_found")


def test_tokens_come_one_by_one(nim_serve):
    server = nim_serve(str(GGUF_FILE.parent), NIM_SERVED_MODEL_NAME="tiny").ready()
    messages = [{"role": "user", "content": QUESTION}]
    content = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 100, "stream": True}
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    with DIRECT.open(request, timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = [line[6:].strip() for line in answer if line.startswith(b"data: ")]
    assert lines.pop() == b"[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines if json.loads(line)["choices"]]
    pieces = [delta["content"] for delta in deltas if delta.get("content")]
    assert "".join(pieces) == ANSWER
    assert len(pieces) > 3


# ----------------------------------------------------------------------------------------------------- while it starts
def test_it_answers_probes_while_it_downloads(serve, machine, nim_serve):
    served = serve(MODEL, tags=[TAGS])
    machine.environment |= {**served.server.environment(), **ONCE, "NIM_MANIFEST_PATH": str(served.manifest)}
    with held(served.server) as let_go:
        server = nim_serve()
        server.until("/v1/health/live", lambda status, body: (status, body.get("status")) == (200, "live"))
        body = server.until(
            "/v1/health/ready",
            lambda status, body: (status, body["phase"]) == (503, "downloading") and body["bytes_total"],
        )
        assert body["bytes_total"] == sum(content.size for content in TINY.values())
        status, refusal = server.get("/v1/chat/completions", {"model": "nim-tiny", "messages": []})
        assert (status, "error" in refusal) == (503, True)
        status, metadata = server.get("/v1/metadata")
        assert (status, metadata["profile_id"]) == (200, profile_id(MODEL, TAGS))
        let_go()
        server.ready()
    assert server.ask() == ANSWER


@contextmanager
def held(server):
    """Have the storage answer nothing until it is let go."""
    gate = threading.Event()

    def hold(response):
        gate.wait(RUN_SECONDS)
        return response

    server.faults.add(hold, route="storage")
    yield gate.set
    gate.set()
    server.faults.clear()


def test_a_sigterm_while_it_downloads(serve, machine, nim_serve):
    served = serve(MODEL, tags=[TAGS])
    machine.environment |= {**served.server.environment(), **ONCE, "NIM_MANIFEST_PATH": str(served.manifest)}
    with held(served.server):
        server = nim_serve()
        server.until("/v1/health/ready", lambda status, body: status == 503 and body["phase"] == "downloading")
        ended = server.started.end(send=signal.SIGTERM)
    assert ended.code == 143
    assert "what was fetched is kept" in ended.last


# ------------------------------------------------------------------------------------------------------------ arguments
def test_a_typo_fails_before_the_download(manifest, machine):
    ended = machine.run("--ctx-sise", "512", command=SERVE)
    assert ended.code == 10
    assert ended.last.startswith("error: command line: unknown argument: --ctx-sise")
    assert "did you mean --ctx-size?" in ended.last
    assert manifest.bodies == {}


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_dry_run_shows_no_key(manifest, machine, more):
    ended = machine.run("--dry-run", *more, "--api-key", "sk-very-secret", command=SERVE).check()
    assert "api-key" in ended.stdout
    assert "sk-very-secret" not in ended.said


def test_dry_run(manifest, machine):
    ended = machine.run("--dry-run", "--ctx-size", "512", command=SERVE, env={"NIM_MAX_MODEL_LEN": "256"}).check()
    lines = ended.stdout.splitlines()
    assert re.fullmatch(r"Selected profile: [0-9a-f]{64} \(.*\)", lines[0])
    at = lines.index("Resolved Configuration (JSON)")
    assert lines[at + 1] == "-" * len(lines[at])
    end = lines.index("", at)
    assert json.loads("\n".join(lines[at + 2 : end]))["ctx-size"] == 512
    at = lines.index("Backend Arguments")
    assert lines[at + 2].endswith(" \\")
    assert re.search(r"(?m)^  --ctx-size +512 +command line$", ended.stdout)
    assert manifest.bodies == {}
    assert not machine.cache.path.exists() or machine.cache.blobs == []
    shown = json.loads(machine.run("--dry-run", "--json", "--ctx-size=512", command=SERVE).check().stdout)
    assert shown["origins"]["ctx-size"] == {"layer": "command_line", "origin": "command line"}


def test_what_the_model_says_of_itself_counts_less_than_the_user(serve, machine, nim_serve):
    config = {"ctx-size": 384, "parallel": 1}
    model = NgcModel(files={**TINY, "runtime_config.json": inline(json.dumps(config))}, name="nim-tiny")
    served = serve(model, tags=[TAGS])
    machine.environment |= {**served.server.environment(), **ONCE, "NIM_MANIFEST_PATH": str(served.manifest)}
    server = nim_serve("--parallel", "2").ready()
    assert server.ask() == ANSWER
    said = server.started.end(send=signal.SIGTERM).check().stderr
    assert re.search(r"--ctx-size[ =]384", said)
    assert re.search(r"--parallel[ =]2", said)
    shown = json.loads(machine.run("--dry-run", "--json", command=SERVE).check().stdout)
    assert shown["origins"]["parallel"]["origin"] == "runtime_config.json"


def test_no_backend_can(serve, machine):
    model = NgcModel(files={"model.onnx": inline(b"x")})
    served = serve(model, tags=[{**TAGS, "llm_engine": "tensorrt_llm"}])
    machine.environment |= {**served.server.environment(), "NIM_MANIFEST_PATH": str(served.manifest)}
    ended = machine.run(command=SERVE)
    assert ended.code == 71
    assert "no installed backend can serve this profile (made for tensorrt_llm)" in ended.last
    assert re.search("(?m)^  llamacpp: ", ended.stderr)
    assert served.bodies == {}


# ------------------------------------------------------------------------------------------------- ports, TLS, secrets
def test_a_port_of_its_own_for_health(nim_serve):
    health = free_port()
    server = nim_serve(str(GGUF_FILE.parent), NIM_SERVED_MODEL_NAME="tiny", NIM_HEALTH_PORT=str(health))
    probes = Server(server.started, f"http://127.0.0.1:{health}").ready()
    assert server.ask(model="tiny") == ANSWER
    assert probes.get("/v1/chat/completions", {"model": "tiny"})[0] == 404
    assert server.get("/health")[0] == 200


def test_tls(nim_serve, tmp_path):
    certificates = make_certificates(tmp_path / "certificates", "localhost")
    server = nim_serve(
        str(GGUF_FILE.parent),
        url="https://localhost:{port}",
        tls=certificates.client_context(),
        NIM_SERVED_MODEL_NAME="tiny",
        NIM_SSL_MODE="TLS",
        NIM_SSL_CERTS_PATH=str(certificates.certificate),
        NIM_SSL_KEY_PATH=str(certificates.key),
    ).ready()
    assert server.ask(model="tiny") == ANSWER


def test_a_key_is_neither_among_the_arguments_nor_in_the_log(nim_serve):
    key = "sk-of-the-service-0123456789"
    server = nim_serve(
        str(GGUF_FILE.parent), NIM_PASSTHROUGH_ARGS=f"--api-key {key}", NIM_SERVED_MODEL_NAME="tiny"
    ).ready()
    assert server.get("/v1/models")[0] == 401
    assert server.get("/v1/models", Authorization=f"Bearer {key}")[0] == 200
    words = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(server.started.process.pid)]
    assert words
    assert not [argv for argv in words if key.encode() in argv]
    assert key not in server.started.end(send=signal.SIGTERM).check().said


def test_the_port_is_taken(machine):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = machine.run(
            str(GGUF_FILE.parent), "--host", "127.0.0.1", command=SERVE, env={"NIM_SERVER_PORT": str(port)}
        )
    assert ended.code == 10
    assert f"the port is taken: 127.0.0.1:{port}" in ended.last


def test_json_lines(nim_serve):
    server = nim_serve(str(GGUF_FILE.parent), NIM_JSONL_LOGGING="1", NIM_LOG_LEVEL="INFO").ready()
    lines = server.started.end(send=signal.SIGTERM).check().stderr.splitlines()
    records = [json.loads(line) for line in lines]
    assert {"timestamp", "level", "message"} <= set.intersection(*map(set, records))
    assert [record for record in records if record.get("engine") == "llamacpp"]


# ---------------------------------------------------------------------------------------------------------- what dies
def test_an_engine_that_dies_ends_everything(nim_serve):
    server = nim_serve(str(GGUF_FILE.parent)).ready()
    pids = children(server.started.process.pid)
    os.kill(pids[-1], signal.SIGKILL)
    ended = server.started.end()
    assert ended.code == 73
    assert "(SIGKILL)" in ended.stderr
    assert gone(pids)


def test_nothing_is_left_when_it_is_killed(nim_serve):
    server = nim_serve(str(GGUF_FILE.parent)).ready()
    pids = children(server.started.process.pid)
    assert len(pids) >= 2
    server.started.process.kill()
    assert gone(pids)


def test_a_model_that_the_engine_cannot_load(nim_serve, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.gguf").write_bytes(GGUF_FILE.read_bytes()[:300_000])
    ended = nim_serve(str(tmp_path / "model")).started.end()
    assert ended.code == 73
    assert "before it could serve" in ended.said
