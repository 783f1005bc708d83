"""Which backend serves a profile, and with which arguments."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from attrs import evolve, frozen

from nim_core.errors import BackendMissingError, ConfigError, IncompatibleModelError
from nim_core.registry.guard import GuardedBackend
from nim_core.serving.arguments import merge, read_object, read_words
from nim_core.types import Argument, BackendSpec, LaunchRequest, Layer, Verdict

__all__ = ["RUNTIME_CONFIG", "Chosen", "Given", "can_serve", "choose_backend", "resolve"]

RUNTIME_CONFIG: Final = "runtime_config.json"
"""File of a model with arguments that it is best served with."""

_ENGINE_TAGS: Final = ("llm_engine", "backend", "model_type")
_JSON_TAG: Final = "nim_json_args"
_PASSTHROUGH: Final = "NIM_PASSTHROUGH_ARGS"

_log = structlog.get_logger(__name__)


@frozen(kw_only=True)
class Given:
    """
    What users and models say of arguments.

    Attributes:
        words: Of the command line.
        passthrough: Of NIM_PASSTHROUGH_ARGS.
        runtime_config: Content of :data:`RUNTIME_CONFIG`. None where the model has none, or is not here yet.
    """

    words: tuple[str, ...] = ()
    passthrough: tuple[str, ...] = ()
    runtime_config: Mapping[str, Any] | None = None


@frozen(kw_only=True)
class Chosen:
    """A backend, and the request that it said it can serve."""

    spec: BackendSpec
    backend: GuardedBackend
    request: LaunchRequest


def choose_backend(
    specs: Mapping[str, BackendSpec],
    open_backend: Callable[[str], GuardedBackend],
    request_for: Callable[[str], LaunchRequest],
    given: Given,
    *,
    tags: Mapping[str, str],
    asked: str | None = None,
) -> Chosen:
    """
    Return the first backend that can serve: one that the profile's tags name before others, these by name.

    Args:
        specs: The installed ones.
        open_backend: Makes one.
        request_for: What the backend of a name is asked, arguments left out.
        given: Arguments of users.
        tags: Those of the profile.
        asked: The one to serve by. None: any.

    Raises:
        BackendMissingError: None of them can; the lines of the message say why.
        ConfigError: An argument is none of that backend's; or there is none of that name.
        IncompatibleModelError: It cannot serve with these arguments.
    """
    if asked is not None and asked not in specs:
        installed = ", ".join(sorted(specs)) or "none"
        raise ConfigError(f"NIM_SERVING_BACKEND names no installed backend: {asked}", hint=f"installed: {installed}")
    refusals: dict[str, Verdict] = {}
    for name in [asked] if asked is not None else sorted(specs, key=lambda it: (not _is_meant(specs[it], tags), it)):
        backend, request = open_backend(name), request_for(name)
        verdict = can_serve(backend, request)
        if verdict.can_serve:
            return Chosen(spec=specs[name], backend=backend, request=resolve(backend, request, given))
        refusals[name] = verdict
    raise _no_backend(refusals, tags)


def can_serve(backend: GuardedBackend, request: LaunchRequest) -> Verdict:
    """Ask a backend about a request, with the arguments that it proposes itself."""
    return backend.probe(evolve(request, arguments=merge(backend.propose(request))))


def resolve(backend: GuardedBackend, request: LaunchRequest, given: Given) -> LaunchRequest:
    """
    Return the request with the arguments that count.

    Raises:
        ConfigError: An argument is none of the backend's, or has a value that it does not take.
        IncompatibleModelError: The backend cannot serve with these arguments.
    """
    read = _reader(backend)
    config = dict(given.runtime_config or {})
    reserved = config.pop(_PASSTHROUGH, "")
    layers: list[tuple[Argument, ...]] = [
        backend.propose(request),
        read(_tag_arguments(request.tags), Layer.TAG, f"profile tag {_JSON_TAG}"),
        read(_split(reserved), Layer.RUNTIME_CONFIG, f"{_PASSTHROUGH} in {RUNTIME_CONFIG}"),
        read(config, Layer.RUNTIME_CONFIG, RUNTIME_CONFIG),
        read(given.passthrough, Layer.PASSTHROUGH, _PASSTHROUGH),
        read(given.words, Layer.COMMAND_LINE, "command line"),
    ]
    resolved = evolve(request, arguments=merge(argument for layer in layers for argument in layer))
    verdict = backend.probe(resolved)
    if not verdict.can_serve:
        raise IncompatibleModelError(f"cannot be served: {verdict.reason}", hint=verdict.hint)
    return resolved


def _reader(
    backend: GuardedBackend,
) -> Callable[[Sequence[str] | Mapping[str, Any], Layer, str], tuple[Argument, ...]]:
    """Return what reads words, or a JSON object, by the options of a backend; those it does not know are told."""
    options, exact = backend.options(), backend.options_are_exact()
    names = {option.name for option in options}

    def read(given: Sequence[str] | Mapping[str, Any], layer: Layer, origin: str) -> tuple[Argument, ...]:
        if isinstance(given, Mapping):
            found = read_object(given, options, layer, origin, exact=exact)
        else:
            found = read_words(given, options, layer, origin, exact=exact)
        for argument in found:
            if names and argument.name not in names:
                near = difflib.get_close_matches(argument.name, names, n=1)
                facts = {"argument": f"--{argument.name}", "origin": origin, "like": [f"--{name}" for name in near]}
                _log.warning("argument_not_known", **facts)
        return found

    return read


def _is_meant(spec: BackendSpec, tags: Mapping[str, str]) -> bool:
    engine = next((tags[tag] for tag in _ENGINE_TAGS if tags.get(tag)), "")
    return engine in {spec.name, *spec.engines}


def _no_backend(refusals: Mapping[str, Verdict], tags: Mapping[str, str]) -> BackendMissingError:
    engine = next((tags[tag] for tag in _ENGINE_TAGS if tags.get(tag)), None)
    wanted = f" (made for {engine})" if engine else ""
    if not refusals:
        return BackendMissingError("no serving backend is installed", hint="install one: docs/backends.md lists them")
    lines = "".join(f"\n  {name}: {verdict.reason}" for name, verdict in refusals.items())
    hints = dict.fromkeys(verdict.hint for verdict in refusals.values() if verdict.hint)
    return BackendMissingError(
        f"no installed backend can serve this profile{wanted}{lines}", hint="; or ".join(hints) or None
    )


def _tag_arguments(tags: Mapping[str, str]) -> Mapping[str, Any]:
    text = tags.get(_JSON_TAG)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ConfigError(f"profile tag {_JSON_TAG} is not a JSON object: {text}")
    return value


def _split(value: object) -> Sequence[str]:
    import shlex  # few models need it

    try:
        return shlex.split(str(value)) if not isinstance(value, list) else [str(item) for item in value]
    except ValueError as exc:
        raise ConfigError(f"{_PASSTHROUGH} in {RUNTIME_CONFIG} cannot be split into words: {exc}") from None
