"""
Load one plugin in a process of its own, and tell what it did: ``python -m`` this module, with the plugin's name.

Run by :mod:`~nim_core.testing.conformance.hygiene`; the last line of standard error is the answer, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from typing import Any, Final

import packaging.requirements  # noqa: F401 - core's own, needed for any plugin

from nim_core.hookspecs import ENTRY_POINT_GROUP
from nim_core.registry.discovery import discover
from nim_core.registry.loading import load_plugins, make_manager

_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_TALK: Final = frozenset(
    {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
)
_START: Final = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn"})


class Watch:
    """What was done while it was on."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on:
            self.seen += _told(event, arguments)


def _told(event: str, arguments: tuple[Any, ...]) -> Iterator[str]:
    if event in _TALK:
        yield f"network: {event} {arguments[1:]!r}"
    elif event in _START:
        yield f"process: {event} {arguments[:2]!r}"
    elif event == "open" and (arguments[2] or 0) & _WRITING and "__pycache__" not in str(arguments[0]):
        yield f"write: {arguments[0]}"


def _found(name: str) -> list[Distribution]:
    """Return the distributions that have an entry point of this name in the plugins' group."""
    return [
        distribution
        for distribution in distributions()
        if any(it.group == ENTRY_POINT_GROUP and it.name == name for it in distribution.entry_points)
    ]


def main(name: str) -> None:
    """Load the plugin ``name`` alone and print what happened."""
    found = _found(name)
    load_plugins(make_manager(), (), frozenset())
    before = set(sys.modules)
    watch = Watch()
    watch.on = True
    (plugin,) = load_plugins(make_manager(), discover(found), frozenset())
    watch.on = False
    new = sorted({module.partition(".")[0] for module in set(sys.modules) - before})
    report = {
        "reason": plugin.reason,
        "modules": [module for module in new if module not in sys.stdlib_module_names],
        "actions": watch.seen,
        "effects": {it.kind: it.detail for it in plugin.side_effects},
    }
    print(json.dumps(report), file=sys.stderr)  # noqa: T201 - the answer


if __name__ == "__main__":
    main(sys.argv[1])
