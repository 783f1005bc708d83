"""
A machine that is nobody's: what is set and found where the tests run decides nothing; and one without a network.

Plugins are loaded once a process; each test has a registry of its own, as it has variables of its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NoReturn

import pluggy
import pytest

from nim_core.registry import PluginInfo, Registry
from nim_core.registry.discovery import discover, installed_distributions
from nim_core.registry.loading import load_plugins, make_manager
from nim_core.settings import Settings

__all__ = ["nobodys_machine", "registry_for", "silence"]

_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_ASKS: Final = ("getaddrinfo", "gethostbyname", "create_connection")


def nobodys_machine(info: PluginInfo, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Take the variables of a plugin, proxies and the home folder of who runs the tests away, as libraries see them."""
    declared = {variable.name for variable in info.variables}
    for name in list(os.environ):
        if name in declared or name.lower() in _PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))


def registry_for(settings: Settings) -> Registry:
    """Return the installed plugins, as a command finds them that runs with these settings."""
    plugins, manager = _installed()
    return Registry(settings, plugins, manager)


@lru_cache(maxsize=1)
def _installed() -> tuple[tuple[PluginInfo, ...], pluggy.PluginManager]:
    manager = make_manager()
    return load_plugins(manager, discover(installed_distributions()), frozenset()), manager


@contextmanager
def silence(monkeypatch: pytest.MonkeyPatch, who: str) -> Iterator[None]:
    """Fail the test when anybody is asked over a network meanwhile; ``who`` begins the sentence that says so."""

    def refuse(*_arguments: Any, **_options: Any) -> NoReturn:
        pytest.fail(f"{who} asks somebody over the network; do that when it is first used")

    with monkeypatch.context() as patch:
        for name in _ASKS:
            patch.setattr(socket, name, refuse)
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, refuse)
        yield
