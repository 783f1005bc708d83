"""The executables: ``nim-llm`` with its commands, and ``download-to-cache`` by its own name."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer
from typer.core import TyperGroup

from nim_core.cli import download_to_cache as download_command
from nim_core.cli import mirror as mirror_command
from nim_core.cli import plugins as plugins_commands
from nim_core.cli.argv import ArgparseCommand, PlainGroup
from nim_core.cli.errors import Command, Terminated, run
from nim_core.cli.session import Session, core_version
from nim_core.settings import Settings

__all__ = ["command", "download_to_cache", "main"]

_HELP_NAMES: Final = {"help_option_names": ["-h", "--help"]}


def _version(value: bool) -> None:
    if value:
        typer.echo(f"nim-llm {core_version()}")
        raise typer.Exit


def _root(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 -- acts by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Get a model from wherever it lives to a serving engine: verified, resumable, from any source."""
    _help_alone(context)


def _plugins(context: typer.Context) -> None:
    """Show what is installed."""
    _help_alone(context)


def _help_alone(context: typer.Context) -> None:
    """Show help when no command was named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _plain_typer(epilog: str | None = None) -> typer.Typer:
    """Return a group whose help is plain text: it reads well in a pipe and needs no rich."""
    return typer.Typer(
        cls=PlainGroup, rich_markup_mode=None, add_completion=False, context_settings=_HELP_NAMES, epilog=epilog
    )


def _make_app() -> typer.Typer:
    app = _plain_typer("Exit codes and environment variables: docs/reference/ in the source.")
    app.callback(invoke_without_command=True)(_root)
    app.command(download_command.NAME, cls=ArgparseCommand, context_settings=_HELP_NAMES)(
        download_command.download_to_cache
    )
    app.command(download_command.PLAN, cls=ArgparseCommand, context_settings=_HELP_NAMES)(download_command.plan)
    app.command(mirror_command.NAME, cls=ArgparseCommand, context_settings=_HELP_NAMES)(mirror_command.mirror)
    plugins = _plain_typer()
    plugins.callback(invoke_without_command=True)(_plugins)
    plugins.command("list", cls=ArgparseCommand)(plugins_commands.list_plugins)
    app.add_typer(plugins, name="plugins")
    return app


def command(name: str | None = None) -> Command:
    """Return one of the commands as it runs by its own name, or all of them as ``nim-llm`` has them."""
    root = typer.main.get_command(_make_app())
    if name is None or not isinstance(root, TyperGroup):
        return root
    return root.commands[name]


def main() -> NoReturn:
    """Run ``nim-llm``."""
    _run(command(), "nim-llm")


def download_to_cache() -> NoReturn:
    """Run ``download-to-cache`` by its own name."""
    _run(command(download_command.NAME), download_command.NAME)


def _run(chosen: Command, name: str) -> NoReturn:
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(chosen, sys.argv[1:], name, Session(Settings.from_process())))


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Let SIGTERM end a command as an interrupt does; as the first process of a container it would be ignored."""
    raise Terminated
