"""
``nim-serve`` with vLLM: one command from a name to an answer, with adapters, keys, crashes and a bucket.

NIM_TEST_VLLM_PYTHON names the Python that has vLLM; the sessions ``serve-vllm`` and ``gpu`` set it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from attrs import define

from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer
from nim_core.testing.s3_server import S3Server
from nim_core.testing.tiny_model import ANSWER, QUESTION, SAFETENSORS_FOLDER, tiny_corpus
from tests.engines.adapters import children, make_adapter

pytest.importorskip("nim_backend_vllm", reason="the plugin vllm is not installed")

PYTHON = Path(os.environ.get("NIM_TEST_VLLM_PYTHON", ""))
SERVE = Path(sys.executable).parent / "nim-serve"
START_SECONDS = 240
KEY = {"Authorization": "Bearer sk-one"}
TINY = {"NIM_SERVED_MODEL_NAME": "tiny", "NIM_MODEL_PATH": str(SAFETENSORS_FOLDER)}
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(Path() == PYTHON, reason="NIM_TEST_VLLM_PYTHON names no Python that has vllm"),
]


@define
class Server:
    """A ``nim-serve`` under way."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def call(self, method: str, path: str, content: object = None, **headers: str) -> httpx.Response:
        with httpx.Client(base_url=self.url, trust_env=False, timeout=60) as client:
            return client.request(method, path, json=content, headers=headers)

    def ask(self, model: str, **headers: str) -> httpx.Response:
        messages = [{"role": "user", "content": QUESTION}]
        content = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 100}
        return self.call("POST", "/v1/chat/completions", content, **headers)

    def answer(self, model: str, **headers: str) -> str:
        found = self.ask(model, **headers)
        assert found.status_code == 200, found.text
        return str(found.json()["choices"][0]["message"]["content"])

    def until(self, holds: Callable[[], bool], seconds: float = START_SECONDS) -> float:
        """Return the seconds until something held; fails when the server ends before."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            assert self.process.poll() is None, self.said[-4000:]
            with suppress(httpx.TransportError):
                if holds():
                    return time.monotonic() - began
            time.sleep(0.1)
        pytest.fail(self.said[-4000:])

    def ready(self) -> float:
        return self.until(lambda: self.call("GET", "/v1/health/ready").status_code == 200)

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return that of a machine where nothing is set but what a test sets."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    path = f"{PYTHON.parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "NIM_CACHE_PATH": str(folder / "cache"), "NIM_SERVING_BACKEND": "vllm", **more}


@contextmanager
def serving(folder: Path, *arguments: str, **environ: str) -> Iterator[Server]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    env = environment(folder, NIM_SERVER_PORT=port, **environ)
    with log.open("wb") as output:
        command = [SERVE, "--host", "127.0.0.1", "--kv-cache-memory-bytes", "256M", *arguments]
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    try:
        yield Server(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def test_from_the_hub_to_an_answer(tmp_path: Path) -> None:
    """Download, key, names, metrics, adapters that come and go, and an end; all of one server."""
    adapters = tmp_path / "adapters"
    make_adapter(adapters, "early", 1)
    with HubServer([HubModel(files=tiny_corpus("safetensors").files, repository="acme/tiny")]) as hub:
        environ = {
            **hub.environment(),
            "NIM_MODEL_PATH": "hf://acme/tiny",
            "NIM_PEFT_SOURCE": str(adapters),
            "NIM_PEFT_REFRESH_INTERVAL": "1",
            "NIM_MAX_MODEL_LEN": "256",
            "NIM_MODEL_PROFILE": "vllm-tp1-pp1-feat_lora",
        }
        with serving(tmp_path, "--api-key", "sk-one", **environ) as server:
            print(f"ready after {server.ready():.1f} s")
            assert server.answer("acme/tiny", **KEY) == ANSWER
            assert server.ask("acme/tiny").status_code == 401
            assert server.ask("acme/tiny", Authorization="Bearer sk-two").status_code == 401
            assert "vllm:request_success_total" in server.call("GET", "/v1/metrics").text
            assert server.call("GET", "/v1/models", **KEY).json()["data"][0]["max_model_len"] == 256
            assert server.answer("early", **KEY) != ANSWER
            assert server.call("POST", "/v1/load_lora_adapter", {}, **KEY).status_code == 404
            make_adapter(tmp_path / "elsewhere", "late", 2)
            (tmp_path / "elsewhere" / "late").rename(adapters / "late")
            server.until(lambda: server.ask("late", **KEY).status_code == 200, 30)
            shutil.rmtree(adapters / "late")
            server.until(lambda: server.ask("late", **KEY).status_code == 404, 30)
            below = children(server.process.pid)
            began = time.monotonic()
            server.process.terminate()
            assert server.process.wait(60) == 0, server.said[-4000:]
            print(f"ended after {time.monotonic() - began:.1f} s")
            assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
            assert "sk-one" not in server.said


def test_an_engine_that_crashes_ends_it_with_an_error(tmp_path: Path) -> None:
    """Although vLLM's own status is 0 then."""
    with serving(tmp_path, **TINY) as server:
        print(f"ready after {server.ready():.1f} s")
        below = children(server.process.pid)
        named = [pid for pid in below if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(named[0], signal.SIGKILL)
        assert server.process.wait(60) == 73
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]


