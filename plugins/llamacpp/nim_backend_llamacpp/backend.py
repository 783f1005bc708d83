"""What llama.cpp is asked to serve, as a process; imports none of it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from nim_backend_llamacpp.cpus import allowed_cpus
from nim_backend_llamacpp.models import choose, damage
from nim_backend_llamacpp.options import LAUNCH, OPTIONS
from nim_core.errors import BackendError, ConfigError
from nim_core.types import (
    Argument,
    FrontDuties,
    LaunchPlan,
    LaunchRequest,
    Layer,
    Option,
    Secret,
    Variables,
    Verdict,
    argument_words,
)

__all__ = ["LlamaCppBackend"]

_VERBOSITY = {"DEBUG": "4", "INFO": "3", "WARNING": "2", "ERROR": "1", "CRITICAL": "1"}
_FILES = ("chat-template-file", "mmproj", "lora")
_CONTEXT = ("ctx-size", "kv-unified")
_OURS = (*_FILES, *_CONTEXT, *(option.name for option in LAUNCH))
_NVIDIA = ":10de"
_STOP_SECONDS = 30.0
_DRAIN_SECONDS = 25.0


class LlamaCppBackend:
    """
    Serves GGUF files by :mod:`nim_backend_llamacpp.server`.

    Args:
        variables: Those the spec declares.
    """

    def __init__(self, variables: Variables) -> None:
        self._variables = variables

    def options(self) -> tuple[Option, ...]:
        """Return llama.cpp's arguments, by the names llama-server has for them."""
        return OPTIONS

    def propose(self, request: LaunchRequest) -> list[Argument]:
        """Propose names, length of the context, how much is logged, and threads where not all CPUs may be used."""
        found = []
        if request.served_names:
            names = request.served_names
            found.append(Argument(name="served-model-name", value=names, layer=request.names_layer))
        found += self._context(request)
        level = (self._variables.text("NIM_LOG_LEVEL") or "").strip().upper()
        if level in _VERBOSITY:
            found.append(_from_variable("verbosity", _VERBOSITY[level], "NIM_LOG_LEVEL"))
        cpus = allowed_cpus()
        if cpus:
            found += [
                Argument(name=name, value=str(cpus), layer=Layer.DERIVED, origin="CPUs this process may use")
                for name in ("threads", "threads-batch")
            ]
        return found

    def probe(self, request: LaunchRequest) -> Verdict:
        """Look for llama.cpp, for one model, and for what llama.cpp cannot do."""
        _check_arguments(request)
        reason = _impossible(request)
        if reason:
            return Verdict(can_serve=False, reason=reason)
        if find_spec("xllamacpp") is None:
            return Verdict(
                can_serve=False,
                reason="llama.cpp is not installed: there is no module xllamacpp",
                hint="pip install nim-backend-llamacpp",
            )
        model = choose(request.files, _text(request, "model"))
        if isinstance(model, Verdict):
            return model
        damaged = damage(request.workspace / model)
        return Verdict(can_serve=not damaged, reason=f"{model} {damaged}" if damaged else "")

    def plan_launch(self, request: LaunchRequest) -> LaunchPlan:
        """Describe the server's process."""
        model = choose(request.files, _text(request, "model"))
        if isinstance(model, Verdict):
            raise BackendError(model.reason, hint=model.hint)
        names = _several(request, "served-model-name") or request.served_names or (Path(model).stem,)
        keys = self._keys(request)
        direct = request.exposure is not None
        environ: dict[str, str | Secret] = {}
        if direct and keys:
            environ["LLAMA_API_KEY"] = Secret("\n".join(key.reveal() for key in keys))
        devices = _devices(request)
        if devices:
            environ["CUDA_VISIBLE_DEVICES"] = devices
        metrics = request.arguments.get("metrics")
        return LaunchPlan(
            argv=(*_program(), *_words(request, model, names if direct else names[:1])),
            title="llama.cpp",
            environ=environ,
            without=() if "LLAMA_API_KEY" in environ else ("LLAMA_API_KEY",),
            metrics_path=None if metrics and metrics.value is False else "/metrics",
            routes=("/v1/", "/tokenize", "/detokenize", "/apply-template"),
            served_names=names,
            duties=FrontDuties() if direct else FrontDuties(model=names[0], api_keys=keys, lists_models=True),
            stop_seconds=_STOP_SECONDS,
        )

    def _context(self, request: LaunchRequest) -> list[Argument]:
        if self._variables.is_set("NIM_MAX_MODEL_LEN"):
            tokens = self._variables.number("NIM_MAX_MODEL_LEN") or 0
            return [_from_variable("max-model-len", str(int(tokens)), "NIM_MAX_MODEL_LEN")]
        if request.context:
            origin = "what fits into memory"
            value = str(request.context)
            return [Argument(name="max-model-len", value=value, layer=Layer.DERIVED, origin=origin)]
        return []

    def _keys(self, request: LaunchRequest) -> tuple[Secret, ...]:
        given = _several(request, "api-key")
        if given:
            return tuple(Secret(key) for key in given)
        key = self._variables.secret("LLAMA_API_KEY")
        return (key,) if key else ()


