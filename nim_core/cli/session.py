"""What every command needs of the process it runs in: settings, the way to stderr, what must not be shown."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Final

from attrs import evolve

from nim_core.cli.logging import LogStyle, Stderr, configure
from nim_core.cli.output import keep_stdout
from nim_core.cli.redact import Redactor, secret_values
from nim_core.errors import ConfigError
from nim_core.settings import Settings
from nim_core.types import EnvVar, Variables

if TYPE_CHECKING:
    from nim_core.registry import Registry

__all__ = ["TERMINAL_VARIABLES", "Session", "core_version"]

TERMINAL_VARIABLES: Final = (
    EnvVar(name="NO_COLOR", summary="any value: no colours on a terminal"),
    EnvVar(name="TERM", summary="kind of terminal; dumb: no colours and no live progress"),
)


def core_version() -> str:
    """Return the version of the installed nim-core."""
    return metadata.version("nim-core")


class Session:
    """
    One run of a command.

    Args:
        settings: The environment.
        owns_process: Whether the process is this command alone; then plugins do not get at its stdout.

    Attributes:
        stderr: Where log lines and errors go.
        redactor: Applied to all of them.
    """

    def __init__(self, settings: Settings, *, owns_process: bool = False) -> None:
        self.settings = settings
        self._owns_process = owns_process
        self.stderr = Stderr()
        self._secrets = secret_values(settings.variables)
        self.redactor = Redactor(self._secrets)
        self._style = LogStyle()

    def use(self, values: Mapping[str, str]) -> None:
        """Let values that the command line gives stand for variables, before plugins are loaded."""
        self.settings = self.settings.having(values)

    def start_logging(self, *, level: str | None = None) -> LogStyle:
        """
        Send log lines to stderr from now on.

        Args:
            level: Instead of what the environment says.

        Raises:
            ConfigError: A logging variable cannot be read; named in the message.
        """
        style = LogStyle.from_variables(self.settings.variables)
        self._style = style if level is None else evolve(style, level=level)
        configure(self._style, self.redactor, self.stderr)
        return self._style

    def load_registry(self) -> Registry:
        """
        Return the installed plugins.

        From now on the secrets of their variables are not shown either, and stdout is for data alone.

        Raises:
            PluginError: As :func:`nim_core.registry.load_registry`.
        """
        from nim_core.registry import load_registry

        if self._owns_process:
            keep_stdout()
        registry = load_registry(self.settings)
        declared = [variable for plugin in registry.plugins for variable in plugin.variables]
        self.hide(secret_values(self.settings.read(declared)))
        return registry

    def hide(self, secrets: Iterable[str]) -> None:
        """Do not show these texts, from now on."""
        self._secrets |= set(secrets)
        self.redactor = Redactor(self._secrets)
        configure(self._style, self.redactor, self.stderr)

    @property
    def log_style(self) -> LogStyle:
        """How errors are written: as logging is, or plainly when the variables for that are wrong themselves."""
        try:
            return LogStyle.from_variables(self.settings.variables)
        except ConfigError:
            return LogStyle()

    @property
    def on_terminal(self) -> bool:
        """Whether a person reads stderr."""
        return sys.stderr is not None and sys.stderr.isatty()

    @property
    def moves_cursor(self) -> bool:
        """Whether stderr is a terminal that lines can be redrawn on."""
        return self.on_terminal and self._terminal.text("TERM") not in {None, "dumb"}

    @property
    def colours(self) -> bool:
        """Whether stderr is a terminal that wants colours."""
        return self.moves_cursor and not self._terminal.is_set("NO_COLOR")

    @property
    def _terminal(self) -> Variables:
        return self.settings.read(TERMINAL_VARIABLES)
