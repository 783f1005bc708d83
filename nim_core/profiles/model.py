"""
What a model's files say about the memory it takes: pure.

:func:`shape_of` reads ``config.json``, :func:`weight_bytes` a safetensors index or the sizes of a listing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from attrs import frozen

__all__ = [
    "INDEX_NAME",
    "Attention",
    "Heads",
    "Model",
    "ModelShape",
    "heads_of",
    "shape_of",
    "weight_bytes",
    "weight_files",
]

INDEX_NAME: Final = "model.safetensors.index.json"
"""The file that sums up the tensors of all shards, as ``metadata.total_size``."""

# in this order the first pattern that fits any file says which files are the weights; a repository may have several
_WEIGHTS: Final = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin", "*.gguf", "*.engine")

# what these architectures leave out of config.json, from their configuration classes in the library `transformers`
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cohere2": {"sliding_window_pattern": 4},
    "gemma2": {"sliding_window_pattern": 2},
    "gemma3_text": {
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "sliding_window_pattern": 6,
        "vocab_size": 262208,
    },
}
_TEXT_PARTS: Final = ("text_config", "llm_config", "language_config")
_FULL: Final = frozenset({"full_attention", "attention", "*"})
_WINDOWED: Final = frozenset({"sliding_attention", "chunked_attention"})


@frozen(kw_only=True)
class Attention:
    """
    Layers that keep their keys and values alike.

    Attributes:
        layers: How many.
        heads: KV heads, which tensor parallelism divides; 1 for a latent, which every GPU keeps whole.
        values: Numbers kept per token and head: keys and values, or the latent.
        window: Tokens they look back, at most. None for all.
    """

    layers: int
    heads: int
    values: int
    window: int | None = None


@frozen(kw_only=True)
class ModelShape:
    """
    The sizes that memory depends on.

    Attributes:
        context: Longest context, in tokens.
        layers: Layers, with attention or without.
        hidden: Width between layers.
        intermediate: Width within an MLP, of all experts that one token visits.
        vocabulary: Tokens there are.
        attention: Layers with attention, by kind.
        cache_bytes: Bytes per number of the KV cache.
    """

    context: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    attention: tuple[Attention, ...]
    cache_bytes: int = 2


@frozen(kw_only=True)
class Heads:
    """What parallelism divides: attention heads, KV heads (1 for a latent, which is never divided), and layers."""

    query: int
    key_value: int
    layers: int


@frozen(kw_only=True)
class Model:
    """A model as far as memory goes: bytes of weights, and its shape, None when that is not known."""

    weights: int
    shape: ModelShape | None = None


def weight_bytes(sizes: Mapping[str, int], index: Mapping[str, Any] | None = None) -> int | None:
    """
    Return how many bytes the weights have.

    Args:
        sizes: Path and bytes of each file.
        index: Content of :data:`INDEX_NAME`. None when there is none.

    Returns:
        What the index says; else the sum over the first of the known formats that there is, so that a repository with
        the same weights in two formats counts once; None when there is none of them.
    """
    total = ((index or {}).get("metadata") or {}).get("total_size")
    if isinstance(total, int | float) and total > 0:
        return int(total)
    return sum(sizes[path] for path in weight_files(sizes)) or None


def weight_files(paths: Iterable[str]) -> list[str]:
    """Return which of these files are the weights: those of the first of the known formats that there is."""
    names = {path: path.rpartition("/")[2] for path in paths}
    fitting = ([path for path, name in names.items() if fnmatchcase(name, pattern)] for pattern in _WEIGHTS)
    return next(filter(None, fitting), [])


def shape_of(config: Mapping[str, Any]) -> ModelShape | None:
    """
    Return the shape that a ``config.json`` describes. None when it lacks what the estimate needs.

    Sliding windows, latent attention (MLA) and layers without attention are told apart; of a model of several kinds of
    input only the text part counts, and of an encoder and decoder none is known.
    """
    try:
        return _shape(_text_part(config))
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def heads_of(config: Mapping[str, Any]) -> Heads | None:
    """Return the heads and layers that a ``config.json`` tells. None when it does not."""
    try:
        return _heads(_text_part(config))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _heads(config: dict[str, Any]) -> Heads:
    query = _number(config, "num_attention_heads", "n_head", "n_heads")
    single = bool(config.get("multi_query") or config.get("kv_lora_rank"))
    return Heads(
        query=query,
        key_value=1 if single else _number(config, "num_key_value_heads", "num_kv_heads", default=query),
        layers=_number(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    )


def _text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    inner: Mapping[str, Any] = next((config[name] for name in _TEXT_PARTS if isinstance(config.get(name), Mapping)), {})
    merged = {**config, **inner}
    return {**_DEFAULTS.get(str(merged.get("model_type")), {}), **merged}


def _shape(config: dict[str, Any]) -> ModelShape:
    hidden = _number(config, "hidden_size", "n_embd", "d_model")
    heads = _number(config, "num_attention_heads", "n_head", "n_heads")
    intermediate = _number(
        config, "moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden
    )
    kinds = Counter(_windows(config))
    return ModelShape(
        context=_number(config, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
        layers=sum(kinds.values()),
        hidden=hidden,
        intermediate=intermediate * _number(config, "num_experts_per_tok", default=1),
        vocabulary=_number(config, "vocab_size"),
        attention=tuple(_attention(config, hidden, heads, kinds[window], window) for window in kinds if window != 0),
        cache_bytes=_cache_bytes(config),
    )


def _number(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """Return the first of these fields that is set, a number above zero; KeyError when none is and no default is."""
    value = next((config[name] for name in names if config.get(name) is not None), default)
    if value is None:
        raise KeyError(names[0])
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"{names[0]}: {value!r}")
    return value


def _windows(config: Mapping[str, Any]) -> Sequence[int | None]:
    """Return what each layer looks back: a window in tokens, None for everything, 0 where it has no attention."""
    kinds = config.get("layer_types") or re.sub(r"[^*\-MEme]", "", config.get("hybrid_override_pattern") or "")
    window = config.get("sliding_window") or config.get("attention_chunk_size")
    if kinds:
        known = dict.fromkeys(_WINDOWED, window) | dict.fromkeys(_FULL)
        return [known.get(kind, 0) for kind in kinds]
    layers = range(_number(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers"))
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return [None for _ in layers]
    if config.get("sliding_window_pattern"):
        every = _number(config, "sliding_window_pattern")
        return [window if (layer + 1) % every else None for layer in layers]
    first = int(config.get("max_window_layers") or 0) if config.get("use_sliding_window") else 0
    return [None if layer < first else window for layer in layers]


def _attention(config: Mapping[str, Any], hidden: int, heads: int, layers: int, window: int | None) -> Attention:
    if config.get("kv_lora_rank"):
        latent = _number(config, "kv_lora_rank") + _number(config, "qk_rope_head_dim")
        return Attention(layers=layers, heads=1, values=latent, window=window)
    kv_heads = 1 if config.get("multi_query") else heads
    kv_heads = _number(config, "num_key_value_heads", "num_kv_heads", default=kv_heads)
    head = _number(config, "head_dim", default=hidden // heads)
    return Attention(layers=layers, heads=kv_heads, values=2 * head, window=window)


def _cache_bytes(config: Mapping[str, Any]) -> int:
    """Return 1 where the checkpoint brings scales for a KV cache of 8 bits, as engines then use one; else 2."""
    scheme = (config.get("quantization_config") or {}).get("kv_cache_scheme") or {}
    return 1 if scheme.get("num_bits") == 8 else 2
