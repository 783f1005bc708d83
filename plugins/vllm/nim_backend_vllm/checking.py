"""Values that vLLM's parser lets through and its engine refuses, minutes later; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from nim_backend_vllm.snapshots import Flags
from nim_core.errors import ConfigError
from nim_core.types import Argument, LaunchRequest

_AMOUNT: Final = re.compile(r"\d+|\d+(\.\d+)?[kmgt]|\d+[KMGT]", re.ASCII)
"""Of vLLM's ``human_readable_int``: 128k is 128000, 128K is 131072, and 1.5K nothing."""

_FITTING: Final = ("auto", "-1")
_AT_LEAST_ONE: Final = (
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "data-parallel-size",
    "decode-context-parallel-size",
    "prefill-context-parallel-size",
    "max-num-seqs",
    "max-loras",
    "max-cpu-loras",
    "nnodes",
)
_OURS: Final = {
    "model": "name the model by NIM_MODEL_PATH or a profile",
    "uds": "core reaches vLLM by host and port: set NIM_SERVER_PORT",
    "grpc": "core serves HTTP: leave it out",
}
_TLS: Final = ("ssl-certfile", "ssl-keyfile", "ssl-ca-certs", "ssl-cert-reqs")


def check_values(request: LaunchRequest, flags: Flags, *, extended: bool) -> None:
    """
    Refuse what vLLM would refuse after the model was downloaded.

    Args:
        request: With its arguments.
        flags: What vLLM takes.
        extended: Whether plugins of vLLM's may bring load formats and quantizations that are not in ``flags``.

    Raises:
        ConfigError: Naming the argument and where it came from.
    """
    _check_ours(request)
    for argument in request.arguments.values():
        if isinstance(argument.value, str):
            _check_value(argument, argument.value)
            _check_form(argument, argument.value, flags.forms.get(argument.name))
    for name, known in (("load-format", flags.load_formats), ("quantization", flags.quantizations)):
        if found := request.arguments.get(name):
            _check_name(found, known, open_list=extended or not flags.exact)
    _check_lora(request)


def number(request: LaunchRequest, name: str) -> float | None:
    """Return an argument that is a number. None when there is none, or it is something else."""
    argument = request.arguments.get(name)
    try:
        return float(argument.value) if argument and isinstance(argument.value, str) else None
    except ValueError:
        return None


def _check_ours(request: LaunchRequest) -> None:
    for name, hint in _OURS.items():
        if name in request.arguments and request.arguments[name].value is not False:
            raise ConfigError(f"--{name} is not taken here{_origin(request.arguments[name])}", hint=hint)
    tls = [name for name in _TLS if name in request.arguments]
    if tls and request.exposure is None:
        raise ConfigError(
            f"--{tls[0]} would have vLLM speak TLS to core, not to clients{_origin(request.arguments[tls[0]])}",
            hint="set NIM_SSL_MODE, NIM_SSL_CERTS_PATH and NIM_SSL_KEY_PATH",
        )


def _check_value(argument: Argument, value: str) -> None:
    name = argument.name
    if name == "gpu-memory-utilization" and not _is_share(value):
        raise _wrong(argument, "a number above 0 and up to 1")
    if name == "max-model-len" and value not in _FITTING and not _is_amount(value):
        raise _wrong(argument, "a number of tokens such as 8192, 128k or 128K, or auto")
    if name in _AT_LEAST_ONE and (not re.fullmatch(r"\d+", value, re.ASCII) or int(value) < 1):
        raise _wrong(argument, "a whole number of at least 1")


def _check_form(argument: Argument, value: str, form: str | None) -> None:
    if form == "amount" and value not in {"", "None", *_FITTING} and not _is_amount(value):
        raise _wrong(argument, "a number such as 8192, 64k or 4G")
    if form == "value" and not _is_json(value):
        raise _wrong(argument, 'JSON such as ["*"]')


def _is_json(value: str) -> bool:
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def _is_share(value: str) -> bool:
    try:
        return 0 < float(value) <= 1
    except ValueError:
        return False


def _is_amount(value: str) -> bool:
    return bool(_AMOUNT.fullmatch(value)) and not re.fullmatch(r"0+\D?", value)


def _check_name(argument: Argument, known: Sequence[str], *, open_list: bool) -> None:
    value = argument.value
    if not isinstance(value, str) or value in known or value in {"", "None"}:
        return
    near = get_close_matches(value, known, n=1)
    if open_list and not near:
        return
    hint = f"did you mean {near[0]}?" if near else f"it may be one of {', '.join(known)}"
    raise ConfigError(f"vLLM has no --{argument.name} {value!r}{_origin(argument)}", hint=hint)


def _check_lora(request: LaunchRequest) -> None:
    enabled = request.arguments.get("enable-lora")
    wanted = request.adapters or request.changing_adapters
    if wanted and enabled is not None and enabled.value is False:
        raise ConfigError(
            f"--no-enable-lora{_origin(enabled)} leaves no place for adapters",
            hint="leave it out, or unset NIM_PEFT_SOURCE",
        )
    slots, kept = number(request, "max-loras"), number(request, "max-cpu-loras")
    if slots is not None and kept is not None and kept < slots:
        argument = request.arguments["max-cpu-loras"]
        raise ConfigError(
            f"--max-cpu-loras {kept:g}{_origin(argument)} is less than --max-loras {slots:g}",
            hint="give both, the former at least as high",
        )


def _wrong(argument: Argument, expected: str) -> ConfigError:
    return ConfigError(f"--{argument.name} is not {expected}: {argument.value!r}{_origin(argument)}")


def _origin(argument: Argument) -> str:
    return f" ({argument.origin})"
