"""The command ``plugins show``: all that is known of one plugin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import asdict

from nim_core.cli.logging import printable
from nim_core.cli.output import write_data
from nim_core.cli.plugins import as_record, load_all
from nim_core.cli.session import Session, core_version
from nim_core.errors import ConfigError, NimError
from nim_core.settings import CORE_VARIABLES

if TYPE_CHECKING:
    import httpx

    from nim_core.registry import PluginInfo, Registry

__all__ = ["full_record", "plugin_as_text", "show_plugin"]

_WIDTH = 14


def show_plugin(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the plugin, as the list has it.", metavar="NAME")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """
    Show one plugin: what it brings, its variables, hooks and versions, and where it came from.

    Works for a plugin that is quarantined or disabled, too, and says why it is. Nothing is asked of any server.
    """
    session: Session = context.obj
    registry = load_all(session)
    found = [plugin for plugin in registry.plugins if plugin.name == name]
    if not found:
        raise _unknown(name, [plugin.name for plugin in registry.plugins])
    shown = [session.redactor.event(full_record(plugin, registry, session)) for plugin in found]
    write_data(json.dumps({"plugins": shown}, indent=2) if as_json else "\n\n".join(map(plugin_as_text, shown)))


def _unknown(name: str, installed: Sequence[str]) -> ConfigError:
    import difflib  # needed for a mistake only

    near = difflib.get_close_matches(name, installed, n=1)
    advice = f"did you mean {near[0]}?" if near else f"installed are: {', '.join(installed) or 'none'}"
    return ConfigError(f"no plugin is called: {name}", hint=advice)


def full_record(plugin: PluginInfo, registry: Registry, session: Session) -> dict[str, Any]:
    """Return all that is shown of a plugin; a variable that any plugin calls secret has no value in it."""
    from nim_core.registry.origin import find_origin

    origin = find_origin(plugin)
    return as_record(plugin) | {
        "core": core_version(),
        "requires": [line for line in plugin.requires if _is_of_core(line)],
        "module": plugin.module,
        "folder": None if origin.folder is None else str(origin.folder),
        "editable": origin.editable,
        "installer": origin.installer,
        "deprecations": list(plugin.deprecations),
        "side_effects": [str(effect) for effect in plugin.side_effects],
        "brings": list(_brings(plugin, registry)),
        "environment": list(_variables(plugin, registry, session)),
        "asked": {
            hook: [it.name for it in order] for hook, order in registry.asked.items() if plugin.name in _names(order)
        },
    }


def _is_of_core(line: str) -> bool:
    from nim_core.registry.checks import CORE_DISTRIBUTION, required_name

    return required_name(line) == CORE_DISTRIBUTION


def _names(plugins: Iterable[PluginInfo]) -> list[str]:
    return [plugin.name for plugin in plugins]


# ------------------------------------------------------------------------------------------------------- what it brings
def _brings(plugin: PluginInfo, registry: Registry) -> Iterator[dict[str, Any]]:
    """Yield what it brings; each is made, without any I/O, to see what it can do beyond the minimum."""
    for source in plugin.sources:
        yield {
            "kind": "source",
            "name": source.name,
            "summary": source.summary,
            "schemes": list(source.schemes),
            "uri_style": source.uri_style.value,
            "capabilities": asdict(source.capabilities),
            **_made(plugin, partial(_of_source, registry, source.schemes)),
        }
    for sink in plugin.sinks:
        yield {
            "kind": "sink",
            "name": sink.name,
            "summary": sink.summary,
            "scheme": sink.scheme,
            **_made(plugin, partial(_of_sink, registry, sink.name)),
        }
    for backend in plugin.backends:
        yield {
            "kind": "backend",
            "name": backend.name,
            "summary": backend.summary,
            "engines": list(backend.engines),
            "without_gpu": backend.without_gpu,
            **_made(plugin, partial(_of_backend, registry, backend.name)),
        }
    for check in plugin.checks:
        yield {"kind": "check", "name": check.name, "summary": check.summary}


def _made(plugin: PluginInfo, look: Callable[[httpx.Client], Sequence[str]]) -> dict[str, Any]:
    """Return the abilities that ``look`` finds, or why it cannot make what has them."""
    import httpx

    if plugin.status != "active":
        return {"abilities": None, "problem": None}
    try:
        with httpx.Client(trust_env=False) as http:
            return {"abilities": list(look(http)), "problem": None}
    except NimError as error:
        return {"abilities": None, "problem": error.message}


def _of_source(registry: Registry, schemes: Sequence[str], http: httpx.Client) -> Sequence[str]:
    from nim_core.registry.abilities import SOURCE_ABILITIES, abilities

    if not schemes:
        return ()
    source = registry.open_source(schemes[0], http)
    found = abilities(source, SOURCE_ABILITIES)
    source.close()
    return found


def _of_sink(registry: Registry, name: str, http: httpx.Client) -> Sequence[str]:
    sink = registry.open_sink(name, "bucket", http, _send_nothing)
    sink.close()
    return sink.abilities


def _of_backend(registry: Registry, name: str, _http: httpx.Client) -> Sequence[str]:
    return registry.open_backend(name).abilities


def _send_nothing(_upload: object) -> Any:
    raise ConfigError("nothing is sent while a plugin is shown")


# ------------------------------------------------------------------------------------------------------------ variables
def _variables(plugin: PluginInfo, registry: Registry, session: Session) -> Iterator[dict[str, Any]]:
    declared = [variable for it in registry.plugins for variable in it.variables]
    secret = {variable.name for variable in (*CORE_VARIABLES, *declared) if variable.secret}
    values = session.settings.read(plugin.variables)
    for variable in plugin.variables:
        is_set = values.is_set(variable.name)
        shown = is_set and variable.name not in secret
        yield {
            "name": variable.name,
            "summary": variable.summary,
            "kind": variable.kind,
            "secret": variable.name in secret,
            "default": variable.default,
            "set": is_set,
            "value": session.redactor.value(variable.name, values.text(variable.name)) if shown else None,
        }


# ----------------------------------------------------------------------------------------------------------------- text
def plugin_as_text(plugin: Mapping[str, Any]) -> str:
    """Return a record of :func:`full_record` for people: a heading, then lines of a word and what it stands for."""
    blocks = (_general(plugin), *map(_brought, plugin["brings"]), _environment(plugin), _order(plugin))
    heading = f"{plugin['name']} ({plugin['distribution']} {plugin['version']}): {plugin['status']}"
    lines = [heading, *(line for block in blocks for line in block)]
    return "\n".join(map(printable, lines))


def _line(word: str, text: str) -> str:
    return f"  {word:<{_WIDTH}}{text}"


def _general(plugin: Mapping[str, Any]) -> Iterator[str]:
    for word in ("reason", "hint"):
        if plugin[word]:
            yield _line(word, plugin[word])
    how = (["editable"] if plugin["editable"] else []) + (
        [f"installed by {plugin['installer']}"] if plugin["installer"] else []
    )
    yield _line("came from", (plugin["folder"] or "unknown") + (f" ({', '.join(how)})" if how else ""))
    yield _line("module", plugin["module"] or "unknown")
    yield _line("requires", f"{', '.join(plugin['requires']) or 'no nim-core'}; installed is nim-core {plugin['core']}")
    for text in plugin["deprecations"]:
        yield _line("deprecated", text)
    for effect in plugin["side_effects"]:
        yield _line("loading", effect)
    yield _line("hooks", ", ".join(plugin["hooks"]) or "none")


def _brought(item: Mapping[str, Any]) -> Iterator[str]:
    yield _line(item["kind"], f"{item['name']}: {item['summary']}")
    if item["kind"] == "source":
        yield _line("  schemes", f"{', '.join(item['schemes'])} ({item['uri_style']})")
        yield _line("  can", ", ".join(_words(item["capabilities"])) or "-")
    elif item["kind"] == "sink":
        yield _line("  scheme", item["scheme"])
    elif item["kind"] == "backend":
        yield _line("  engines", ", ".join(item["engines"]) or "-")
        yield _line("  without GPU", "yes" if item["without_gpu"] else "no")
    if item.get("problem"):
        yield _line("  abilities", f"unknown: {item['problem']}")
    elif item.get("abilities"):
        yield _line("  abilities", ", ".join(item["abilities"]))


def _words(flags: Mapping[str, object]) -> list[str]:
    return [name.replace("_", "-") for name, value in flags.items() if value is True]


def _environment(plugin: Mapping[str, Any]) -> Iterator[str]:
    width = max((len(variable["name"]) for variable in plugin["environment"]), default=0)
    for number, variable in enumerate(plugin["environment"]):
        yield _line("variables" if number == 0 else "", f"{variable['name']:<{width}}  {_state(variable)}")


def _state(variable: Mapping[str, Any]) -> str:
    if variable["set"]:
        return "is set (secret)" if variable["secret"] else f"= {variable['value']}"
    secret = " (secret)" if variable["secret"] else ""
    return f"not set{secret}" if variable["default"] is None else f"not set{secret}, counts as {variable['default']}"


def _order(plugin: Mapping[str, Any]) -> Iterator[str]:
    for hook, names in plugin["asked"].items():
        if len(names) > 1:
            order = ", ".join(f"[{name}]" if name == plugin["name"] else name for name in names)
            yield _line("asked", f"{hook}: {order}")
