"""Candidates to plugins: imported, registered and asked what they bring, each on its own so that none harms another."""

from __future__ import annotations

import importlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar

import attrs
import pluggy

from nim_core.errors import PluginConflictError, PluginError, PluginLoadError
from nim_core.hookspecs import PROJECT_NAME, NimHookSpecs
from nim_core.registry.checks import COLLECT_HOOKS, CORE_DISTRIBUTION, check_hooks, check_records, check_requirements
from nim_core.registry.discovery import Candidate
from nim_core.registry.guard import describe
from nim_core.registry.info import PluginInfo
from nim_core.registry.isolation import isolated

__all__ = ["load_plugins", "make_manager", "only"]


class _Labelled(Protocol):
    @property
    def label(self) -> str: ...


Claimant = TypeVar("Claimant", bound=_Labelled)


def make_manager(specs: type[NimHookSpecs] = NimHookSpecs) -> pluggy.PluginManager:
    """Return a plugin manager that knows the contract's hooks, or those of a variant of it, and no plugin."""
    manager = pluggy.PluginManager(PROJECT_NAME)
    manager.add_hookspecs(specs)
    return manager


def only(manager: pluggy.PluginManager, hook: str, plugin: object) -> pluggy.HookCaller:
    """Return a caller of ``hook`` that reaches one plugin alone, so that what fails is known to be its."""
    return manager.subset_hook_caller(hook, manager.get_plugins() - {plugin})


def load_plugins(
    manager: pluggy.PluginManager, candidates: Sequence[Candidate], disabled: frozenset[str], seconds: float = 0.0
) -> tuple[PluginInfo, ...]:
    """
    Load every candidate that can be.

    Never raises for a plugin's fault: that plugin is returned as quarantined, and ``manager`` does not have it.

    Args:
        manager: Has the active plugins registered, under their names, afterwards.
        candidates: Sorted; the result has their order.
        disabled: Names of plugins that must not even be imported.
        seconds: A plugin that loads longer is ended, where that can be done, and quarantined; 0 for never.
    """
    wanted = [candidate for candidate in candidates if candidate.name not in disabled]
    conflicts = _find_conflicts(wanted, lambda it: (f"plugin name {it.name}", f"module {it.module or it.label}"))
    core_version = _core_version() if wanted else ""
    plugins = []
    for candidate in candidates:
        if candidate.name in disabled:
            plugins.append(_disabled(candidate))
        elif candidate in conflicts:
            hint = "uninstall all but one of these distributions"
            plugins.append(_quarantined(candidate, PluginConflictError(conflicts[candidate], hint=hint)))
        else:
            with isolated(seconds) as effects:
                plugin = _load(manager, candidate, core_version)
            plugins.append(attrs.evolve(plugin, side_effects=tuple(effects)))
    return _set_conflicts_aside(manager, plugins)


