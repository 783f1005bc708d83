"""What ``transformers serve`` is asked to serve, as a process; imports none of it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nim_backend_transformers.options import LAUNCH, OPTIONS
from nim_core.errors import BackendMissingError, ConfigError
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

__all__ = ["TransformersBackend", "find_program"]

_LEVELS = ("debug", "info", "warning", "error", "critical")
_OURS = tuple(option.name for option in LAUNCH)
_MODULES = ("torch", "fastapi", "uvicorn")
_HINT = "pip install nim-backend-transformers[engine]"
_WEIGHTS = (".safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json")
_NVIDIA = ":10de"
_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models", "/v1/models/")
_ENVIRON = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
"""So that it fetches nothing, and does not ask for newer versions of itself, either."""
_STOP_SECONDS = 30.0


class TransformersBackend:
    """
    Serves folders of safetensors files by ``transformers serve``.

    Args:
        variables: Those the spec declares.
    """

    def __init__(self, variables: Variables) -> None:
        self._variables = variables

    def options(self) -> tuple[Option, ...]:
        """Return the arguments of ``transformers serve``, and names and keys as other engines take them."""
        return OPTIONS

    def propose(self, request: LaunchRequest) -> list[Argument]:
        """Propose names and how much is logged."""
        found = []
        if request.served_names:
            names = request.served_names
            found.append(Argument(name="served-model-name", value=names, layer=request.names_layer))
        level = (self._variables.text("NIM_LOG_LEVEL") or "").strip().lower()
        if level in _LEVELS:
            found.append(Argument(name="log-level", value=level, layer=Layer.VARIABLE, origin="NIM_LOG_LEVEL"))
        return found

    def probe(self, request: LaunchRequest) -> Verdict:
        """Look for the program, for a model in the form it loads, and for what it cannot do."""
        for name, variable in (("host", "the address of the container"), ("port", "NIM_SERVER_PORT")):
            if name in request.arguments:
                raise ConfigError(f"--{name} is not the engine's: clients do not reach it", hint=f"set {variable}")
        reason = _impossible(request) or _unsuited(request)
        if reason:
            return Verdict(can_serve=False, reason=reason)
        program = find_program()
        if program is None:
            return Verdict(can_serve=False, reason="there is no program transformers, here or on PATH", hint=_HINT)
        missing = [name for name in _MODULES if find_spec(name) is None] if program == _beside_python() else []
        if missing:
            return Verdict(can_serve=False, reason=f"transformers serve lacks: {', '.join(missing)}", hint=_HINT)
        return _loadable(request)

    def plan_launch(self, request: LaunchRequest) -> LaunchPlan:
        """Describe the process. Raises BackendMissingError where the program is gone."""
        program = find_program()
        if program is None:
            raise BackendMissingError("there is no program transformers, here or on PATH", hint=_HINT)
        model = str(request.workspace)
        names = _several(request, "served-model-name") or request.served_names or (request.workspace.name,)
        words = argument_words(request.arguments.values(), without=_OURS)
        environ: dict[str, str | Secret] = {**_ENVIRON, **_devices(request)}
        return LaunchPlan(
            argv=(str(program), "serve", model, f"--host={request.host}", f"--port={request.port}", *words),
            title="transformers serve",
            environ=environ,
            without=("HF_TOKEN",),
            routes=_ROUTES,
            served_names=names,
            duties=FrontDuties(
                model=model,
                api_keys=tuple(Secret(key) for key in _several(request, "api-key")),
                lists_models=True,
            ),
            stop_seconds=_STOP_SECONDS,
        )


def find_program() -> Path | None:
    """Return the program ``transformers``: the one beside this Python, else one on PATH. None when there is none."""
    beside = _beside_python()
    if beside.is_file():
        return beside
    found = shutil.which("transformers")
    return Path(found) if found else None


def _beside_python() -> Path:
    return Path(sys.executable).parent / "transformers"


def _impossible(request: LaunchRequest) -> str:
    """Return what is asked of it that it cannot do. Empty when there is nothing."""
    if request.exposure:
        return "transformers serve knows neither names, keys nor TLS: clients cannot reach it themselves"
    if request.nodes and request.nodes.count > 1:
        return "transformers serve serves on one machine, not on several together"
    if request.adapters or request.changing_adapters:
        return "transformers serve has no LoRA adapters (NIM_PEFT_SOURCE)"
    if "@" in str(request.workspace):
        return f"transformers serve takes what follows an @ for a revision: {request.workspace}"
    return ""


def _unsuited(request: LaunchRequest) -> str:
    """Return why the names of the files are not those of a model it loads. Empty when they are."""
    if "config.json" not in request.files:
        return "transformers serves models that have a config.json, and this one has none"
    if not any(file.endswith(_WEIGHTS) for file in request.files if "/" not in file):
        return "transformers serves models in safetensors files, and this one has none"
    return ""


def _loadable(request: LaunchRequest) -> Verdict:
    config = _config(request.workspace / "config.json")
    if isinstance(config, Verdict):
        return config
    trusted = request.arguments.get("trust-remote-code")
    if config and "auto_map" in config and not (trusted and trusted.value is True):
        return Verdict(
            can_serve=False,
            reason="the model brings code of its own (auto_map in config.json)",
            hint="read that code, and pass --trust-remote-code if you trust it",
        )
    return Verdict(can_serve=True)


def _config(file: Path) -> Mapping[str, Any] | Verdict | None:
    """Return the content of a config.json, or why it is none. None when it is not there yet."""
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        return Verdict(can_serve=False, reason=f"config.json cannot be read: {type(exc).__name__}")
    if not isinstance(config, dict) or "model_type" not in config:
        return Verdict(can_serve=False, reason="config.json has no model_type, so transformers cannot tell the model")
    return config


def _devices(request: LaunchRequest) -> dict[str, str]:
    """Return the UUIDs of the GPUs it may use, as CUDA is told; nothing where there are none, or not all have one."""
    usable = request.gpus and all(gpu.uuid and gpu.device_id.endswith(_NVIDIA) for gpu in request.gpus)
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in request.gpus)} if usable else {}


def _several(request: LaunchRequest, name: str) -> tuple[str, ...]:
    argument = request.arguments.get(name)
    if argument is None:
        return ()
    return argument.value if isinstance(argument.value, tuple) else (str(argument.value),)
