"""What is shown of a launch: the resolved configuration, the command line of the engine, where values came from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nim_core.cli.serving import Launch
from nim_core.profiles.names import short_name
from nim_core.types import Argument, ArgumentValue, LaunchPlan, Option, Secret

__all__ = ["command_line", "launch_as_json", "launch_as_text"]

_MASK: Final = "***"


def launch_as_text(launch: Launch) -> str:
    """
    Return a launch as ``nim-serve --dry-run`` prints it.

    The first three parts are those of NIM LLM 2.0.12 as public harnesses read them; the others are ours.
    """
    profile, plan = launch.selection.profile, launch.plan
    parts = [
        f"Selected profile: {profile.id} ({short_name(profile.tags)})",
        _headed("Resolved Configuration (JSON)", json.dumps(_configuration(launch), indent=2, ensure_ascii=False)),
        _headed("Backend Arguments", _continued(plan)),
        _headed("Where Values Came From", "\n".join(_origins(launch))),
    ]
    if plan.environ:
        shown = (f"  {name}={_MASK if isinstance(it, Secret) else it}" for name, it in sorted(plan.environ.items()))
        parts.append(_headed("Backend Environment", "\n".join(shown)))
    return "\n\n".join(parts)


def launch_as_json(launch: Launch) -> Mapping[str, Any]:
    """Return a launch as ``nim-serve --dry-run --json`` prints it."""
    profile, plan = launch.selection.profile, launch.plan
    origins = {
        name: {"layer": argument.layer.name.lower(), "origin": argument.origin}
        for name, argument in _arguments(launch).items()
    }
    return {
        "profile": {"id": profile.id, "name": short_name(profile.tags), "tags": dict(profile.tags)},
        "backend": launch.selection.chosen.spec.name,
        "workspace": str(launch.request.workspace),
        "served_names": list(plan.served_names or launch.request.served_names),
        "configuration": _configuration(launch),
        "origins": origins,
        "argv": list(plan.argv),
        "environment": {name: _MASK if isinstance(it, Secret) else it for name, it in plan.environ.items()},
    }


def command_line(plan: LaunchPlan) -> str:
    """Return the engine's command line in one line, its program by name alone."""
    program, *words = plan.argv
    return shlex.join([Path(program).name, *words])


def _arguments(launch: Launch) -> Mapping[str, Argument]:
    return launch.request.arguments


def _headed(title: str, body: str) -> str:
    return f"{title}\n{'-' * len(title)}\n{body}"


def _continued(plan: LaunchPlan) -> str:
    """Return a command line with one argument, and its values, a line."""
    program, *words = plan.argv
    lines = [[Path(program).name]]
    for word in words:
        if word.startswith("--"):
            lines.append([word])
        else:
            lines[-1].append(word)
    return " \\\n".join("  " * (1 if number == 0 else 2) + shlex.join(line) for number, line in enumerate(lines))


def _origins(launch: Launch) -> Iterator[str]:
    secret = {option.name for option in launch.selection.chosen.backend.options() if option.secret}
    rows = [
        (f"--{argument.name}", _MASK if argument.name in secret else _shown(argument.value), argument.origin)
        for argument in _arguments(launch).values()
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for name, value, origin in rows:
        yield f"  {name:{widths[0]}}  {value:{min(widths[1], 40)}}  {origin}"


def _shown(value: ArgumentValue) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return value
    return " ".join(value) if isinstance(value, tuple) else json.dumps(value, ensure_ascii=False)


def _configuration(launch: Launch) -> Mapping[str, Any]:
    """Return the arguments by name, numbers as numbers."""
    kinds = {option.name: option for option in launch.selection.chosen.backend.options()}
    return {name: _plain(argument.value, kinds.get(name)) for name, argument in _arguments(launch).items()}


def _plain(value: ArgumentValue, option: Option | None) -> Any:
    if option is not None and option.secret:
        return _MASK
    if isinstance(value, str) and option is not None and option.kind in {"integer", "number"}:
        return json.loads(value) if _is_json_number(value) else value
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _is_json_number(text: str) -> bool:
    try:
        return isinstance(json.loads(text), int | float)
    except ValueError:
        return False