def _core_version() -> str | None:
    import importlib.metadata  # slow, and --help does without

    try:
        return importlib.metadata.version(CORE_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None


def _load(manager: pluggy.PluginManager, candidate: Candidate, core_version: str | None) -> PluginInfo:
    try:
        return _register(manager, candidate, core_version)
    except PluginError as exc:
        error = exc
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever it is, only this plugin may suffer
        error = PluginLoadError(f"loading failed: {describe(exc)}")
        error.__cause__ = exc
    _forget(manager, candidate.name)
    return _quarantined(candidate, error)


def _register(manager: pluggy.PluginManager, candidate: Candidate, core_version: str | None) -> PluginInfo:
    if candidate.fault:
        raise PluginLoadError(candidate.fault)
    check_requirements(candidate, core_version)
    module = _import_module(candidate.module)
    check_hooks(manager, module)
    with _as_load_error("registration failed"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        manager.register(module, name=candidate.name)
    info = _collect(manager, candidate, module)
    return attrs.evolve(info, deprecations=tuple(str(warning.message) for warning in caught))


def _import_module(name: str) -> ModuleType:
    if ":" in name:
        raise PluginLoadError(f"its entry point must name a module: {name}")
    with _as_load_error(f"cannot import {name}"):
        module = importlib.import_module(name)
    if not isinstance(module, ModuleType):
        raise PluginLoadError(f"its entry point must name a module: {name} is {type(module).__name__}")
    return module


def _collect(manager: pluggy.PluginManager, candidate: Candidate, module: ModuleType) -> PluginInfo:
    """Ask a registered plugin what it brings."""
    hooks = tuple(sorted(caller.name for caller in manager.get_hookcallers(module) or () if caller.has_spec()))
    found: dict[str, tuple[Any, ...]] = {}
    for hook in COLLECT_HOOKS:
        if hook in hooks:
            with _as_load_error(f"{hook} failed"):
                answers = only(manager, hook, module)()
            found[hook] = check_records(hook, answers)
    return PluginInfo(
        name=candidate.name,
        distribution=candidate.distribution,
        version=candidate.version,
        sources=found.get("nim_register_sources", ()),
        sinks=found.get("nim_register_sinks", ()),
        backends=found.get("nim_register_backends", ()),
        checks=found.get("nim_register_checks", ()),
        environment=found.get("nim_register_environment", ()),
        hooks=hooks,
        module=candidate.module,
        requires=candidate.requires,
    )


@contextmanager
def _as_load_error(what: str) -> Iterator[None]:
    """Turn whatever a plugin's code raises, the wish to exit included, into PluginLoadError."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        raise PluginLoadError(f"{what}: {describe(exc)}", hint=getattr(exc, "hint", None)) from exc


def _set_conflicts_aside(manager: pluggy.PluginManager, plugins: list[PluginInfo]) -> tuple[PluginInfo, ...]:
    """Quarantine every plugin that declares what another one declares too."""
    conflicts = _find_conflicts([it for it in plugins if it.status == "active"], lambda it: it.claims)
    hint = "uninstall one of these distributions, or name one of these plugins in NIM_PLUGINS_DISABLED"
    result = []
    for plugin in plugins:
        kept = plugin
        if plugin in conflicts:
            _forget(manager, plugin.name)
            error = PluginConflictError(conflicts[plugin], hint=hint)
            kept = attrs.evolve(plugin, status="quarantined", error=error)
        result.append(kept)
    return tuple(result)


def _find_conflicts(
    claimants: Iterable[Claimant], claims_of: Callable[[Claimant], Iterable[str]]
) -> dict[Claimant, str]:
    """Return who claims what another one claims too, with a reason that names all of them."""
    claims: defaultdict[str, list[Claimant]] = defaultdict(list)
    for claimant in claimants:
        for claim in claims_of(claimant):
            claims[claim].append(claimant)
    reasons: defaultdict[Claimant, list[str]] = defaultdict(list)
    for claim, owners in claims.items():
        if len(owners) > 1:
            reason = f"{claim} is claimed by {' and '.join(owner.label for owner in owners)}"
            for owner in owners:
                reasons[owner].append(reason)
    return {claimant: "; ".join(texts) for claimant, texts in reasons.items()}


def _forget(manager: pluggy.PluginManager, name: str) -> None:
    if manager.has_plugin(name):
        manager.unregister(name=name)


def _disabled(candidate: Candidate) -> PluginInfo:
    hint = f"take {candidate.name} out of NIM_PLUGINS_DISABLED"
    return _unused(candidate, "disabled", PluginLoadError("disabled by NIM_PLUGINS_DISABLED", hint=hint))


def _quarantined(candidate: Candidate, error: PluginError) -> PluginInfo:
    if error.hint is None:
        error.hint = f"upgrade, reinstall or uninstall {candidate.distribution}, or report this to its authors"
    return _unused(candidate, "quarantined", error)


def _unused(candidate: Candidate, status: Literal["disabled", "quarantined"], error: PluginError) -> PluginInfo:
    return PluginInfo(
        name=candidate.name,
        distribution=candidate.distribution,
        version=candidate.version,
        status=status,
        error=error,
        module=candidate.module,
        requires=candidate.requires,
    )
