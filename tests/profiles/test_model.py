from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nim_core.profiles.model import Attention, shape_of, weight_bytes
from tests.profiles.conftest import CONFIGS

LLAMA = CONFIGS["Llama-3.1-8B"][1]
FULL = Attention(layers=32, heads=8, values=256)


def attention(**fields: Any) -> tuple[Attention, ...]:
    shape = shape_of(LLAMA | fields)
    assert shape is not None
    return shape.attention


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (FULL,)),
        ({"num_key_value_heads": None}, (Attention(layers=32, heads=32, values=256),)),
        ({"num_key_value_heads": None, "multi_query": True}, (Attention(layers=32, heads=1, values=256),)),
        ({"head_dim": 64}, (Attention(layers=32, heads=8, values=128),)),
        ({"sliding_window": 4096}, (Attention(layers=32, heads=8, values=256, window=4096),)),
        ({"sliding_window": 4096, "use_sliding_window": False}, (FULL,)),
        (
            {"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 28},
            (Attention(layers=28, heads=8, values=256), Attention(layers=4, heads=8, values=256, window=4096)),
        ),
        (
            {"sliding_window": 4096, "model_type": "gemma2"},
            (
                Attention(layers=16, heads=8, values=256, window=4096),
                Attention(layers=16, heads=8, values=256),
            ),
        ),
        (
            {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 128},
            (Attention(layers=2, heads=8, values=256, window=128), Attention(layers=2, heads=8, values=256)),
        ),
        (
            {"layer_types": ["chunked_attention"] * 3 + ["full_attention"], "attention_chunk_size": 8192},
            (Attention(layers=3, heads=8, values=256, window=8192), Attention(layers=1, heads=8, values=256)),
        ),
        (
            {"layer_types": ["linear_attention"] * 3 + ["full_attention"]},
            (Attention(layers=1, heads=8, values=256),),
        ),
        ({"hybrid_override_pattern": "M-M*-ME*"}, (Attention(layers=2, heads=8, values=256),)),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, (Attention(layers=32, heads=1, values=576),)),
    ],
)
def test_attention(fields: dict[str, Any], expected: tuple[Attention, ...]) -> None:
    assert attention(**fields) == expected


def test_layers_without_attention_count_as_layers() -> None:
    shape = shape_of(LLAMA | {"hybrid_override_pattern": "M-M*-ME*"})
    assert shape is not None
    assert shape.layers == 8


def test_the_text_part_of_a_model_of_several_inputs_counts() -> None:
    shape = shape_of(CONFIGS["Gemma-3-27B"][1])
    assert shape is not None
    assert (shape.layers, shape.context, shape.vocabulary) == (62, 131072, 262208)
    assert shape.attention == (
        Attention(layers=52, heads=16, values=256, window=1024),
        Attention(layers=10, heads=16, values=256),
    )


def test_experts_that_a_token_visits_widen_the_mlp() -> None:
    shape = shape_of(CONFIGS["DeepSeek-V3"][1])
    assert shape is not None
    assert shape.intermediate == 8 * 2048


@pytest.mark.parametrize(("scheme", "expected"), [(None, 2), ({"num_bits": 8, "type": "float"}, 1)])
def test_scales_in_the_checkpoint_halve_the_cache(scheme: object, expected: int) -> None:
    shape = shape_of(LLAMA | {"quantization_config": {"kv_cache_scheme": scheme}})
    assert shape is not None
    assert shape.cache_bytes == expected


@pytest.mark.parametrize(
    "config",
    [
        {},
        {name: value for name, value in LLAMA.items() if name != "max_position_embeddings"},
        LLAMA | {"num_hidden_layers": 0},
        LLAMA | {"num_hidden_layers": "32"},
        LLAMA | {"num_key_value_heads": [8, 4]},
        LLAMA | {"layer_types": 3},
    ],
)
def test_what_cannot_be_read_is_not_known(config: dict[str, Any]) -> None:
    assert shape_of(config) is None


@given(
    st.dictionaries(
        st.sampled_from([*LLAMA, "sliding_window", "layer_types", "text_config", "quantization_config", "head_dim"]),
        st.recursive(
            st.none() | st.booleans() | st.integers(-2, 99) | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=4,
        ),
    )
)
def test_no_config_raises(changes: dict[str, Any]) -> None:
    shape_of(LLAMA | changes)


SHARDS = {"model-00001-of-00002.safetensors": 10, "model-00002-of-00002.safetensors": 5}


@pytest.mark.parametrize(
    ("sizes", "index", "expected"),
    [
        (SHARDS, {"metadata": {"total_size": 14}}, 14),
        (SHARDS, {"metadata": {"total_size": 14.0}}, 14),
        (SHARDS, {"metadata": {}}, 15),
        (SHARDS, None, 15),
        (SHARDS | {"consolidated.safetensors": 15, "pytorch_model.bin": 15, "original/consolidated.pth": 15}, None, 15),
        ({"consolidated.safetensors": 15, "training_args.bin": 1}, None, 15),
        ({"pytorch_model-00001-of-00001.bin": 7, "training_args.bin": 1}, None, 7),
        ({"m.Q4_K_M.gguf": 4}, None, 4),
        ({"trtllm_engine/rank0.engine": 4, "trtllm_engine/rank1.engine": 4, "LICENSE": 1}, None, 8),
        ({"config.json": 1}, None, None),
        ({}, {"metadata": None}, None),
    ],
)
def test_weights(sizes: dict[str, int], index: dict[str, Any] | None, expected: int | None) -> None:
    assert weight_bytes(sizes, index) == expected
