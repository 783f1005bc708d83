from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from nim_backend_llamacpp import backend as backend_module
from nim_backend_llamacpp.backend import LlamaCppBackend
from nim_backend_llamacpp.plugin import VARIABLES

from nim_core.errors import BackendError, ConfigError
from nim_core.testing.tiny_model import GGUF_FILE
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


def variables(**values: str) -> Variables:
    return Variables(VARIABLES, values)


def given(layer: Layer = Layer.COMMAND_LINE, **values: ArgumentValue) -> dict[str, Argument]:
    """Arguments as core hands them over, their names with underscores."""
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return {name: Argument(name=name, value=value, layer=layer) for name, value in named.items()}


def request_for(files: tuple[str, ...] = ("model.gguf",), **fields: object) -> LaunchRequest:
    start = LaunchRequest(workspace=GGUF_FILE.parent, files=files, served_names=("nim/tiny",), variables=variables())
    return evolve(start, **fields)


def plan_of(request: LaunchRequest) -> LaunchPlan:
    return LlamaCppBackend(request.variables).plan_launch(request)


def propose(request: LaunchRequest, **values: str) -> dict[str, Argument]:
    return {found.name: found for found in LlamaCppBackend(variables(**values)).propose(request)}


def probe(request: LaunchRequest) -> Verdict:
    return LlamaCppBackend(request.variables).probe(request)


def after(words: tuple[str, ...], start: str) -> list[str]:
    return [word for word in words if word.startswith(start)]


@pytest.fixture(autouse=True)
def all_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "allowed_cpus", lambda: None)


def test_names_and_what_fits_are_proposed() -> None:
    request = request_for(context=4096, names_layer=Layer.VARIABLE)
    assert propose(request) == {
        "served-model-name": Argument(name="served-model-name", value=("nim/tiny",), layer=Layer.VARIABLE),
        "max-model-len": Argument(
            name="max-model-len", value="4096", layer=Layer.DERIVED, origin="what fits into memory"
        ),
    }


def test_variables_are_proposed() -> None:
    found = propose(request_for(context=4096), NIM_MAX_MODEL_LEN="1024", NIM_LOG_LEVEL="warning")
    assert found["max-model-len"] == Argument(
        name="max-model-len", value="1024", layer=Layer.VARIABLE, origin="NIM_MAX_MODEL_LEN"
    )
    assert found["verbosity"].value == "2"


def test_threads_are_proposed_where_a_quota_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "allowed_cpus", lambda: 3)
    found = propose(request_for())
    assert (found["threads"].value, found["threads-batch"].value) == ("3", "3")
    assert found["threads"].layer is Layer.DERIVED


def test_the_tiny_model_can_be_served() -> None:
    assert probe(request_for()) == Verdict(can_serve=True)


def test_before_the_download_names_have_to_do(tmp_path: Path) -> None:
    assert probe(request_for(workspace=tmp_path / "later")).can_serve


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"files": ("model.safetensors",)}, "GGUF"),
        ({"files": ("a.gguf", "b.gguf")}, "2 GGUF models"),
        ({"nodes": Nodes(count=2)}, "one machine"),
        ({"changing_adapters": True}, "LoRA"),
        ({"adapters": (Adapter(name="a", folder=Path("a")),)}, "LoRA"),
        ({"exposure": Exposure(certificate=Path("c.pem"), key=Path("k.pem"))}, "TLS"),
        ({"exposure": Exposure(allowed_origins=("https://a", "https://b"))}, "origin"),
    ],
)
def test_what_cannot_be_is_said(fields: dict[str, object], reason: str) -> None:
    verdict = probe(request_for(**fields))
    assert not verdict.can_serve
    assert reason in verdict.reason


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    verdict = probe(request_for(workspace=tmp_path))
    assert verdict.reason == "model.gguf is not a GGUF file: it does not begin with GGUF"


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "find_spec", lambda _: None)
    verdict = probe(request_for())
    assert not verdict.can_serve
    assert verdict.hint == "pip install nim-backend-llamacpp"


