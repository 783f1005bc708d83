"""From a request to arguments of ``vllm serve``; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import frozen

from nim_backend_vllm.snapshots import Flags
from nim_core.errors import ConfigError
from nim_core.types import Adapter, Argument, ArgumentValue, LaunchRequest, Layer

_LORA_SLOTS: Final = 8
_LORA_CACHE: Final = 16
_LORA_RANK: Final = 32
"""What NIM 1.x had, where adapters come and go and nobody knows which: NIM_MAX_GPU_LORAS, NIM_MAX_CPU_LORAS, _RANK."""

_DRAFTED_TOKENS: Final = 3
_DRAIN_SECONDS: Final = 30
_KV_CACHE: Final = 4 << 30
_MIB: Final = 1 << 20


@frozen(kw_only=True)
class Machine:
    """
    What the proposals depend on besides the request.

    Attributes:
        flags: What the installed vLLM takes.
        cpu: Whether it is built for processors.
        memory: Bytes this process may still use. None when not known.
    """

    flags: Flags
    cpu: bool = False
    memory: int | None = None


def propose(request: LaunchRequest, machine: Machine) -> list[Argument]:
    """Return what follows from a request, less what the installed version is known not to take."""
    found = [*_names(request), *_parallel(request), *_length(request), *_switches(request)]
    found += [*_on_processors(request, machine)] if machine.cpu else [*_on_gpus(request)]
    found += [
        *_lora(request, machine.flags),
        *_loading(request),
        *_draft(request),
        *_nodes(request),
        *_exposed(request),
    ]
    return [it for it in found if it.name in machine.flags.options or not machine.flags.exact]


def _names(request: LaunchRequest) -> Iterator[Argument]:
    if request.served_names:
        yield Argument(name="served-model-name", value=request.served_names, layer=request.names_layer)
    yield _derived("host", request.host, "where core reaches it")
    yield _derived("port", str(request.port), "where core reaches it")


def _parallel(request: LaunchRequest) -> Iterator[Argument]:
    yield from _variable(request, "tensor-parallel-size", "NIM_TENSOR_PARALLEL_SIZE")
    yield from _variable(request, "pipeline-parallel-size", "NIM_PIPELINE_PARALLEL_SIZE")
    yield from _tag(request, "tensor-parallel-size", "tp")
    yield from _tag(request, "pipeline-parallel-size", "pp")
    yield from _tag(request, "data-parallel-size", "dp")
    if request.tags.get("ep", "") not in {"", "0", "1", "false"}:
        yield Argument(name="enable-expert-parallel", value=True, layer=Layer.TAG, origin="profile tag ep")


def _length(request: LaunchRequest) -> Iterator[Argument]:
    yield from _variable(request, "max-model-len", "NIM_MAX_MODEL_LEN")
    if request.context is not None:
        yield _derived("max-model-len", str(request.context), "longest context that fits")


def _switches(request: LaunchRequest) -> Iterator[Argument]:
    for name, variable in (("enforce-eager", "NIM_DISABLE_CUDA_GRAPH"), ("trust-remote-code", "NIM_TRUST_CUSTOM_CODE")):
        if request.variables.is_set(variable):
            yield Argument(name=name, value=request.variables.flag(variable), layer=Layer.VARIABLE, origin=variable)


def _on_gpus(request: LaunchRequest) -> Iterator[Argument]:
    yield from _variable(request, "gpu-memory-utilization", "NIM_GPU_MEM_FRACTION")


def _on_processors(request: LaunchRequest, machine: Machine) -> Iterator[Argument]:
    """
    Make vLLM's CPU build start as others do.

    Left alone it compiles for minutes, takes 92 % of the machine's memory for its KV cache, and refuses a model whose
    longest context does not fit into that.
    """
    yield _default("enforce-eager", value=True, origin="on processors: compiling takes minutes")
    if not request.variables.is_set("VLLM_CPU_KVCACHE_SPACE"):
        share = _KV_CACHE if machine.memory is None else min(_KV_CACHE, machine.memory // 4)
        yield _default(
            "kv-cache-memory-bytes", f"{max(64, share // _MIB)}M", "on processors: 4 GiB, or a quarter of what is free"
        )
    yield _default("max-model-len", "auto", "on processors: what fits into the KV cache")


def _lora(request: LaunchRequest, flags: Flags) -> Iterator[Argument]:
    tagged = request.tags.get("feat_lora") == "true"
    if not (request.adapters or request.changing_adapters or tagged):
        return
    layer, origin = (Layer.VARIABLE, "NIM_PEFT_SOURCE") if not tagged else (Layer.TAG, "profile tag feat_lora")
    yield Argument(name="enable-lora", value=True, layer=layer, origin=origin)
    yield from _variable(request, "max-loras", "NIM_MAX_GPU_LORAS")
    yield from _variable(request, "max-cpu-loras", "NIM_MAX_CPU_LORAS")
    if request.changing_adapters:
        yield _default("max-loras", str(_LORA_SLOTS), "adapters come and go")
        yield _default("max-cpu-loras", str(_LORA_CACHE), "adapters come and go")
    elif len(request.adapters) > 1:
        yield _derived("max-loras", str(min(len(request.adapters), _LORA_SLOTS)), "adapters found")
        yield _derived("max-cpu-loras", str(len(request.adapters)), "adapters found")
    yield from _rank(request, flags)
    if request.adapters:
        modules = tuple(_module(adapter) for adapter in request.adapters)
        yield Argument(name="lora-modules", value=modules, layer=Layer.VARIABLE, origin="NIM_PEFT_SOURCE")


def _rank(request: LaunchRequest, flags: Flags) -> Iterator[Argument]:
    """vLLM takes a few values only: the next one that is large enough for all that is known."""
    asked = request.variables.number("NIM_MAX_LORA_RANK")
    if asked is not None:
        rank = rounded_rank(int(asked), flags)
        yield Argument(name="max-lora-rank", value=str(rank), layer=Layer.VARIABLE, origin="NIM_MAX_LORA_RANK")
    ranks = {adapter.rank: f"adapter {adapter.name}" for adapter in request.adapters if adapter.rank}
    tag = request.tags.get("feat_lora_max_rank", "")
    if tag.isdecimal():
        ranks[int(tag)] = "profile tag feat_lora_max_rank"
    layer = Layer.TAG if tag.isdecimal() else Layer.DERIVED
    if not ranks and request.changing_adapters:
        ranks, layer = {_LORA_RANK: "adapters come and go"}, Layer.DEFAULT
    if ranks:
        highest = max(ranks)
        yield Argument(
            name="max-lora-rank", value=str(rounded_rank(highest, flags)), layer=layer, origin=ranks[highest]
        )


def rounded_rank(rank: int, flags: Flags) -> int:
    """Return the lowest rank ``--max-lora-rank`` takes that is not below ``rank``; ``rank`` where there is none."""
    listed = sorted(int(choice) for choice in flags.options["max-lora-rank"].choices)
    return next((it for it in listed if it >= rank), rank)


def _module(adapter: Adapter) -> str:
    """``name=path``, or JSON where vLLM would split or read that differently."""
    path = str(adapter.folder)
    if "=" in adapter.name or "," in adapter.name + path:
        return json.dumps({"name": adapter.name, "path": path})
    return f"{adapter.name}={path}"


def _loading(request: LaunchRequest) -> Iterator[Argument]:
    if is_streamed_by_variable(request):
        yield Argument(name="load-format", value="runai_streamer", layer=Layer.VARIABLE, origin="NIM_STREAM_MODEL")


def is_streamed_by_variable(request: LaunchRequest) -> bool:
    """Return whether a model in a bucket is to be read from there. Raises ConfigError for one that is elsewhere."""
    if not request.variables.flag("NIM_STREAM_MODEL"):
        return False
    if not lies_in_bucket(request):
        raise ConfigError(
            "NIM_STREAM_MODEL is set, but vLLM streams models of s3:// and gs:// only",
            hint="set NIM_MODEL_PATH to s3://bucket/model, or unset NIM_STREAM_MODEL",
        )
    return True


def lies_in_bucket(request: LaunchRequest) -> bool:
    """Return whether the model has no manifest and lies where vLLM can read it."""
    return (request.model_uri or "").startswith(("s3://", "gs://"))


def _draft(request: LaunchRequest) -> Iterator[Argument]:
    path = request.variables.text("NIM_DRAFT_MODEL_PATH")
    if path is None:
        return
    if not path.startswith("/"):
        raise ConfigError(
            f"NIM_DRAFT_MODEL_PATH is not an absolute path: {path}",
            hint="download the draft model first: download-model --workspace-path DIR",
        )
    yield Argument(
        name="speculative-config", value={"model": path}, layer=Layer.VARIABLE, origin="NIM_DRAFT_MODEL_PATH"
    )
    yield _default("speculative-config", {"num_speculative_tokens": _DRAFTED_TOKENS}, "NIM_DRAFT_MODEL_PATH")


def _nodes(request: LaunchRequest) -> Iterator[Argument]:
    nodes = request.nodes
    if nodes is None or nodes.count == 1:
        return
    origin = f"node {nodes.rank + 1} of {nodes.count}"
    if nodes.manager == "ray":
        yield _derived("distributed-executor-backend", "ray", origin)
        return
    yield _derived("nnodes", str(nodes.count), origin)
    yield _derived("node-rank", str(nodes.rank), origin)
    yield _derived("master-addr", nodes.leader, origin)
    yield _derived("master-port", str(nodes.port), origin)
    if nodes.rank > 0:
        yield _derived("headless", value=True, origin=origin)


def _exposed(request: LaunchRequest) -> Iterator[Argument]:
    exposure = request.exposure
    if exposure is None:
        return
    yield _derived("shutdown-timeout", str(_DRAIN_SECONDS), "nobody drains for it")
    if exposure.certificate is not None:
        yield _set("ssl-certfile", str(exposure.certificate), "NIM_SSL_CERTS_PATH")
    if exposure.key is not None:
        yield _set("ssl-keyfile", str(exposure.key), "NIM_SSL_KEY_PATH")
    if exposure.client_authority is not None:
        yield _set("ssl-ca-certs", str(exposure.client_authority), "NIM_SSL_CA_CERTS_PATH")
        yield _set("ssl-cert-reqs", "2", "NIM_SSL_MODE")
    for name, values in (
        ("origins", exposure.allowed_origins),
        ("methods", exposure.allowed_methods),
        ("headers", exposure.allowed_headers),
    ):
        yield _set(f"allowed-{name}", _json_list(values), f"NIM_CORS_ALLOW_{name.upper()}")


def _json_list(values: Sequence[str]) -> str:
    return json.dumps(list(values))


def _variable(request: LaunchRequest, name: str, variable: str) -> Iterator[Argument]:
    value = request.variables.text(variable)
    if value is not None:
        yield _set(name, value.strip(), variable)


def _tag(request: LaunchRequest, name: str, tag: str) -> Iterator[Argument]:
    if value := request.tags.get(tag):
        yield Argument(name=name, value=value, layer=Layer.TAG, origin=f"profile tag {tag}")


def _set(name: str, value: ArgumentValue, variable: str) -> Argument:
    return Argument(name=name, value=value, layer=Layer.VARIABLE, origin=variable)


def _derived(name: str, value: ArgumentValue, origin: str) -> Argument:
    return Argument(name=name, value=value, layer=Layer.DERIVED, origin=origin)


def _default(name: str, value: ArgumentValue, origin: str) -> Argument:
    return Argument(name=name, value=value, layer=Layer.DEFAULT, origin=origin)
