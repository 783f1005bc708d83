"""From the words of ``nim-serve`` to a model that is served, or shown to be."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from attrs import evolve, frozen

from nim_core.cli.launching import launch_as_json, launch_as_text
from nim_core.cli.output import write_data
from nim_core.cli.serving import Launch, Selection, Wish, Workplace, choose, plan_launch
from nim_core.cli.session import Session
from nim_core.errors import ConfigError
from nim_core.serving.nodes import read_nodes
from nim_core.serving.settings import read_settings
from nim_core.serving.state import ServingState

__all__ = ["serve"]

_TAKES_VALUE = frozenset({"--host", "--port", "--model"})
_SWITCHES = frozenset({"--dry-run", "--json"})


@frozen(kw_only=True)
class _Own:
    """What nim-serve takes for itself, and the words that are the engine's."""

    words: tuple[str, ...]
    values: dict[str, str]
    switches: frozenset[str]


def serve(words: Sequence[str], session: Session) -> None:
    """
    Serve what ``words`` and the environment name, until the engine ends or a signal says so.

    Raises:
        NimError: In its most fitting subclass.
    """
    own = _own(words)
    if "--json" in own.switches and "--dry-run" not in own.switches:
        raise ConfigError("--json needs --dry-run")
    if "--model" in own.values:
        session.use({"NIM_MODEL_PATH": own.values["--model"], "NIM_MANIFEST_PATH": ""})
    if "--port" in own.values:
        session.use({"NIM_SERVER_PORT": own.values["--port"]})
    session.start_logging()
    wish = Wish(words=own.words, host=own.values.get("--host"), dry_run="--dry-run" in own.switches)
    serving = read_settings(session.settings)
    nodes = read_nodes(session.settings)
    state = ServingState()
    if wish.dry_run:
        place = Workplace(
            session=session, serving=serving, registry=session.load_registry(), state=state, wish=wish, nodes=nodes
        )
        _show(choose(place), place, as_json="--json" in own.switches)
        return
    raise NotImplementedError


def _own(words: Sequence[str]) -> _Own:
    """Take out what is nim-serve's own; the first of the other words is the model where it is no option."""
    rest, kept = list(words), list[str]()
    values: dict[str, str] = {}
    switches: set[str] = set()
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in _SWITCHES:
            switches.add(word)
        elif name in _TAKES_VALUE:
            if not equals and not rest:
                raise ConfigError(f"command line: argument {name} needs a value")
            values[name] = value if equals else rest.pop(0)
        else:
            kept.append(word)
    if kept and not kept[0].startswith("-"):
        values["--model"] = kept.pop(0)
    return _Own(words=tuple(kept), values=values, switches=frozenset(switches))


def _show(selection: Selection, place: Workplace, *, as_json: bool) -> None:
    request = evolve(selection.chosen.request, workspace=selection.chosen.request.workspace)
    launch = Launch(selection=selection, request=request, plan=plan_launch(selection, request, place.session))
    write_data(json.dumps(launch_as_json(launch), indent=2) if as_json else launch_as_text(launch))


_ = os
