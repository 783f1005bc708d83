from __future__ import annotations

from typing import Any

from nim_core.manifest import Profile
from nim_core.profiles.model import Model, shape_of
from nim_core.types import Gpu

GIB = 2**30

# the fields of published config.json files that the estimate reads, and the bytes of the published weights
CONFIGS: dict[str, tuple[int, dict[str, Any]]] = {
    "Llama-3.1-8B": (
        16_060_522_496,
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "max_position_embeddings": 131072,
            "model_type": "llama",
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "torch_dtype": "bfloat16",
            "vocab_size": 128256,
        },
    ),
    "Llama-3.1-70B": (
        141_107_412_992,
        {
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "max_position_embeddings": 131072,
            "model_type": "llama",
            "num_attention_heads": 64,
            "num_hidden_layers": 80,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
        },
    ),
    "Mixtral-8x7B": (
        93_405_585_408,
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mixtral",
            "num_attention_heads": 32,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "sliding_window": None,
            "vocab_size": 32000,
        },
    ),
    "Qwen2.5-72B": (
        145_412_407_296,
        {
            "hidden_size": 8192,
            "intermediate_size": 29568,
            "max_position_embeddings": 32768,
            "max_window_layers": 70,
            "model_type": "qwen2",
            "num_attention_heads": 64,
            "num_hidden_layers": 80,
            "num_key_value_heads": 8,
            "sliding_window": 131072,
            "use_sliding_window": False,
            "vocab_size": 152064,
        },
    ),
    "DeepSeek-V3": (
        688_586_727_753,
        {
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "kv_lora_rank": 512,
            "max_position_embeddings": 163840,
            "model_type": "deepseek_v3",
            "moe_intermediate_size": 2048,
            "num_attention_heads": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 61,
            "num_key_value_heads": 128,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "vocab_size": 129280,
        },
    ),
    "Gemma-3-27B": (
        54_864_813_280,
        {
            "model_type": "gemma3",
            "text_config": {
                "head_dim": 128,
                "hidden_size": 5376,
                "intermediate_size": 21504,
                "model_type": "gemma3_text",
                "num_attention_heads": 32,
                "num_hidden_layers": 62,
                "num_key_value_heads": 16,
                "sliding_window": 1024,
            },
            "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 27},
        },
    ),
}


def model(name: str) -> Model:
    """Return a published model."""
    weights, config = CONFIGS[name]
    return Model(weights=weights, shape=shape_of(config))


def gpu(gigabytes: float = 80, free: float | None = None, **facts: Any) -> Gpu:
    """Return an H100, or what ``facts`` make of it."""
    total = int(gigabytes * GIB)
    known = {"name": "NVIDIA H100 80GB HBM3", "device_id": "2330:10de", "compute_capability": (9, 0)} | facts
    return Gpu(memory_total=total, memory_free=total if free is None else int(free * GIB), **known)


def profile(name: str = "vllm-bf16-tp1-pp1", number: int = 0, **tags: str) -> Profile:
    """Return a profile of the tags that make ``name``, and more."""
    engine, precision, tp, pp, *lora = name.split("-")
    made = {
        "llm_engine": engine,
        "precision": precision,
        "tp": tp[2:],
        "pp": pp[2:],
        "feat_lora": str(bool(lora)).lower(),
    }
    return Profile(id=f"{number:064x}", tags=made | tags)
