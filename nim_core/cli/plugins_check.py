"""The command ``plugins check``: the kit's harmless tests, against a plugin as it is installed here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from attrs import asdict

from nim_core.cli.logging import printable
from nim_core.cli.output import write_data
from nim_core.cli.session import Session
from nim_core.errors import ConfigError, PluginError
from nim_core.registry import PluginInfo, Registry

__all__ = ["check_plugin"]

_MODULE: Final = "nim_core.testing.conformance.checking"
_SHOWN: Final = {"passed": "ok", "failed": "FAILED", "not-declared": "-"}
_OWN_LEVEL: Final = "own checks"


def check_plugin(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin, as plugins list names it.")],
    *,
    uri: Annotated[
        str | None,
        typer.Option(
            "--uri",
            metavar="URI",
            help="A model to list and read from, at the real service; without it nobody is asked.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long all tests together may take.")
    ] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON.")] = False,
) -> None:
    """
    Check an installed plugin with the tests of nim-core[testing] that write nothing.

    Then its own checks are run, where it brings some. Ends with 20 when one fails.
    """
    session: Session = context.obj
    session.start_logging(level="ERROR")
    registry = session.load_registry()
    plugin = _plugin(registry, name)
    if importlib.util.find_spec("pytest") is None:
        raise ConfigError("checks need pytest, which is not installed", hint='pip install "nim-core[testing]"')
    outcomes = _suite_outcomes(plugin.name, uri, seconds)
    outcomes += _own_outcomes(session, plugin)
    shown = [session.redactor.event(outcome) for outcome in outcomes]
    record = {"name": plugin.name, "version": plugin.version, "uri": uri and session.redactor.text(uri)}
    write_data(json.dumps({**record, "checks": shown}, indent=2) if as_json else _as_text(shown))
    failed = sum(outcome["outcome"] == "failed" for outcome in outcomes)
    if failed:
        raise PluginError(
            f"{failed} of {len(outcomes)} checks of {plugin.label} failed", hint="report it to its authors"
        )


def _plugin(registry: Registry, name: str) -> PluginInfo:
    for plugin in registry.plugins:
        if plugin.name == name:
            if plugin.error is not None:
                raise type(plugin.error)(f"{plugin.label} cannot be checked: {plugin.reason}", hint=plugin.hint)
            return plugin
    names = ", ".join(plugin.name for plugin in registry.plugins) or "none"
    raise ConfigError(f"no plugin is called: {name}", hint=f"installed are: {names}")


def _suite_outcomes(name: str, uri: str | None, seconds: float) -> list[dict[str, Any]]:
    """Run the kit's tests in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", _MODULE, str(answer), name, *([uri] if uri else [])]
        try:
            done = subprocess.run(  # noqa: S603 - our own module, by the Python that runs this
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise PluginError(
                f"checks of {name} did not end within {seconds:.0f} s", hint="give them longer with --timeout"
            ) from None
        if not answer.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise PluginError(f"checks of {name} ended with {done.returncode}: {last}")
        outcomes: list[dict[str, Any]] = json.loads(answer.read_text(encoding="utf-8"))
    return outcomes


def _own_outcomes(session: Session, plugin: PluginInfo) -> list[dict[str, Any]]:
    """Run the checks that the plugin itself brings."""
    variables = session.settings.read(plugin.variables)
    outcomes = []
    for check in plugin.checks:
        try:
            result = asdict(check.run(variables))
        except Exception as exc:  # noqa: BLE001 - whatever it raises is the outcome
            result = {"status": "failed", "message": f"{type(exc).__name__}: {exc}", "hint": None}
        outcome = {"ok": "passed", "warning": "passed", "not-applicable": "not-declared"}.get(
            result["status"], "failed"
        )
        reason = " - ".join(filter(None, (result["message"], result["hint"])))
        outcomes.append({"level": _OWN_LEVEL, "test": check.name, "outcome": outcome, "reason": reason})
    return outcomes


def _as_text(outcomes: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for level in dict.fromkeys(outcome["level"] for outcome in outcomes):
        lines.append(f"{level}:")
        for outcome in outcomes:
            if outcome["level"] == level:
                reason = f": {printable(outcome['reason'])}" if outcome["reason"] else ""
                lines.append(f"  {_SHOWN[outcome['outcome']]:6}  {printable(outcome['test'])}{reason}")
    return "\n".join(lines)
