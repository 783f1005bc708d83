from __future__ import annotations

import pytest

from nim_core.manifest import Profile
from nim_core.profiles.names import id_in_listing, matching, short_name, stated_gigabytes

TAGS = {"llm_engine": "vllm", "precision": "bf16", "tp": "1", "pp": "1", "feat_lora": "false"}
TRT = {
    "llm_engine": "tensorrt_llm",
    "gpu": "H100_NVL",
    "gpu_device": "2321:10de",
    "number_of_gpus": "1",
    "precision": "fp8",
    "tp": "1",
    "pp": "1",
    "profile": "throughput",
}
HASH = "6343e21ba5cccf783d18951c6627c207b81803c3c45f1e8b59eee062ed350143"


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        (TAGS, "vllm-bf16-tp1-pp1"),
        (TAGS | {"vram_gb": "63.0"}, "vllm-bf16-tp1-pp1-63.0"),
        (TAGS | {"precision": "fp8", "feat_lora": "true", "memory": "34.0"}, "vllm-fp8-tp1-pp1-feat_lora-34.0"),
        ({"llm_engine": "vllm", "tp": "1", "pp": "1"}, "vllm-tp1-pp1"),
        (TAGS | {"nim_workspace_hash_v1": HASH}, f"vllm-bf16-tp1-pp1-{HASH}"),
        (
            TRT | {"nim_workspace_hash_v1": HASH},
            f"tensorrt_llm-h100_nvl-fp8-tp1-pp1-throughput-2321:10de-{HASH}-1",
        ),
        (
            {"llm_engine": "tensorrt_llm", "trtllm_buildable": "true", "precision": "bf16", "tp": "2"},
            "tensorrt_llm-trtllm_buildable-bf16-tp2",
        ),
        ({"backend": "triton"}, "triton"),
        ({"model_type": "onnx", "gpu": "A10G 24GB"}, "onnx-a10g_24gb"),
        ({}, ""),
    ],
)
def test_names(tags: dict[str, str], name: str) -> None:
    assert short_name(tags) == name


@pytest.mark.parametrize(
    ("tags", "stated"),
    [
        (TAGS, None),
        ({"min_vram": "34.0"}, "34.0"),
        ({"gpu_memory": "80"}, "80"),
        ({"memory": "much"}, None),
        ({"memory": "-1"}, None),
        ({"memory": "\u0661"}, None),
    ],
)
def test_memory_that_tags_state(tags: dict[str, str], stated: str | None) -> None:
    assert stated_gigabytes(tags) == stated


PLAIN = Profile(id="a" * 64, tags=TAGS | {"vram": "63.0"})
LORA = Profile(id="b" * 64, tags=TAGS | {"feat_lora": "true", "vram": "64.0"})
TWINS = (Profile(id="c" * 64, tags=TAGS | {"vram": "1.0"}), Profile(id="d" * 64, tags=TAGS | {"vram": "2.0"}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * 64, [PLAIN]),
        (f" {'a' * 64}\n", [PLAIN]),
        ("vllm-bf16-tp1-pp1-63.0", [PLAIN]),
        ("vllm-bf16-tp1-pp1", [PLAIN]),
        ("vllm-bf16-tp1-pp1-feat_lora", [LORA]),
        ("vllm-bf16-tp1-pp1-lora", [LORA]),
        ("vllm-bf16-tp1-pp1-64.0", []),
        ("vllm", []),
        ("", []),
        ("A" * 64, []),
    ],
)
def test_what_a_text_means(text: str, expected: list[Profile]) -> None:
    assert matching(text, (PLAIN, LORA)) == expected


def test_the_whole_name_tells_apart_what_its_documented_part_does_not() -> None:
    assert matching("vllm-bf16-tp1-pp1", TWINS) == list(TWINS)
    assert matching("vllm-bf16-tp1-pp1-2.0", TWINS) == [TWINS[1]]


def test_no_name_means_the_profile_without_tags() -> None:
    assert matching("", [Profile(id="a" * 64)]) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{'a' * 64} (vllm-bf16-tp1-pp1)", "a" * 64),
        (f"  {'a' * 64} (vllm-bf16-tp1-pp1) [requires >=34 GB/gpu]", "a" * 64),
        ("a" * 64, None),
        ("vllm-bf16-tp1-pp1 (x)", None),
        (f"{'a' * 64}(x)", None),
    ],
)
def test_a_line_of_the_list(text: str, expected: str | None) -> None:
    assert id_in_listing(text) == expected
