"""From a request and its arguments to the process ``vllm serve``; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from nim_backend_vllm.proposing import lies_in_bucket
from nim_backend_vllm.snapshots import Flags
from nim_core.types import Argument, FrontDuties, LaunchPlan, LaunchRequest, Secret, Variables, argument_words

GUARDED: Final = (
    "/v1/audio/",
    "/v1/chat/",
    "/v1/completions",
    "/v1/completions/",
    "/v1/decisions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/",
    "/v1/models",
    "/v1/rerank",
    "/v1/responses",
    "/v1/responses/",
    "/v1/score",
    "/v1/systemone",
    "/v2/embed",
    "/v2/rerank",
    "/cohere/v2/chat",
    "/inference/v1/generate",
)
HARMLESS: Final = ("/tokenize", "/detokenize", "/load", "/ping", "/version")
UNGUARDED: Final = ("/classify", "/generative_scoring", "/pooling", "/rerank", "/score")
"""
What vLLM 0.32 and 0.33 serve for clients: what a key guards, what gives nothing away, and what computes for anybody.

Left out: ``/v1/load_lora_adapter`` and its opposite, by which a client could have any folder of the machine read,
routes of development, those by which an operator scales or pauses it, and ``/invocations``, all of it unguarded.
"""

_STREAMING: Final = frozenset({"runai_streamer", "runai_streamer_sharded"})
_FROM_CORE: Final = ("host", "port", "api-key", "hf-token")
_STOP_SECONDS: Final = 20.0
_LEVELS: Final = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


def plan(request: LaunchRequest, executable: Path, flags: Flags, version: str = "") -> LaunchPlan:
    """
    Describe the process.

    Args:
        request: With its arguments.
        executable: The program ``vllm``.
        flags: What it takes.
        version: Which version it is. Empty: not known.
    """
    headless = _is_on(request, "headless")
    kept = [it for it in request.arguments.values() if _is_written(it, flags)]
    words = argument_words(kept, without=_FROM_CORE)
    address = [] if headless else ["--host", request.host, "--port", str(request.port)]
    return LaunchPlan(
        argv=(str(executable), "serve", _model(request), *words, *address),
        title=f"vLLM v{version}" if version else "vLLM",
        environ=dict(_environ(request)),
        without=tuple(_without(request)),
        health_path=None if headless else "/health",
        metrics_path=None if headless else "/metrics",
        routes=() if headless else _routes(request),
        served_names=_served_names(request),
        duties=FrontDuties(api_keys=api_keys(request) if len(api_keys(request)) > 1 else ()),
        stop_seconds=_STOP_SECONDS + float(text(request, "shutdown-timeout") or 0),
    )


def text(request: LaunchRequest, name: str) -> str | None:
    """Return an argument that is text, as it came out. None when there is none."""
    argument = request.arguments.get(name)
    return argument.value if argument and isinstance(argument.value, str) else None


def reads_remotely(request: LaunchRequest) -> bool:
    """Return whether vLLM is to stream the model out of its bucket: it lies in one, and the load format says so."""
    return lies_in_bucket(request) and text(request, "load-format") in _STREAMING


def api_keys(request: LaunchRequest) -> tuple[Secret, ...]:
    """Return the keys that clients may bring: the arguments', else VLLM_API_KEY's; empty when they need none."""
    argument = request.arguments.get("api-key")
    if argument is None:
        key = request.variables.secret("VLLM_API_KEY")
        return (key,) if key else ()
    values = (argument.value,) if isinstance(argument.value, str) else argument.value
    return tuple(Secret(it) for it in values if it) if isinstance(values, tuple) else ()


def _is_on(request: LaunchRequest, name: str) -> bool:
    argument = request.arguments.get(name)
    return argument is not None and argument.value is True


def _is_written(argument: Argument, flags: Flags) -> bool:
    """Some switches cannot be turned off, as they never are on by themselves."""
    return not (argument.value is False and argument.name in flags.on_only)


def _routes(request: LaunchRequest) -> tuple[str, ...]:
    return (*GUARDED, *HARMLESS) if api_keys(request) else (*GUARDED, *HARMLESS, *UNGUARDED)


def _without(request: LaunchRequest) -> Iterator[str]:
    """Kubernetes makes VLLM_PORT an address where a service is called vllm; several keys are compared by the front."""
    if "://" in (request.variables.text("VLLM_PORT") or ""):
        yield "VLLM_PORT"
    if len(api_keys(request)) > 1:
        yield "VLLM_API_KEY"


def _model(request: LaunchRequest) -> str:
    return (request.model_uri or "").rstrip("/") if reads_remotely(request) else str(request.workspace)


def _served_names(request: LaunchRequest) -> tuple[str, ...]:
    argument = request.arguments.get("served-model-name")
    if argument is None:
        return request.served_names or (_model(request),)
    return argument.value if isinstance(argument.value, tuple) else (str(argument.value),)


def _environ(request: LaunchRequest) -> Iterator[tuple[str, str | Secret]]:
    variables = request.variables
    for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        if not variables.is_set(name):
            yield name, "1"
    level = (variables.text("NIM_LOG_LEVEL") or "").strip().upper()
    if level in _LEVELS and not variables.is_set("VLLM_LOGGING_LEVEL"):
        yield "VLLM_LOGGING_LEVEL", level
    keys = api_keys(request)
    if "api-key" in request.arguments and len(keys) == 1:
        yield "VLLM_API_KEY", keys[0]
    if token := text(request, "hf-token"):
        yield "HF_TOKEN", Secret(token)
    if request.changing_adapters:
        yield "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "True"
    if request.nodes is not None and request.nodes.address is not None and not variables.is_set("VLLM_HOST_IP"):
        yield "VLLM_HOST_IP", request.nodes.address
    if reads_remotely(request):
        yield from _streaming(variables).items()


def _streaming(variables: Variables) -> Mapping[str, str]:
    """Return how the Run:ai streamer is told what the AWS variables say."""
    found: dict[str, str] = {}
    endpoint = variables.text("AWS_ENDPOINT_URL_S3") or variables.text("AWS_ENDPOINT_URL")
    if endpoint:
        found |= {"AWS_ENDPOINT_URL": endpoint, "RUNAI_STREAMER_S3_ENDPOINT": endpoint}
    if _in_path(variables, endpoint):
        found["RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING"] = "0"
    if variables.flag("AWS_NO_SIGN_REQUEST"):
        found["RUNAI_STREAMER_S3_UNSIGNED"] = "1"
    return found


def _in_path(variables: Variables, endpoint: str | None) -> bool:
    """Whether buckets are named in the path: as the variables say, else wherever it is not AWS."""
    style = (variables.text("AWS_S3_ADDRESSING_STYLE") or "auto").strip().lower()
    if variables.is_set("AWS_S3_USE_PATH_STYLE"):
        return variables.flag("AWS_S3_USE_PATH_STYLE")
    if style in {"virtual", "path"}:
        return style == "path"
    return endpoint is not None and ".amazonaws.com" not in endpoint
