"""Requests and the command lines they become."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from nim_backend_vllm.environment import ENVIRONMENT
from nim_backend_vllm.proposing import Machine, propose
from nim_backend_vllm.snapshots import flags_of
from packaging.version import Version

from nim_core.errors import ConfigError
from nim_core.types import Adapter, Exposure, LaunchRequest, Layer, Nodes, Variables

GIB = 1 << 30
PROCESSORS = Machine(flags=flags_of(Version("0.32.0")), cpu=True, memory=8 * GIB)
ADDRESS = "--host 127.0.0.1 --port 8000"


def adapter(name: str, rank: int | None = None, folder: str = "/peft") -> Adapter:
    return Adapter(name=name, folder=Path(folder, name), rank=rank)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, ""),
        ({"NIM_TENSOR_PARALLEL_SIZE": "2"}, "--tensor-parallel-size 2"),
        ({"NIM_PIPELINE_PARALLEL_SIZE": " 3 "}, "--pipeline-parallel-size 3"),
        ({"NIM_MAX_MODEL_LEN": "128K"}, "--max-model-len 128K"),
        ({"NIM_GPU_MEM_FRACTION": "0.5"}, "--gpu-memory-utilization 0.5"),
        ({"NIM_DISABLE_CUDA_GRAPH": "1"}, "--enforce-eager"),
        ({"NIM_DISABLE_CUDA_GRAPH": "0"}, "--no-enforce-eager"),
        ({"NIM_TRUST_CUSTOM_CODE": "true"}, "--trust-remote-code"),
        (
            {"NIM_DRAFT_MODEL_PATH": "/draft"},
            """--speculative-config '{"num_speculative_tokens":3,"model":"/draft"}'""",
        ),
    ],
)
def test_variables(make_plan, environment, words):
    launch = make_plan(environment=environment)
    assert sorted(launch.argv[3:]) == sorted(shlex.split(f"--served-model-name m {words} {ADDRESS}"))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"tp": "4", "pp": "2"}, "--tensor-parallel-size 4 --pipeline-parallel-size 2"),
        ({"dp": "2", "ep": "true"}, "--data-parallel-size 2 --enable-expert-parallel"),
        ({"ep": "1", "precision": "fp8"}, ""),
        ({"feat_lora": "true", "feat_lora_max_rank": "33"}, "--enable-lora --max-lora-rank 64"),
        ({"feat_lora": "false", "feat_lora_max_rank": "32"}, ""),
    ],
)
def test_tags(make_plan, tags, words):
    launch = make_plan(tags=tags)
    assert sorted(launch.argv[3:]) == sorted(shlex.split(f"--served-model-name m {words} {ADDRESS}"))


def test_variables_are_stronger_than_tags(make_plan):
    launch = make_plan(tags={"tp": "4"}, environment={"NIM_TENSOR_PARALLEL_SIZE": "1"}, context=4096)
    words = shlex.split(f"--served-model-name m --tensor-parallel-size 1 --max-model-len 4096 {ADDRESS}")
    assert sorted(launch.argv[3:]) == sorted(words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"adapters": (adapter("a", 8),)}, "--max-lora-rank 8 --lora-modules a=/peft/a"),
        (
            {"adapters": (adapter("a", 9), adapter("b", 200))},
            "--max-loras 2 --max-cpu-loras 2 --max-lora-rank 256 --lora-modules a=/peft/a b=/peft/b",
        ),
        ({"adapters": (adapter("a"),)}, "--lora-modules a=/peft/a"),
        (
            {"adapters": (adapter("a", 8),), "tags": {"feat_lora_max_rank": "32"}},
            "--max-lora-rank 32 --lora-modules a=/peft/a",
        ),
        (
            {"adapters": (adapter("a", 64),), "tags": {"feat_lora_max_rank": "32"}},
            "--max-lora-rank 64 --lora-modules a=/peft/a",
        ),
        ({"changing_adapters": True}, "--max-loras 8 --max-cpu-loras 16 --max-lora-rank 32"),
        (
            {
                "changing_adapters": True,
                "environment": {"NIM_MAX_GPU_LORAS": "3", "NIM_MAX_CPU_LORAS": "5", "NIM_MAX_LORA_RANK": "17"},
            },
            "--max-loras 3 --max-cpu-loras 5 --max-lora-rank 32",
        ),
        (
            {"adapters": (adapter("a=b", 1, "/p,q"),)},
            """--max-lora-rank 1 --lora-modules '{"name": "a=b", "path": "/p,q/a=b"}'""",
        ),
    ],
)
def test_lora(make_plan, fields, words):
    launch = make_plan(**fields)
    assert sorted(launch.argv[3:]) == sorted(shlex.split(f"--served-model-name m --enable-lora {words} {ADDRESS}"))


def test_at_most_eight_adapters_are_used_at_once(make_plan):
    launch = make_plan(adapters=tuple(adapter(f"a{number}", 8) for number in range(20)))
    words = " ".join(launch.argv)
    assert "--max-loras 8 " in words
    assert "--max-cpu-loras 20 " in words


def test_nodes_of_one_engine(make_plan):
    leader = Nodes(count=2, leader="10.0.0.1", port=29555, address="10.0.0.1")
    launch = make_plan(nodes=leader)
    assert "--nnodes 2 --node-rank 0" in " ".join(launch.argv)
    assert "--headless" not in launch.argv
    follower = make_plan(nodes=Nodes(count=2, rank=1, leader="10.0.0.1", port=29555, address="10.0.0.2"))
    words = " ".join(follower.argv)
    assert "--master-addr 10.0.0.1 --master-port 29555" in words
    assert "--node-rank 1" in words
    assert "--headless" in follower.argv
    assert "--port" not in follower.argv


def test_ray_starts_the_other_nodes(make_plan):
    launch = make_plan(nodes=Nodes(count=2, manager="ray", address="10.0.0.1"))
    assert "--distributed-executor-backend ray" in " ".join(launch.argv)
    assert "--nnodes" not in launch.argv


def test_one_node_is_none(make_plan):
    assert make_plan(nodes=Nodes(count=1)).argv == make_plan().argv


def test_an_engine_that_clients_reach_speaks_tls(make_plan):
    exposure = Exposure(
        certificate=Path("/tls/cert.pem"), key=Path("/tls/key.pem"), client_authority=Path("/tls/ca.pem"),
        allowed_origins=("https://a.example",), allowed_methods=("GET", "POST"),
    )  # fmt: skip
    launch = make_plan(exposure=exposure)
    words = shlex.join(launch.argv)
    assert "--ssl-certfile /tls/cert.pem" in words
    assert "--ssl-keyfile /tls/key.pem" in words
    assert "--ssl-ca-certs /tls/ca.pem" in words
    assert "--ssl-cert-reqs 2" in words
    assert """--allowed-origins '["https://a.example"]'""" in words
    assert """--allowed-methods '["GET", "POST"]'""" in words
    assert """--allowed-headers '["*"]'""" in words
    assert "--shutdown-timeout 30" in words
    assert launch.stop_seconds == 50


def test_on_processors_it_starts_soon_and_with_what_there_is(make_plan):
    launch = make_plan(machine=PROCESSORS, environment={"NIM_GPU_MEM_FRACTION": "0.9"})
    expected = "--enforce-eager --kv-cache-memory-bytes 2048M --max-model-len auto --served-model-name m"
    assert sorted(launch.argv[3:]) == sorted(shlex.split(f"{expected} {ADDRESS}"))


def test_on_processors_what_is_asked_for_holds(make_plan, user_argument):
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2", "NIM_MAX_MODEL_LEN": "1024", "NIM_DISABLE_CUDA_GRAPH": "no"}
    launch = make_plan(machine=PROCESSORS, environment=environment)
    expected = "--no-enforce-eager --max-model-len 1024 --served-model-name m"
    assert sorted(launch.argv[3:]) == sorted(shlex.split(f"{expected} {ADDRESS}"))


@pytest.mark.parametrize(
    ("memory", "expected"), [(None, "4096M"), (100 * GIB, "4096M"), (4 * GIB, "1024M"), (0, "64M")]
)
def test_the_cache_on_processors_leaves_room(memory, expected):
    request = LaunchRequest(workspace=Path("/w"), variables=Variables(ENVIRONMENT, {}))
    machine = Machine(flags=PROCESSORS.flags, cpu=True, memory=memory)
    (found,) = (it for it in propose(request, machine) if it.name == "kv-cache-memory-bytes")
    assert (found.value, found.layer) == (expected, Layer.DEFAULT)


def test_a_draft_model_has_to_be_here(make_plan):
    with pytest.raises(ConfigError, match="NIM_DRAFT_MODEL_PATH is not an absolute path: hf://a/b"):
        make_plan(environment={"NIM_DRAFT_MODEL_PATH": "hf://a/b"})


def test_only_models_in_buckets_are_streamed(make_plan):
    with pytest.raises(ConfigError, match="NIM_STREAM_MODEL"):
        make_plan(environment={"NIM_STREAM_MODEL": "1"}, model_uri="hf://a/b")


def test_every_value_says_where_it_came_from(make_request):
    environment = {"NIM_MAX_MODEL_LEN": "8", "NIM_PEFT_SOURCE": "/peft"}
    request = make_request(environment=environment, tags={"tp": "2"}, adapters=(adapter("a", 8),))
    origins = {name: it.origin for name, it in request.arguments.items()}
    assert origins["max-model-len"] == "NIM_MAX_MODEL_LEN"
    assert origins["tensor-parallel-size"] == "profile tag tp"
    assert origins["max-lora-rank"] == "adapter a"
    assert origins["lora-modules"] == "NIM_PEFT_SOURCE"