def test_several_keys_and_a_model_that_drafts(tmp_path: Path) -> None:
    environ = {**TINY, "NIM_DRAFT_MODEL_PATH": str(SAFETENSORS_FOLDER)}
    with serving(tmp_path, "--api-key", "sk-one", "sk-two", **environ) as server:
        server.ready()
        assert server.answer("tiny", **KEY) == ANSWER
        assert server.answer("tiny", Authorization="Bearer sk-two") == ANSWER
        assert server.ask("tiny", Authorization="Bearer sk-three").status_code == 401
        metrics = server.call("GET", "/v1/metrics").text
        accepted = re.search(r"(?m)^vllm:spec_decode_num_accepted_tokens_total\{\S* (\S+)$", metrics)
        assert accepted is not None
        assert float(accepted[1]) > 20


def test_a_model_is_streamed_and_not_downloaded(tmp_path: Path) -> None:
    boto3 = pytest.importorskip("boto3", reason="boto3 fills the bucket; it comes with the plugin s3")
    with S3Server(folder=tmp_path / "s3", buckets=("models",)) as store:
        client = boto3.client("s3", endpoint_url=store.url, region_name="us-east-1", **keys(store))
        for file in SAFETENSORS_FOLDER.iterdir():
            client.put_object(Bucket="models", Key=f"llm/tiny/{file.name}", Body=file.read_bytes())
        environ = {**TINY, **store.environment(store.reader), "AWS_EC2_METADATA_DISABLED": "true"}
        environ |= {"NIM_STREAM_MODEL": "1", "NIM_MODEL_PATH": "s3://models/llm/tiny/"}
        with serving(tmp_path, **environ) as server:
            print(f"ready after {server.ready():.1f} s")
            assert server.answer("tiny") == ANSWER
            found = [it.name for it in (tmp_path / "cache").rglob("*.safetensors")]
            assert found == []


def keys(store: S3Server) -> dict[str, str]:
    return {"aws_access_key_id": store.admin.access_key, "aws_secret_access_key": store.admin.secret_key}


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (("--max-modl-len", "8"), "did you mean --max-model-len?"),
        (("--gpu-memory-utilization", "1.5"), "--gpu-memory-utilization is not a number above 0 and up to 1"),
        (("--load-format", "safetensor"), "did you mean safetensors?"),
        (("--max-num-seqs", "many"), "--max-num-seqs"),
    ],
)
def test_what_vllm_would_refuse_is_refused_at_once(tmp_path: Path, words: tuple[str, ...], last: str) -> None:
    with HubServer([HubModel(files=tiny_corpus("safetensors").files, repository="acme/tiny")]) as hub:
        env = environment(tmp_path, **hub.environment(), NIM_MODEL_PATH="hf://acme/tiny")
        done = subprocess.run([SERVE, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 10, done.stderr
    assert last in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
