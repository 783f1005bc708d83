"""What a plugin does while core asks it: connections, processes, output and logs, all in this process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, Final, ParamSpec, TypeVar

import pluggy

from nim_core.registry import PluginInfo, Registry
from nim_core.registry.discovery import discover, installed_distributions
from nim_core.registry.loading import load_plugins, make_manager
from nim_core.settings import Settings
from nim_core.testing.conformance.relay import Relay
from nim_core.types import HttpObject, Location, ModelUri, RemoteFile, Source

__all__ = ["Watch", "WatchedRegistry"]

P = ParamSpec("P")
T = TypeVar("T")

_CONNECTING: Final = frozenset({"socket.connect", "socket.sendto"})
_STARTING: Final = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"})


class Watch:
    """
    What threads did while they were in a call of a source; one for the whole process, as audit hooks stay for ever.

    Attributes:
        connections: Host and port of each connection.
        commands: Each program that was started, as Python's audit event has it.
    """

    def __init__(self) -> None:
        self.connections: list[tuple[str, int]] = []
        self.commands: list[str] = []
        self._inside = threading.local()
        sys.addaudithook(self._hear)

    def clear(self) -> None:
        """Forget what was seen."""
        self.connections.clear()
        self.commands.clear()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Watch this thread."""
        before = getattr(self._inside, "yes", False)
        self._inside.yes = True
        try:
            yield
        finally:
            self._inside.yes = before

    def watched(self, call: Callable[P, T]) -> Callable[P, T]:
        """Return the same function, watched while it runs."""

        @wraps(call)
        def watched(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.inside():
                return call(*args, **kwargs)

        return watched

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CONNECTING and getattr(self._inside, "yes", False):
            address = arguments[-1]
            if isinstance(address, tuple) and len(address) >= 2:
                self.connections.append((str(address[0]), int(address[1])))
        elif event in _STARTING and getattr(self._inside, "yes", False):
            self.commands.append(repr(arguments))


class WatchedRegistry(Registry):
    """
    A registry whose sources are watched, and whose answers to ``locate`` the relay hears of.

    Plugins are looked for and loaded once per process; that takes longer than most tests.

    Args:
        settings: As for :func:`~nim_core.registry.load_registry`.
        relay: Hears of what is handed out.
        watch: Sees what the sources do.
    """

    def __init__(self, settings: Settings, relay: Relay, watch: Watch) -> None:
        plugins, manager = _loaded(settings.disabled_plugins)
        super().__init__(settings, plugins, manager)
        self._relay = relay
        self._watch = watch

    def open_source(self, scheme: str, http: Any) -> Source:
        """Make a source as the registry does."""
        with self._watch.inside():
            source = super().open_source(scheme, http)
        watched = {
            name: self._watch.watched(getattr(source, name))
            for name in ("list_files", "locate", "close", "cache_key", "file_name")
            if hasattr(source, name)
        }
        locate = watched["locate"]

        def heard(uri: ModelUri, file: RemoteFile) -> Location:
            location: Location = locate(uri, file)
            if isinstance(location, HttpObject):
                self._relay.handed_out(location.url.reveal(), file.path)
            return location

        vars(source).update(watched, locate=heard)
        return source


@cache
def _loaded(disabled: frozenset[str]) -> tuple[tuple[PluginInfo, ...], pluggy.PluginManager]:
    manager = make_manager()
    return load_plugins(manager, discover(installed_distributions()), disabled), manager
