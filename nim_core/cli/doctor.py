"""The command ``doctor``: whether this machine is set up right, as far as can be told without a model."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer
from attrs import frozen

from nim_core.cli.logging import printable
from nim_core.cli.output import write_data
from nim_core.cli.plugins import load_all
from nim_core.cli.units import size
from nim_core.errors import ConfigError, NimError
from nim_core.types import CheckResult, CheckSpec

if TYPE_CHECKING:
    from nim_core.cli.session import Session
    from nim_core.registry import PluginInfo
    from nim_core.settings import Settings

__all__ = ["CHECK_SECONDS", "NAME", "Checked", "doctor"]

NAME: Final = "doctor"
CHECK_SECONDS: Final = 30.0
"""How long one check of a plugin may take."""


@frozen(kw_only=True)
class Checked:
    """One line of what is told: ``of`` is ``nim-core`` or the plugin whose check it is."""

    of: str
    check: str
    result: CheckResult


def doctor(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """
    Check the settings, the cache and the plugins, and run the checks that plugins bring.

    Nothing is downloaded. Checks of plugins may ask their servers. Ends with 10 when a check fails.
    """
    session: Session = context.obj
    registry = load_all(session)
    found = list(_all(session.settings, registry.plugins))
    lines = [session.redactor.event(_record(each)) for each in found]
    write_data(json.dumps({"checks": lines}, indent=2) if as_json else "\n".join(map(_line, lines)))
    failed = sum(each.result.status == "failed" for each in found)
    if failed:
        raise ConfigError(f"{failed} of {len(found)} checks failed", hint="what helps is said with each of them")


def _all(settings: Settings, plugins: Sequence[PluginInfo]) -> Iterator[Checked]:
    for name, check in (("network", _network), ("cache", _cache), ("hardware", _hardware)):
        yield Checked(of="nim-core", check=name, result=_judged(partial(check, settings)))
    for plugin in plugins:
        yield Checked(of=plugin.name, check="loaded", result=_loaded(plugin))
        for spec in plugin.checks:
            yield Checked(of=plugin.name, check=spec.name, result=_run(plugin, spec, settings))


def _network(settings: Settings) -> CheckResult:
    from nim_core.transfer.network import network_config

    config = network_config(settings)
    proxies = {scheme: config.proxy_for(f"{scheme}://host.invalid") for scheme in ("https", "http")}
    through = ", ".join(f"{scheme} through a proxy" for scheme, proxy in proxies.items() if proxy) or "no proxy"
    trusted = f"trusted certificates from {config.trust.origin}: {config.ca_file or config.ca_path}"
    return CheckResult(status="ok", message=f"{through}; {trusted}")


def _cache(settings: Settings) -> CheckResult:
    from nim_core.cache.layout import Layout
    from nim_core.cache.space import probe

    path = settings.cache_path
    probe(Layout(path), settings.cache_probe_seconds)
    return CheckResult(status="ok", message=f"{path} can be written; {size(shutil.disk_usage(path).free)} are free")


def _hardware(settings: Settings) -> CheckResult:
    from nim_core.profiles.judging import find_hardware

    found = find_hardware(settings)
    if not found.gpus:
        return CheckResult(status="not-applicable", message=f"no GPU ({found.origin})")
    kinds = ", ".join(sorted({gpu.name for gpu in found.gpus}))
    return CheckResult(status="ok", message=f"{len(found.gpus)} GPUs ({found.origin}): {kinds}")


def _loaded(plugin: PluginInfo) -> CheckResult:
    if plugin.status == "active":
        return CheckResult(status="ok", message=f"{plugin.distribution} {plugin.version}")
    reason = plugin.reason or plugin.status
    if plugin.status == "disabled":
        return CheckResult(status="not-applicable", message=reason)
    return CheckResult(status="failed", message=reason, hint=plugin.hint)


def _run(plugin: PluginInfo, spec: CheckSpec, settings: Settings) -> CheckResult:
    """Run the check of a plugin on a thread, which is left alone when it does not come back."""
    from nim_core.registry.guard import attributed, wrong_answer

    variables = settings.read(plugin.variables)
    results: list[CheckResult] = []

    def ask() -> CheckResult:
        with attributed(plugin, f"check {spec.name}"):
            answer = spec.run(variables)
        if not isinstance(answer, CheckResult):
            raise wrong_answer(plugin, f"check {spec.name}", answer, "a CheckResult")
        return answer

    thread = threading.Thread(target=lambda: results.append(_judged(ask)), name=f"check {spec.name}", daemon=True)
    thread.start()
    thread.join(CHECK_SECONDS)
    late = CheckResult(status="failed", message=f"no answer in {CHECK_SECONDS:g} s", hint="report it to its authors")
    return results[0] if results else late


def _judged(check: Callable[[], CheckResult]) -> CheckResult:
    try:
        return check()
    except NimError as error:
        return CheckResult(status="failed", message=error.message, hint=error.hint)


def _record(checked: Checked) -> dict[str, str | None]:
    result = checked.result
    told = {"status": result.status, "message": result.message, "hint": result.hint}
    return {"of": checked.of, "check": checked.check, **told}


def _line(record: dict[str, str | None]) -> str:
    hint = f"; hint: {record['hint']}" if record["hint"] else ""
    name = f"{record['of']}: {record['check']}"
    return printable(f"{record['status']:14}  {name:28}  {record['message']}{hint}")
