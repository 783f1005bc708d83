"""What a candidate has to be before it counts: compatible, its hooks spelled right, its records well-formed."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, Final

import pluggy

from nim_core.errors import PluginIncompatibleError, PluginLoadError
from nim_core.hookspecs import NimHookSpecs
from nim_core.registry.discovery import Candidate, canonical_name
from nim_core.types import BackendSpec, Capabilities, CheckSpec, EnvVar, SinkSpec, SourceSpec, UriStyle

__all__ = [
    "COLLECT_HOOKS",
    "CORE_DISTRIBUTION",
    "HOOK_NAMES",
    "check_hooks",
    "check_records",
    "check_requirements",
    "required_name",
]

CORE_DISTRIBUTION: Final = "nim-core"

_PREFIX: Final = "nim_"

HOOK_NAMES: Final[tuple[str, ...]] = tuple(sorted(name for name in vars(NimHookSpecs) if name.startswith(_PREFIX)))

COLLECT_HOOKS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "nim_register_sources": SourceSpec,
        "nim_register_sinks": SinkSpec,
        "nim_register_backends": BackendSpec,
        "nim_register_checks": CheckSpec,
        "nim_register_environment": EnvVar,
    }
)
"""Hooks that collect, and the type of the records they return."""

_FIELDS: Final[Mapping[type, Mapping[str, type]]] = {
    SourceSpec: {
        "name": str,
        "summary": str,
        "schemes": tuple,
        "uri_style": UriStyle,
        "capabilities": Capabilities,
        "environment": tuple,
    },
    SinkSpec: {"name": str, "summary": str, "scheme": str, "environment": tuple},
    BackendSpec: {"name": str, "summary": str, "engines": tuple, "without_gpu": bool, "environment": tuple},
    CheckSpec: {"name": str, "summary": str},
    EnvVar: {"name": str, "summary": str, "kind": str, "secret": bool},
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCHEME = re.compile(r"(?!file$)[a-z][a-z0-9+.-]*")
_REQUIREMENT_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def check_requirements(candidate: Candidate, core_version: str | None) -> None:
    """
    Check what a candidate requires of core; pre-releases of core count as an installer would let them.

    Args:
        candidate: Not imported yet.
        core_version: None when core runs without being installed.

    Raises:
        PluginIncompatibleError: It requires another version, or what it requires cannot be read.
    """
    for line in candidate.requires:
        if required_name(line) != CORE_DISTRIBUTION:
            continue
        if not _is_satisfied(line, core_version):
            raise PluginIncompatibleError(
                f"requires {line.strip()}, installed is {core_version or 'none'}",
                hint=f"pip install --upgrade {CORE_DISTRIBUTION} {candidate.distribution}",
            )


def required_name(line: str) -> str | None:
    """Return the name in a ``Requires-Dist`` line, as indexes compare it. None: it has none."""
    name = _REQUIREMENT_NAME.match(line)
    return None if name is None else canonical_name(name[1])


def check_hooks(manager: pluggy.PluginManager, module: ModuleType) -> None:
    """
    Check that every hook of a plugin is one of the contract's, and callable as the contract says.

    pluggy itself passes over a function without the marker, cannot see keyword-only parameters, and hands a generator
    or a coroutine back unstarted.

    Raises:
        PluginLoadError: The first fault, in the order of names.
    """
    implemented: dict[str, str] = {}
    for name, value in sorted(vars(module).items()):
        if not (inspect.isroutine(value) or name.startswith(_PREFIX)):
            continue
        options = manager.parse_hookimpl_opts(module, name)
        if options is not None:
            hook = options.get("specname") or name
            _check_function(hook, name, value, options)
            if implemented.setdefault(hook, name) != name:
                raise PluginLoadError(f"{hook} is implemented twice: {implemented[hook]}, {name}")
        elif name.startswith(_PREFIX) and callable(value):
            raise PluginLoadError(f"{name} is not a function marked with @hookimpl{_suggestion(name)}")


def check_records(hook: str, answers: list[object]) -> tuple[Any, ...]:
    """
    Check what a plugin's collect hook returned.

    Args:
        hook: A key of :data:`COLLECT_HOOKS`.
        answers: What pluggy collected from this one plugin; empty when it returned None.

    Raises:
        PluginLoadError: It is not a list of well-formed records, or two of them have one name or scheme.
    """
    expected = COLLECT_HOOKS[hook]
    answer = answers[0] if answers else None
    if not isinstance(answer, list):
        raise PluginLoadError(f"{hook} returned {type(answer).__name__}, expected a list of {expected.__name__}")
    for record in answer:
        if not isinstance(record, expected):
            raise PluginLoadError(f"{hook} returned {type(record).__name__} in its list, expected {expected.__name__}")
        _check_fields(record, expected)
    _check_unique(hook, (record.name for record in answer))
    _check_unique(hook, (scheme for record in answer for scheme in getattr(record, "schemes", ())))
    return tuple(answer)


def _is_satisfied(line: str, core_version: str | None) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement  # slow, --help does without

    try:
        requirement = Requirement(line)
    except InvalidRequirement as exc:
        raise PluginIncompatibleError(f"malformed Requires-Dist: {line.strip()!r}") from exc
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return True
    return core_version is not None and requirement.specifier.contains(core_version, prereleases=True)


def _suggestion(name: str) -> str:
    import difflib  # needed for a mistake only

    near = difflib.get_close_matches(name, HOOK_NAMES, n=1)
    return f"; did you mean {near[0]}?" if near and near[0] != name else ""


def _check_function(hook: str, name: str, function: Callable[..., object], options: Mapping[str, Any]) -> None:
    if hook not in HOOK_NAMES:
        if options.get("optionalhook"):
            return
        raise PluginLoadError(f"there is no hook {hook}{_suggestion(hook)}")
    if options.get("wrapper") or options.get("hookwrapper"):
        raise PluginLoadError(f"{name} is a hook wrapper; the contract has none")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginLoadError(f"{name} is async; hooks are synchronous")
    if inspect.isgeneratorfunction(function):
        raise PluginLoadError(f"{name} is a generator; hooks return their answer")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty:
            raise PluginLoadError(f"{name} must take {parameter.name} as a plain parameter without default")


def _check_fields(record: Any, expected: type) -> None:
    """Check the types of a record's fields, which attrs does not, and the names in it."""
    label = f"{expected.__name__} {record.name!r}"
    for field, kind in _FIELDS[expected].items():
        value = getattr(record, field)
        if not isinstance(value, kind):
            raise PluginLoadError(f"{label} has {type(value).__name__} as {field}, expected {kind.__name__}")
    for field in ("factory", "run"):
        if hasattr(record, field) and not callable(getattr(record, field)):
            raise PluginLoadError(f"{label} has a {field} that cannot be called")
    if not (_VARIABLE_NAME if expected is EnvVar else _NAME).fullmatch(record.name):
        raise PluginLoadError(f"{label} has a name with other characters than letters, digits and ._-")
    for scheme in (*getattr(record, "schemes", ()), *([record.scheme] if expected is SinkSpec else [])):
        if not isinstance(scheme, str) or not _SCHEME.fullmatch(scheme):
            raise PluginLoadError(f"{label} has an invalid scheme: {scheme!r}")
    for variable in getattr(record, "environment", ()):
        if not isinstance(variable, EnvVar):
            raise PluginLoadError(f"{label} has {type(variable).__name__} in environment, expected EnvVar")
        _check_fields(variable, EnvVar)


def _check_unique(hook: str, names: Iterable[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise PluginLoadError(f"{hook} declares twice: {', '.join(twice)}")
