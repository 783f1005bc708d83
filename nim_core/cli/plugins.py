"""The commands ``plugins ...``: what is installed, and whether it works."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import asdict

from nim_core.cli.logging import printable
from nim_core.cli.output import write_data
from nim_core.cli.session import Session
from nim_core.types import Capabilities

if TYPE_CHECKING:
    from nim_core.registry import PluginInfo, Registry

__all__ = ["as_record", "list_plugins", "load_all", "plugins_as_text"]

_HEADINGS = ("NAME", "DISTRIBUTION", "VERSION", "STATUS", "SCHEMES", "CAPABILITIES")
_INDENT = "    "
_HOOK_WORDS = {
    "nim_provide_credential": "credentials",
    "nim_rewrite_uri": "override-target",
    "nim_transfer_event": "transfer-events",
    "nim_register_checks": "checks",
}


def list_plugins(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """
    List the installed plugins.

    Quarantined plugins cannot be used; the line below says why and what to do. They do not change the exit code.
    """
    session: Session = context.obj
    plugins = load_all(session).plugins
    shown = [session.redactor.event(as_record(plugin)) for plugin in plugins]
    write_data(json.dumps({"plugins": shown}, indent=2) if as_json else plugins_as_text(shown))


def load_all(session: Session) -> Registry:
    """Return the installed plugins; broken ones do not end it even with NIM_PLUGIN_STRICT, as they are to be shown."""
    session.start_logging(level="ERROR")  # what is shown says itself what is wrong with a plugin
    session.use({"NIM_PLUGIN_STRICT": "0"})
    return session.load_registry()


def as_record(plugin: PluginInfo) -> dict[str, Any]:
    """Return what is shown of a plugin."""
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": plugin.status,
        "reason": plugin.reason,
        "hint": plugin.hint,
        "schemes": list(plugin.schemes),
        "capabilities": _capabilities(plugin),
        "sinks": [sink.name for sink in plugin.sinks],
        "backends": [backend.name for backend in plugin.backends],
        "hooks": list(plugin.hooks),
    }


def _capabilities(plugin: PluginInfo) -> list[str]:
    """Return what it can do beyond listing and locating, in words."""
    flags = {name for source in plugin.sources for name in _flags(source.capabilities)}
    words = [word for hook, word in _HOOK_WORDS.items() if hook in plugin.hooks]
    sinks, backends = (
        (f"sink {sink.name}" for sink in plugin.sinks),
        (f"backend {item.name}" for item in plugin.backends),
    )
    return [*sorted(flags), *words, *sinks, *backends]


def _flags(capabilities: Capabilities) -> list[str]:
    return [name.replace("_", "-") for name, value in asdict(capabilities).items() if value is True]


def plugins_as_text(plugins: Sequence[dict[str, Any]]) -> str:
    """Return a table, its widest column last, with a line of its own for why a plugin is not active."""
    if not plugins:
        return "no plugins installed"
    rows = [_HEADINGS, *map(_cells, plugins)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 1)]
    lines = [_aligned(row, widths) for row in rows]
    notes = [[], *map(_notes, plugins)]
    return "\n".join(line for row, below in zip(lines, notes, strict=True) for line in (row, *below))


def _cells(plugin: dict[str, Any]) -> tuple[str, ...]:
    lists = (", ".join(plugin[name]) or "-" for name in ("schemes", "capabilities"))
    return (*(printable(plugin[name]) for name in ("name", "distribution", "version", "status")), *lists)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])


def _notes(plugin: dict[str, Any]) -> list[str]:
    return [f"{_INDENT}{name}: {printable(plugin[name])}" for name in ("reason", "hint") if plugin[name]]
