"""
llama.cpp's HTTP server as a process: ``python -m nim_backend_llamacpp.server --model FILE --port PORT ...``.

It listens at once, answers 503 at ``/health`` while it loads, ends with status 0 when SIGTERM comes and the requests in
flight are answered, with 1 when it cannot serve (the last line on stderr says why), and when its parent is gone.
Keys come in LLAMA_API_KEY, one a line.
"""

from __future__ import annotations

import argparse
import enum
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from nim_backend_llamacpp.options import MORE, SETTINGS, Setting
from nim_core.types import Option

__all__ = ["main", "read_arguments", "to_parameters"]

_KINDS: Final[dict[str, Callable[[str], Any]]] = {"text": str, "integer": int, "number": float, "json": json.loads}
_LAYERS: Final = {"auto": -1, "all": -2}
_LOOK_SECONDS: Final = 0.5
_QUIET_LOOKS: Final = 2
_LOG_SECONDS: Final = 0.2


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read a command line; exits with status 2, as argparse does, on what is none."""
    parser = argparse.ArgumentParser(prog="nim_backend_llamacpp.server", allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", nargs="+", default=[])
    parser.add_argument("--drain-seconds", type=float, default=25.0)
    parser.add_argument("--cors-origins")
    parser.add_argument("--cors-methods")
    parser.add_argument("--cors-headers")
    for option in (*(setting.option for setting in SETTINGS), *MORE):
        _add(parser, option)
    return parser.parse_args(words)


def to_parameters(arguments: argparse.Namespace, keys: Sequence[str] = ()) -> Any:
    """
    Return the ``xllamacpp.CommonParams`` that a command line means.

    Args:
        arguments: From :func:`read_arguments`.
        keys: Of which a request has to bring one. Empty: none is asked for.
    """
    from xllamacpp import CommonParams

    parameters = CommonParams()
    parameters.model.path = str(arguments.model)
    parameters.model_alias = set(arguments.alias)
    parameters.hostnames = [arguments.host]
    parameters.port = arguments.port
    parameters.api_keys = list(keys)
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = False  # shows what others ask
    parameters.ui = False
    parameters.n_parallel = -1  # as llama-server: four requests at a time, which share one context
    for name in ("cors_origins", "cors_methods", "cors_headers"):
        if getattr(arguments, name) is not None:
            setattr(parameters, name, getattr(arguments, name))
    for setting in SETTINGS:
        value = getattr(arguments, _attribute(setting.option))
        if value is not None:
            _apply(parameters, setting, value)
    _apply_more(parameters, arguments)
    return parameters


def main(words: Sequence[str] | None = None) -> int:
    """Serve until a signal or the end of the parent; return the status to exit with."""
    parent = os.getppid()
    arguments = read_arguments(sys.argv[1:] if words is None else words)
    keys = [key for key in os.environ.pop("LLAMA_API_KEY", "").splitlines() if key]
    try:
        server = _start(arguments, keys)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError, OverflowError) as exc:
        time.sleep(_LOG_SECONDS)  # llama.cpp writes its log on a thread of its own; the reason comes last
        _say(f"llama.cpp cannot serve {arguments.model}: {exc}")
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0) if stop.is_set() else stop.set())
    while not stop.wait(_LOOK_SECONDS):
        if os.getppid() != parent:
            _say("the process that started llama.cpp is gone")
            os._exit(1)
    _drain(server, arguments.drain_seconds)
    os._exit(0)  # taking the server down waits for connections that clients keep open


def _say(reason: str) -> None:
    sys.stderr.write(f"error: {reason}\n")
    sys.stderr.flush()


def _start(arguments: argparse.Namespace, keys: Sequence[str]) -> Any:
    with socket.socket(socket.AF_INET6 if ":" in arguments.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((arguments.host, arguments.port))
        except OSError as exc:
            raise OSError(f"cannot listen on {arguments.host} port {arguments.port}: {exc.strerror}") from exc
    import xllamacpp

    parameters = to_parameters(arguments, keys)
    try:
        return xllamacpp.Server(parameters)
    except RuntimeError:
        raise RuntimeError("it was not loaded; what llama.cpp says of it stands above") from None


def _drain(server: Any, seconds: float) -> None:
    """Wait until no request has been in work for two looks, so that the last answer is on its way."""
    end = time.monotonic() + seconds
    quiet = 0
    while quiet < _QUIET_LOOKS and time.monotonic() < end:
        quiet = 0 if _requests(server.handle_metrics()) else quiet + 1
        time.sleep(_LOOK_SECONDS / 5)


def _requests(metrics: str) -> float:
    names = ("llamacpp:requests_processing ", "llamacpp:requests_deferred ")
    return sum(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(names))


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    name = f"--{option.name}"
    if option.kind == "switch":
        parser.add_argument(name, action=argparse.BooleanOptionalAction)
    elif option.many:
        parser.add_argument(name, nargs="+")
    else:
        parser.add_argument(name, type=_KINDS[option.kind], choices=option.choices or None)


def _attribute(option: Option) -> str:
    return option.name.replace("-", "_")


def _apply(parameters: Any, setting: Setting, value: Any) -> None:
    for path in setting.fields:
        *outer, name = path.split(".")
        owner = attrgetter(".".join(outer))(parameters) if outer else parameters
        setattr(owner, name, _value(setting, value, getattr(owner, name)))


def _value(setting: Setting, given: Any, current: Any) -> Any:
    value = setting.values.get(given, given) if setting.values else given
    if setting.inverted:
        return not value
    return type(current)[value] if isinstance(current, enum.Enum) else value


def _apply_more(parameters: Any, arguments: argparse.Namespace) -> None:
    if arguments.n_gpu_layers is not None:
        layers = _LAYERS.get(arguments.n_gpu_layers)
        parameters.n_gpu_layers = int(arguments.n_gpu_layers) if layers is None else layers
    if arguments.tensor_split is not None:
        shares = [float(share) for share in arguments.tensor_split.split(",")]
        parameters.tensor_split = shares + [0.0] * (len(parameters.tensor_split) - len(shares))
    if arguments.chat_template_file is not None:
        parameters.chat_template = Path(arguments.chat_template_file).read_text(encoding="utf-8")
    if arguments.chat_template_kwargs is not None:
        given = arguments.chat_template_kwargs
        parameters.default_template_kwargs = {name: json.dumps(value) for name, value in given.items()}
    if arguments.mmproj is not None:
        parameters.mmproj.path = arguments.mmproj
    if arguments.lora is not None:
        parameters.lora_adapters = [_adapter(path) for path in arguments.lora]


def _adapter(path: str) -> Any:
    from xllamacpp import CommonAdapterLoraInfo

    adapter = CommonAdapterLoraInfo()
    adapter.path = path
    adapter.scale = 1.0
    return adapter


if __name__ == "__main__":
    raise SystemExit(main())
