"""What the log says of plugins that do not do as they should."""

from __future__ import annotations

from collections.abc import Iterable

from nim_core.errors import PluginError
from nim_core.registry.info import PluginInfo

__all__ = [
    "report_deprecations",
    "report_hook",
    "report_listener",
    "report_quarantined",
    "report_side_effects",
    "report_unknown",
]


def report_unknown(disabled: frozenset[str], installed: set[str]) -> None:
    """Log names in NIM_PLUGINS_DISABLED that no installed plugin has: most likely misspelled."""
    unknown = sorted(disabled - installed)
    if unknown:
        _log_warning("unknown_plugin_disabled", names=unknown, installed=sorted(installed))


def report_quarantined(quarantined: list[PluginInfo], strict: bool) -> None:
    """Log plugins that could not be loaded, or raise for all of them when the user asked for that."""
    if quarantined and strict:
        raise _strict_error(quarantined)
    for plugin in quarantined:
        _log_warning("plugin_quarantined", **_identity(plugin), reason=plugin.reason, hint=plugin.hint)


def _strict_error(quarantined: list[PluginInfo]) -> PluginError:
    """Return one error for all, of their common class where they have one."""
    errors = [plugin.error for plugin in quarantined if plugin.error is not None]
    classes = {type(error) for error in errors}
    kind = classes.pop() if len(classes) == 1 else PluginError
    reasons = "; ".join(f"{plugin.label}: {plugin.reason}" for plugin in quarantined)
    hint = errors[0].hint if len(errors) == 1 else "unset NIM_PLUGIN_STRICT to work without these plugins"
    failure = kind(f"plugins cannot be loaded: {reasons}", hint=hint)
    failure.__cause__ = errors[0]
    return failure


def report_side_effects(plugins: Iterable[PluginInfo]) -> None:
    """Log what plugins did to the process while they loaded; most do nothing."""
    for plugin in plugins:
        if plugin.side_effects:
            effects = [str(effect) for effect in plugin.side_effects]
            hint = f"name {plugin.name} in NIM_PLUGINS_DISABLED to do without it"
            _log_warning("plugin_side_effects", **_identity(plugin), effects=effects, hint=hint)


def report_deprecations(plugins: Iterable[PluginInfo]) -> None:
    """Log which plugins implement what will go; as Python's own warnings nobody would see it."""
    for plugin in plugins:
        if plugin.deprecations:
            hint = f"upgrade {plugin.distribution}, or report this to its authors"
            _log_warning("plugin_uses_deprecated", **_identity(plugin), uses=list(plugin.deprecations), hint=hint)


def report_listener(plugin: PluginInfo, reason: str) -> None:
    """Log that a plugin hears of no more events, and why."""
    _log_warning("transfer_event_hook_failed", **_identity(plugin), reason=reason)


def report_hook(plugin: PluginInfo, failure: PluginError) -> None:
    """Log a failure of a hook that the work can go on without."""
    _log_warning("plugin_hook_failed", **_identity(plugin), reason=failure.message, hint=failure.hint)


def _identity(plugin: PluginInfo) -> dict[str, str]:
    return {"plugin": plugin.name, "distribution": plugin.distribution, "version": plugin.version}


def _log_warning(event: str, **facts: object) -> None:
    import structlog  # slow, and most commands have nothing to warn of

    structlog.get_logger(__name__).warning(event, **facts)
