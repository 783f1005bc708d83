from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from nim_backend_transformers import backend as backend_module
from nim_backend_transformers.backend import TransformersBackend
from nim_backend_transformers.plugin import VARIABLES

from nim_core.errors import BackendMissingError, ConfigError
from nim_core.testing.tiny_model import SAFETENSORS_FOLDER
from nim_core.types import (
    Adapter,
    Argument,
    ArgumentValue,
    Exposure,
    FrontDuties,
    Gpu,
    LaunchPlan,
    LaunchRequest,
    Layer,
    Nodes,
    Secret,
    Variables,
    Verdict,
)

FILES = tuple(sorted(file.name for file in SAFETENSORS_FOLDER.iterdir()))


def given(**values: ArgumentValue) -> dict[str, Argument]:
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return {name: Argument(name=name, value=value, layer=Layer.COMMAND_LINE) for name, value in named.items()}


def request_for(**fields: object) -> LaunchRequest:
    start = LaunchRequest(
        workspace=SAFETENSORS_FOLDER,
        files=FILES,
        served_names=("nim/tiny",),
        variables=Variables(VARIABLES, {}),
    )
    return evolve(start, **fields)


def probe(**fields: object) -> Verdict:
    request = request_for(**fields)
    return TransformersBackend(request.variables).probe(request)


def plan(**fields: object) -> LaunchPlan:
    request = request_for(**fields)
    return TransformersBackend(request.variables).plan_launch(request)


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program on PATH, which is looked for and never started, and none beside this Python."""
    found = tmp_path / "bin" / "transformers"
    found.parent.mkdir()
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    monkeypatch.setenv("PATH", str(found.parent))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python"))
    return found


def test_names_and_the_level_of_the_log_are_proposed() -> None:
    variables = Variables(VARIABLES, {"NIM_LOG_LEVEL": "Warning"})
    request = request_for(names_layer=Layer.VARIABLE)
    assert TransformersBackend(variables).propose(request) == [
        Argument(name="served-model-name", value=("nim/tiny",), layer=Layer.VARIABLE),
        Argument(name="log-level", value="warning", layer=Layer.VARIABLE, origin="NIM_LOG_LEVEL"),
    ]


def test_the_tiny_model_can_be_served() -> None:
    assert probe() == Verdict(can_serve=True)


def test_before_the_download_names_have_to_do(tmp_path: Path) -> None:
    assert probe(workspace=tmp_path / "later").can_serve


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"files": ("model.gguf",)}, "config.json"),
        ({"files": ("config.json", "model.gguf")}, "safetensors"),
        ({"files": ("config.json", "onnx/model.safetensors")}, "safetensors"),
        ({"nodes": Nodes(count=2)}, "one machine"),
        ({"changing_adapters": True}, "LoRA"),
        ({"adapters": (Adapter(name="a", folder=Path("a")),)}, "LoRA"),
        ({"exposure": Exposure()}, "clients cannot reach"),
        ({"workspace": Path("/models/a@b")}, "@"),
    ],
)
def test_what_cannot_be_is_said(fields: dict[str, object], reason: str) -> None:
    verdict = probe(**fields)
    assert not verdict.can_serve
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("config", "reason"),
    [("{", "JSONDecodeError"), ("[]", "model_type"), ("{}", "model_type"), ("\xff", "config.json cannot be read")],
)
def test_a_config_that_is_none_is_said(tmp_path: Path, config: str, reason: str) -> None:
    (tmp_path / "config.json").write_bytes(config.encode("latin-1"))
    verdict = probe(workspace=tmp_path)
    assert not verdict.can_serve
    assert reason in verdict.reason


def test_code_of_a_model_has_to_be_trusted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoModelForCausalLM": "code.X"}}')
    assert "code of its own" in probe(workspace=tmp_path).reason
    assert not probe(workspace=tmp_path, arguments=given(trust_remote_code=False)).can_serve
    assert probe(workspace=tmp_path, arguments=given(trust_remote_code=True)).can_serve


@pytest.mark.parametrize("arguments", [{"port": "9000"}, {"host": "::"}])
def test_where_it_listens_is_not_the_users(arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        probe(arguments=given(**arguments))


def test_a_missing_program_is_said(program: Path) -> None:
    program.unlink()
    verdict = probe()
    assert not verdict.can_serve
    assert verdict.hint == "pip install nim-backend-transformers[engine]"
    with pytest.raises(BackendMissingError):
        plan()


def test_a_program_beside_this_python_is_taken_and_needs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = Path(sys.executable).parent / "transformers"
    beside.parent.mkdir()
    beside.write_text("#!/bin/sh\n")
    assert plan().argv[0] == str(beside)
    monkeypatch.setattr(backend_module, "find_spec", lambda name: None if name == "torch" else object())
    assert probe().reason == "transformers serve lacks: torch"


def test_the_plan(program: Path) -> None:
    arguments = given(served_model_name=("one", "two"), api_key=("k",), dtype="float32", compile=False)
    planned = plan(port=8001, arguments=arguments)
    folder = str(SAFETENSORS_FOLDER)
    where = ("--host=127.0.0.1", "--port=8001")
    assert planned.argv == (str(program), "serve", folder, *where, "--dtype", "float32", "--no-compile")
    assert planned.duties == FrontDuties(model=folder, api_keys=(Secret("k"),), lists_models=True)
    assert planned.served_names == ("one", "two")
    assert planned.metrics_path is None
    assert planned.environ["HF_HUB_OFFLINE"] == "1"
    assert planned.without == ("HF_TOKEN",)


def test_gpus_are_named_by_uuid() -> None:
    nvidia = tuple(
        Gpu(name="H100", device_id="2330:10de", memory_total=1, memory_free=1, uuid=f"GPU-{n}") for n in "ab"
    )
    assert plan(gpus=nvidia).environ["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert "CUDA_VISIBLE_DEVICES" not in plan().environ


def test_no_engine_is_imported_by_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    code = "import sys, nim_backend_transformers.plugin; raise SystemExit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