def _from_variable(name: str, value: str, variable: str) -> Argument:
    return Argument(name=name, value=value, layer=Layer.VARIABLE, origin=variable)


def _program() -> tuple[str, ...]:
    # -P: a module that lies about in the working folder is not taken for one of ours
    return (sys.executable, "-P", "-m", "nim_backend_llamacpp.server")


def _words(request: LaunchRequest, model: str, names: tuple[str, ...]) -> list[str]:
    """Return the server's command line."""
    words = [f"--model={request.workspace / model}", f"--host={request.host}", f"--port={request.port}"]
    words += ["--alias", *names, f"--drain-seconds={_DRAIN_SECONDS:g}"]
    words += _context_words(request)
    for name in _FILES:
        paths = [str(_beside(request, path)) for path in _several(request, name)]
        words += [f"--{name}", *paths] if paths else []
    if request.exposure:
        words.append(f"--cors-origins={','.join(request.exposure.allowed_origins)}")
        words.append(f"--cors-methods={', '.join(request.exposure.allowed_methods)}")
        words.append(f"--cors-headers={', '.join(request.exposure.allowed_headers)}")
    return words + argument_words(request.arguments.values(), without=_OURS)


def _context_words(request: LaunchRequest) -> list[str]:
    """
    Return the size of the context, in llama.cpp's terms.

    ``ctx-size`` is the room of all requests together, which they share or each have a part of; ``max-model-len`` is
    what one request may have.
    """
    unified = request.arguments.get("kv-unified")
    words = argument_words([unified]) if unified else []
    size, length = request.arguments.get("ctx-size"), request.arguments.get("max-model-len")
    if size and (not length or size.layer <= length.layer):
        return [*words, *argument_words([size])]
    if not length:
        return words
    if unified and unified.value is False:
        requests = int(_text(request, "parallel") or 1)
        return [*words, f"--ctx-size={int(str(length.value)) * max(1, requests)}"]
    return [f"--ctx-size={length.value}", "--kv-unified"]


def _check_arguments(request: LaunchRequest) -> None:
    for name, variable in (("host", "the address of the container"), ("port", "NIM_SERVER_PORT")):
        if name in request.arguments:
            raise ConfigError(f"--{name} is not the engine's: clients do not reach it", hint=f"set {variable} instead")
    size, length = request.arguments.get("ctx-size"), request.arguments.get("max-model-len")
    if size and length and size.layer == length.layer:
        raise ConfigError(f"--ctx-size {size.value} and --max-model-len {length.value} both say how long a context is")
    for argument, least in ((length, 1), (size, 0)):
        if argument and not (str(argument.value).isdecimal() and int(str(argument.value)) >= least):
            raise ConfigError(f"--{argument.name} is not a number of tokens: {argument.value}")


def _impossible(request: LaunchRequest) -> str:
    """Return what is asked of llama.cpp that it cannot do. Empty when there is nothing."""
    if request.nodes and request.nodes.count > 1:
        return "llama.cpp serves on one machine, not on several together"
    if request.adapters or request.changing_adapters:
        return (
            "llama.cpp takes LoRA adapters as GGUF files for every request (--lora), not by name from NIM_PEFT_SOURCE"
        )
    exposure = request.exposure
    if exposure and (exposure.certificate or exposure.client_authority):
        return "this build of llama.cpp has no TLS: clients cannot reach it themselves"
    if exposure and len(exposure.allowed_origins) > 1:
        return "llama.cpp allows one other origin or all, so clients with several cannot reach it themselves"
    return ""


def _devices(request: LaunchRequest) -> str:
    """Return the UUIDs of the GPUs it may use. Empty when it need not be told: there are none, or not all have one."""
    usable = all(gpu.uuid and gpu.device_id.endswith(_NVIDIA) for gpu in request.gpus)
    return ",".join(gpu.uuid for gpu in request.gpus) if usable else ""


def _beside(request: LaunchRequest, path: str) -> Path:
    """Return where a file named by an argument is: in the model's folder, where it has one of that name."""
    inside = request.workspace / path
    return inside if path in request.files else Path(path)


def _text(request: LaunchRequest, name: str) -> str | None:
    argument = request.arguments.get(name)
    return None if argument is None else str(argument.value)


def _several(request: LaunchRequest, name: str) -> tuple[str, ...]:
    argument = request.arguments.get(name)
    if argument is None:
        return ()
    return argument.value if isinstance(argument.value, tuple) else (str(argument.value),)
