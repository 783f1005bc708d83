"""
The arguments of llama.cpp that are taken, and what each one sets.

Names and meanings are those of ``llama-server``; it reads its own command line, but the library does not, so every
argument is listed here with the field of ``xllamacpp.CommonParams`` that it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from attrs import field, frozen

from nim_core.types import Option

__all__ = ["OPTIONS", "SETTINGS", "Setting"]


@frozen(kw_only=True)
class Setting:
    """
    An argument that sets fields of ``CommonParams``.

    Attributes:
        option: The argument.
        fields: Paths of the fields, their parts joined by dots.
        values: What a field is set to, by the word given; names of enumeration members, or whole values. Empty: the
            word itself, read as the option's kind.
        inverted: Whether a switch that is on sets False.
    """

    option: Option
    fields: tuple[str, ...]
    values: Mapping[str, str | int | bool] = field(factory=dict)
    inverted: bool = False


def _set(
    name: str,
    fields: str,
    kind: Literal["text", "integer", "number", "switch"],
    *aliases: str,
    inverted: bool = False,
) -> Setting:
    option = Option(name=name, aliases=aliases, kind=kind)
    return Setting(option=option, fields=tuple(fields.split()), inverted=inverted)


def _choice(name: str, field_path: str, values: Mapping[str, str | int | bool], *aliases: str) -> Setting:
    option = Option(name=name, aliases=aliases, choices=tuple(values))
    return Setting(option=option, fields=(field_path,), values=MappingProxyType(dict(values)))


def _members(prefix: str, *words: str) -> dict[str, str | int | bool]:
    return {word: prefix + word.upper().replace("-", "_") for word in words}


_CACHE_TYPES = _members("GGML_TYPE_", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_LOAD_MODES = _members("LLAMA_LOAD_MODE_", "auto", "none", "mmap", "mlock") | {
    "mmap+mlock": "LLAMA_LOAD_MODE_MMAP_MLOCK",
    "dio": "LLAMA_LOAD_MODE_DIRECT_IO",
}
_FLASH = {
    "on": "LLAMA_FLASH_ATTN_TYPE_ENABLED",
    "off": "LLAMA_FLASH_ATTN_TYPE_DISABLED",
    "auto": "LLAMA_FLASH_ATTN_TYPE_AUTO",
}

SETTINGS: Final = (
    # context and requests at a time
    _set("ctx-size", "n_ctx", "integer", "-c"),
    _set("parallel", "n_parallel", "integer", "-np"),
    _set("kv-unified", "kv_unified", "switch", "-kvu"),
    _set("cont-batching", "cont_batching", "switch", "-cb"),
    _set("batch-size", "n_batch", "integer", "-b"),
    _set("ubatch-size", "n_ubatch", "integer", "-ub"),
    _set("n-predict", "n_predict", "integer", "-n", "--predict"),
    _set("keep", "n_keep", "integer"),
    _set("context-shift", "ctx_shift", "switch"),
    _set("timeout", "timeout_read timeout_write", "integer", "-to"),
    _set("sleep-idle-seconds", "sleep_idle_seconds", "integer"),
    _set("threads-http", "n_threads_http", "integer"),
    # processors and memory
    _set("threads", "cpuparams.n_threads", "integer", "-t"),
    _set("threads-batch", "cpuparams_batch.n_threads", "integer", "-tb"),
    _choice("numa", "numa", _members("GGML_NUMA_STRATEGY_", "distribute", "isolate", "numactl")),
    _choice("load-mode", "load_mode", _LOAD_MODES, "-lm"),
    _set("check-tensors", "check_tensors", "switch"),
    _set("warmup", "warmup", "switch"),
    _choice("split-mode", "split_mode", _members("LLAMA_SPLIT_MODE_", "none", "layer", "row", "tensor"), "-sm"),
    _set("main-gpu", "main_gpu", "integer", "-mg"),
    _choice("fit", "fit_params", {"on": True, "off": False}, "-fit"),
    _set("fit-ctx", "fit_params_min_ctx", "integer", "-fitc"),
    _set("kv-offload", "no_kv_offload", "switch", "-kvo", inverted=True),
    _set("op-offload", "no_op_offload", "switch", inverted=True),
    # attention and its cache
    _choice("flash-attn", "flash_attn_type", _FLASH, "-fa"),
    _choice("cache-type-k", "cache_type_k", _CACHE_TYPES, "-ctk"),
    _choice("cache-type-v", "cache_type_v", _CACHE_TYPES, "-ctv"),
    _set("cache-prompt", "cache_prompt", "switch"),
    _set("cache-reuse", "n_cache_reuse", "integer"),
    _set("cache-ram", "cache_ram_mib", "integer", "-cram"),
    _set("ctx-checkpoints", "n_ctx_checkpoints", "integer", "-ctxcp", "--swa-checkpoints"),
    _set("swa-full", "swa_full", "switch"),
    _choice("rope-scaling", "rope_scaling_type", _members("LLAMA_ROPE_SCALING_TYPE_", "none", "linear", "yarn")),
    _set("rope-freq-base", "rope_freq_base", "number"),
    _set("rope-freq-scale", "rope_freq_scale", "number"),
    _set("yarn-orig-ctx", "yarn_orig_ctx", "integer"),
    _set("yarn-ext-factor", "yarn_ext_factor", "number"),
    _set("yarn-attn-factor", "yarn_attn_factor", "number"),
    _set("yarn-beta-slow", "yarn_beta_slow", "number"),
    _set("yarn-beta-fast", "yarn_beta_fast", "number"),
    # chats
    _set("jinja", "use_jinja", "switch"),
    _set("chat-template", "chat_template", "text"),
    _choice(
        "reasoning-format",
        "reasoning_format",
        _members("COMMON_REASONING_FORMAT_", "none", "auto", "deepseek", "deepseek-legacy"),
    ),
    _choice("reasoning", "enable_reasoning", {"on": 1, "off": 0, "auto": -1}, "-rea"),
    _set("reasoning-budget", "sampling.reasoning_budget_tokens", "integer"),
    _set("prefill-assistant", "prefill_assistant", "switch"),
    # what holds where a request does not say
    _set("temp", "sampling.temp", "number", "--temperature"),
    _set("top-k", "sampling.top_k", "integer"),
    _set("top-p", "sampling.top_p", "number"),
    _set("min-p", "sampling.min_p", "number"),
    _set("repeat-penalty", "sampling.penalty_repeat", "number"),
    _set("repeat-last-n", "sampling.penalty_last_n", "integer"),
    _set("presence-penalty", "sampling.penalty_present", "number"),
    _set("frequency-penalty", "sampling.penalty_freq", "number"),
    _set("seed", "sampling.seed", "integer", "-s"),
    # other tasks, and what can be looked at
    _set("embedding", "embedding", "switch", "--embeddings"),
    _choice("pooling", "pooling_type", _members("LLAMA_POOLING_TYPE_", "none", "mean", "cls", "last", "rank")),
    _set("props", "endpoint_props", "switch"),
    _set("slots", "endpoint_slots", "switch"),
    _set("verbosity", "verbosity", "integer", "-lv", "--log-verbosity"),
)
"""Arguments that set fields, one word to one value."""

MORE: Final = (
    Option(name="n-gpu-layers", aliases=("-ngl", "--gpu-layers")),
    Option(name="tensor-split", aliases=("-ts",)),
    Option(name="chat-template-file"),
    Option(name="chat-template-kwargs", kind="json"),
    Option(name="mmproj", aliases=("-mm",)),
    Option(name="lora", many=True),
)
"""Arguments that the server reads in ways of their own."""

LAUNCH: Final = (
    Option(name="model", aliases=("-m",)),
    Option(name="served-model-name", aliases=("-a", "--alias"), many=True),
    Option(name="max-model-len", kind="integer"),
    Option(name="api-key", many=True, secret=True),
    Option(name="metrics", kind="switch"),
    Option(name="host"),
    Option(name="port", kind="integer"),
)
"""Arguments that the backend turns into something else."""

OPTIONS: Final = (*(setting.option for setting in SETTINGS), *MORE, *LAUNCH)