@pytest.mark.parametrize(
    "arguments",
    [
        {"port": "9000"},
        {"host": "::"},
        {"ctx_size": "512", "max_model_len": "256"},
        {"max_model_len": "0"},
        {"max_model_len": "4k"},
        {"ctx_size": "-1"},
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        probe(request_for(arguments=given(**arguments)))


def test_the_plan_behind_the_front() -> None:
    request = request_for(port=8001, arguments=given(served_model_name=("one", "two"), api_key=("k",), top_k="1"))
    plan = plan_of(request)
    assert plan.argv[:4] == (sys.executable, "-P", "-m", "nim_backend_llamacpp.server")
    assert plan.argv[4:] == (
        f"--model={request.workspace / 'model.gguf'}",
        "--host=127.0.0.1",
        "--port=8001",
        "--alias",
        "one",
        "--drain-seconds=25",
        "--top-k",
        "1",
    )
    assert plan.duties == FrontDuties(model="one", api_keys=(Secret("k"),), lists_models=True)
    assert plan.served_names == ("one", "two")
    assert (plan.environ, plan.without) == ({}, ("LLAMA_API_KEY",))


def test_the_plan_without_a_front_keeps_keys_out_of_argv() -> None:
    request = request_for(exposure=Exposure(), arguments=given(served_model_name=("one", "two"), api_key=("k1", "k2")))
    plan = plan_of(request)
    assert plan.duties == FrontDuties()
    assert plan.environ == {"LLAMA_API_KEY": Secret("k1\nk2")}
    assert plan.without == ()
    assert not after(plan.argv, "k")
    assert "--cors-origins=*" in plan.argv
    start = plan.argv.index("--alias")
    assert plan.argv[start + 1 : start + 3] == ("one", "two")


def test_llama_cpps_own_variable_is_a_key() -> None:
    request = request_for(variables=variables(LLAMA_API_KEY="secret"))
    assert plan_of(request).duties.api_keys == (Secret("secret"),)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, []),
        (given(max_model_len="512"), ["--ctx-size=512", "--kv-unified"]),
        (given(max_model_len="512", kv_unified=False, parallel="4"), ["--no-kv-unified", "--ctx-size=2048"]),
        (given(Layer.DERIVED, max_model_len="512") | given(ctx_size="4096"), ["--ctx-size", "4096"]),
        (given(Layer.TAG, ctx_size="4096") | given(max_model_len="512"), ["--ctx-size=512", "--kv-unified"]),
    ],
)
def test_the_context(arguments: dict[str, Argument], expected: list[str]) -> None:
    words = plan_of(request_for(arguments=arguments)).argv
    assert [word for word in words if "ctx" in word or "kv" in word or word == "4096"] == expected


def test_files_are_found_in_the_folder_of_the_model() -> None:
    arguments = given(chat_template_file="chat.jinja", mmproj="/elsewhere/mmproj.gguf")
    request = request_for(files=("model.gguf", "chat.jinja"), arguments=arguments)
    words = plan_of(request).argv
    assert words[words.index("--chat-template-file") + 1] == str(request.workspace / "chat.jinja")
    assert words[words.index("--mmproj") + 1] == "/elsewhere/mmproj.gguf"


def test_gpus_are_named_by_uuid() -> None:
    nvidia = [
        Gpu(name="H100", device_id="2330:10de", memory_total=1, memory_free=1, uuid=f"GPU-{name}") for name in "ab"
    ]
    assert plan_of(request_for(gpus=tuple(nvidia))).environ == {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    other = Gpu(name="MI300", device_id="74a1:1002", memory_total=1, memory_free=1, uuid="x")
    assert plan_of(request_for(gpus=(other,))).environ == {}


def test_a_plan_for_no_model_is_an_error() -> None:
    with pytest.raises(BackendError, match="GGUF"):
        plan_of(request_for(files=("model.safetensors",)))


def test_metrics_can_be_left_out() -> None:
    assert plan_of(request_for()).metrics_path == "/metrics"
    assert plan_of(request_for(arguments=given(metrics=False))).metrics_path is None


def test_the_library_is_not_imported_by_the_plugin() -> None:
    code = "import sys, nim_backend_llamacpp.plugin; raise SystemExit('xllamacpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
