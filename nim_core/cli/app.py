"""The executables: ``nim-llm`` with its commands, and those of them that have a name of their own."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from nim_core.cli import create_model_store as store_command
from nim_core.cli import doctor as doctor_command
from nim_core.cli import download_model as model_command
from nim_core.cli import download_to_cache as download_command
from nim_core.cli import hardware as hardware_command
from nim_core.cli import huggingface_cli as hub_commands
from nim_core.cli import install_commands as install_command
from nim_core.cli import list_model_profiles as list_command
from nim_core.cli import mirror as mirror_command
from nim_core.cli import plugins as plugins_commands
from nim_core.cli import plugins_check as check_command
from nim_core.cli import plugins_new as new_command
from nim_core.cli import plugins_show as show_command
from nim_core.cli import serve as serve_command
from nim_core.cli import serve_ray as serve_ray_command
from nim_core.cli.argv import ArgparseCommand, PlainGroup
from nim_core.cli.errors import Command, Terminated, run
from nim_core.cli.session import Session, core_version
from nim_core.settings import Settings

__all__ = [
    "by_name",
    "command",
    "create_model_store",
    "download_model",
    "download_to_cache",
    "list_model_profiles",
    "main",
    "nim_serve",
    "nim_serve_ray",
]

_NOT_BY_NAME: Final = frozenset({"doctor", "hardware", "plugins", download_command.PLAN, install_command.NAME})
"""Commands that are only had beneath ``nim-llm``."""

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


def _hub(context: typer.Context) -> None:
    """Answer for the Hub's own command where jobs call it: downloads of models, nothing else."""
    _help_alone(context)


def _install_commands(folder: Annotated[Path, install_command.Folder]) -> None:
    """
    Write every command into a folder, to be put first on PATH in an image.

    Commands whose names other packages use, such as huggingface-cli, are had in this way alone. Each file starts the
    Python that runs this, whatever PATH says. Files that are not ours are not replaced. Prints the paths.
    """
    root: Any = command()
    install_command.install_commands(folder, sorted(set(root.commands) - _NOT_BY_NAME))


def _plain_typer(epilog: str | None = None, cls: type[PlainGroup] = PlainGroup) -> typer.Typer:
    """Return a group whose help is plain text: it reads well in a pipe and needs no rich."""
    return typer.Typer(
        cls=cls, rich_markup_mode=None, add_completion=False, context_settings=_HELP_NAMES, epilog=epilog
    )


def _make_app() -> typer.Typer:
    app = _plain_typer("Exit codes and environment variables: docs/reference/ in the source.")
    app.callback(invoke_without_command=True)(_root)
    for name, function in (
        (download_command.NAME, download_command.download_to_cache),
        (download_command.PLAN, download_command.plan),
        (model_command.NAME, model_command.download_model),
        (store_command.NAME, store_command.create_model_store),
        (list_command.NAME, list_command.list_model_profiles),
        (mirror_command.NAME, mirror_command.mirror),
        (hardware_command.NAME, hardware_command.show_hardware),
        (doctor_command.NAME, doctor_command.doctor),
        (install_command.NAME, _install_commands),
    ):
        app.command(name, cls=ArgparseCommand, context_settings=_HELP_NAMES)(function)
    app.command(serve_command.NAME, cls=serve_command.ServeCommand, context_settings=_HELP_NAMES)(
        serve_command.nim_serve
    )
    app.command(serve_ray_command.NAME, cls=serve_command.ServeCommand, context_settings=_HELP_NAMES)(
        serve_ray_command.nim_serve_ray
    )
    hub = _plain_typer(cls=hub_commands.HubGroup)
    hub.callback(invoke_without_command=True)(_hub)
    hub.command(hub_commands.DOWNLOAD, cls=ArgparseCommand)(hub_commands.download)
    app.add_typer(hub, name=hub_commands.NAME)
    plugins = _plain_typer()
    plugins.callback(invoke_without_command=True)(_plugins)
    plugins.command("list", cls=ArgparseCommand)(plugins_commands.list_plugins)
    plugins.command("show", cls=ArgparseCommand)(show_command.show_plugin)
    plugins.command("check", cls=ArgparseCommand)(check_command.check_plugin)
    plugins.command("new", cls=ArgparseCommand)(new_command.new_plugin)
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


def list_model_profiles() -> NoReturn:
    """Run ``list-model-profiles`` by its own name."""
    _run(command(list_command.NAME), list_command.NAME)


def download_model() -> NoReturn:
    """Run ``download-model`` by its own name."""
    _run(command(model_command.NAME), model_command.NAME)


def create_model_store() -> NoReturn:
    """Run ``create-model-store`` by its own name."""
    _run(command(store_command.NAME), store_command.NAME)


def nim_serve() -> NoReturn:
    """Run ``nim-serve`` by its own name."""
    _run(command(serve_command.NAME), serve_command.NAME)


def nim_serve_ray() -> NoReturn:
    """Run ``nim-serve-ray`` by its own name."""
    _run(command(serve_ray_command.NAME), serve_ray_command.NAME)


def by_name() -> NoReturn:
    """Run the command that the first argument names; how files made by ``install-commands`` start."""
    name = sys.argv.pop(1)
    _run(command(name), name)


def _run(chosen: Command, name: str) -> NoReturn:
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(chosen, sys.argv[1:], name, Session(Settings.from_process(), owns_process=True)))


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Let SIGTERM end a command as an interrupt does; as the first process of a container it would be ignored."""
    raise Terminated
