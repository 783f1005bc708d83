"""What is refused, when and in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nim_backend_vllm.locating import Installation
from nim_backend_vllm.probing import probe
from nim_backend_vllm.proposing import Machine
from nim_backend_vllm.snapshots import flags_of
from packaging.version import Version

from nim_core.errors import ConfigError
from nim_core.types import Adapter, Exposure, Gpu, Layer, Nodes

GPU = Gpu(name="H100", device_id="2330:10de", memory_total=80 << 30, memory_free=80 << 30)
MIG = Gpu(name="H100", device_id="2330:10de", memory_total=10 << 30, memory_free=10 << 30, mig=True)
NEWEST = flags_of(Version("0.33.0"))
ON_GPUS = Installation(executable=Path("/bin/vllm"), version=Version("0.33.0"))
ON_PROCESSORS = Installation(executable=Path("/bin/vllm"), version=Version("0.32.0+cpu"), cpu=True)
EMPTY = Installation(executable=Path("/bin/vllm"), version=Version("0.32.0"), cpu=True, starts=False)
FILES = ("config.json", "model.safetensors")
NO_LENGTH = "--max-model-len is not a number of tokens such as 8192, 128k or 128K, or auto"
TWO = Nodes(count=2)
TP2 = {"tp": "2"}


@pytest.fixture
def judge(make_request):
    """Probe what ``make_request`` takes, with one GPU if nothing else is said."""

    def judged(*arguments, installation=ON_GPUS, flags=NEWEST, **fields):
        return probe(make_request(*arguments, **{"gpus": (GPU,), "files": FILES, **fields}), installation, flags)

    return judged


def test_can(judge):
    assert judge().can_serve
    assert judge(files=()).can_serve
    assert judge(gpus=(GPU, GPU), tags=TP2).can_serve
    assert judge(gpus=(), installation=ON_PROCESSORS).can_serve
    assert judge(tags={"tp": "2", "pp": "2"}, gpus=(GPU, GPU), nodes=Nodes(count=2)).can_serve
    assert judge(tags={"tp": "8"}, nodes=Nodes(count=8, manager="ray")).can_serve
    assert judge(installation=ON_PROCESSORS, tags=TP2, environment={"VLLM_CPU_OMP_THREADS_BIND": "0|1"}).can_serve


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"installation": None}, "vLLM is not installed"),
        ({"installation": EMPTY}, "vllm-cpu is installed, but not the distribution vllm that its program asks for"),
        ({"gpus": ()}, "no GPU was found, and this vLLM is built for GPUs"),
        ({"tags": TP2}, "the model is spread over 2 GPUs of this machine, and there are 1"),
        ({"tags": {"pp": "2"}}, "the model is spread over 2 GPUs of this machine, and there are 1"),
        ({"tags": {"tp": "4"}, "nodes": TWO}, "the model is spread over 2 GPUs of this machine, and there are 1"),
        ({"tags": TP2, "gpus": (MIG, MIG)}, "the model is spread over 2 GPUs, and MIG instances cannot share one"),
        ({"files": ("model.gguf",)}, "the model has GGUF files, and vLLM reads none"),
        ({"files": ("a/README.md",)}, "the model has no config.json"),
        ({"files": ("config.json",)}, "the model has neither safetensors nor other weights that vLLM reads"),
        (
            {"installation": ON_PROCESSORS, "tags": TP2},
            "on processors, a model that is spread needs to know the cores of each part",
        ),
    ],
)
def test_cannot(judge, fields, reason):
    verdict = judge(**fields)
    assert (verdict.can_serve, verdict.reason) == (False, reason)


def test_an_adapter_above_the_rank(judge, user_argument):
    adapters = (Adapter(name="a", folder=Path("/a"), rank=64),)
    assert judge(adapters=adapters).can_serve
    verdict = judge(user_argument("max-lora-rank", "16"), adapters=adapters)
    assert verdict.reason == "adapter a has rank 64, and vLLM is told to take up to 16"
    verdict = judge(adapters=(Adapter(name="a", folder=Path("/a"), rank=1000),))
    assert verdict.reason == "adapter a has rank 1000, and vLLM takes up to 512"


@pytest.mark.parametrize(
    ("config", "can"),
    [
        ({"hidden_size": 64, "num_attention_heads": 2}, True),
        ({"hidden_size": 64, "num_attention_heads": 4}, False),
        ({"hidden_size": 64, "num_attention_heads": 4, "head_dim": 32}, True),
        ({"hidden_size": 7168, "num_attention_heads": 100, "kv_lora_rank": 512}, True),
        (["no object"], True),
    ],
)
def test_heads_that_processors_have_no_attention_for(judge, tmp_path, config, can):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert judge(installation=ON_PROCESSORS, workspace=tmp_path).can_serve is can
    assert judge(workspace=tmp_path).can_serve


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gpu-memory-utilization", "1.5", "--gpu-memory-utilization is not a number above 0 and up to 1: '1.5'"),
        ("gpu-memory-utilization", "0", "--gpu-memory-utilization is not a number above 0 and up to 1: '0'"),
        ("gpu-memory-utilization", "nan", "--gpu-memory-utilization is not a number above 0 and up to 1: 'nan'"),
        ("max-model-len", "long", f"{NO_LENGTH}: 'long'"),
        ("max-model-len", "1.5K", f"{NO_LENGTH}: '1.5K'"),
        ("max-model-len", "0", f"{NO_LENGTH}: '0'"),
        ("kv-cache-memory-bytes", "4GB", "--kv-cache-memory-bytes is not a number such as 8192, 64k or 4G: '4GB'"),
        ("max-num-queued-tokens", "many", "--max-num-queued-tokens is not a number such as 8192, 64k or 4G: 'many'"),
        ("allowed-origins", "*", "--allowed-origins is not JSON such as [\"*\"]: '*'"),
        ("tensor-parallel-size", "0", "--tensor-parallel-size is not a whole number of at least 1: '0'"),
        ("load-format", "safetensor", "vLLM has no --load-format 'safetensor'"),
        ("load-format", "gguf", "vLLM has no --load-format 'gguf'"),
        ("quantization", "fp9", "vLLM has no --quantization 'fp9'"),
        ("model", "x", "--model is not taken here"),
        ("uds", "/tmp/x", "--uds is not taken here"),
        ("ssl-certfile", "/x", "--ssl-certfile would have vLLM speak TLS to core, not to clients"),
    ],
)
def test_values_that_the_engine_would_refuse_later(judge, user_argument, name, value, message):
    with pytest.raises(ConfigError) as caught:
        judge(user_argument(name, value))
    assert caught.value.message == f"{message} (command line)"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max-model-len", "-1"),
        ("max-model-len", "25.6k"),
        ("gpu-memory-utilization", "1"),
        ("kv-cache-memory-bytes", "64M"),
        ("load-format", "runai_streamer"),
        ("quantization", "None"),
        ("seed", "0"),
    ],
)
def test_values_that_are_right(judge, user_argument, name, value):
    assert judge(user_argument(name, value)).can_serve


def test_plugins_of_vllm_may_know_a_format(judge, user_argument):
    extended = Installation(executable=Path("/bin/vllm"), version=Version("0.33.0"), extended=True)
    assert judge(user_argument("load-format", "ours"), installation=extended).can_serve
    with pytest.raises(ConfigError) as caught:
        judge(user_argument("load-format", "safetensor"), installation=extended)
    assert caught.value.hint == "did you mean safetensors?"


def test_so_may_a_version_that_is_not_known(judge, user_argument):
    assert judge(user_argument("quantization", "brandnew"), flags=flags_of(Version("0.40"))).can_serve


def test_the_message_names_the_variable(judge):
    with pytest.raises(ConfigError, match=r"'2' \(NIM_GPU_MEM_FRACTION\)"):
        judge(environment={"NIM_GPU_MEM_FRACTION": "2"})


def test_adapters_without_a_place(judge, user_argument):
    with pytest.raises(ConfigError, match=r"--no-enable-lora \(command line\) leaves no place for adapters"):
        judge(user_argument("enable-lora", value=False), changing_adapters=True)


def test_more_adapters_at_once_than_kept(judge, user_argument):
    with pytest.raises(ConfigError, match=r"--max-cpu-loras 16 \(adapters come and go\) is less than --max-loras 20"):
        judge(user_argument("max-loras", "20"), changing_adapters=True)


def test_several_keys_without_a_front(judge, user_argument):
    keys = user_argument("api-key", ("one", "two"))
    assert judge(keys).can_serve
    with pytest.raises(ConfigError, match="several API keys"):
        judge(keys, exposure=Exposure())


def test_tls_is_taken_where_clients_reach_it(judge):
    assert judge(exposure=Exposure(certificate=Path("/c"), key=Path("/k"))).can_serve


def test_a_model_in_a_bucket_has_no_files_here(judge):
    environment = {"NIM_STREAM_MODEL": "1"}
    assert judge(environment=environment, model_uri="s3://b/m", files=("README.md",)).can_serve


def test_proposals_are_of_a_version(make_request):
    request = make_request(machine=Machine(flags=NEWEST), exposure=Exposure())
    assert request.arguments["shutdown-timeout"].layer is Layer.DERIVED
