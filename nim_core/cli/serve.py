"""The command ``nim-serve``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

__all__ = ["NAME", "ServeCommand", "nim_serve"]

NAME = "nim-serve"

_DRY_RUN = "--dry-run"
_JSON = "--json"
_HOST = "--host"
_PORT = "--port"
_MODEL = "--model"
_HELP = ("-h", "--help")

Words = typer.Argument(metavar="[MODEL] [ENGINE ARGUMENT ...]", show_default=False, help="See above.")


class ServeCommand(TyperCommand):
    """A command that takes few words for itself, spelled in full, and leaves all others to the engine."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Hand every word to the command behind ``--``, so that none is read as an option."""
        if any(word in _HELP for word in args):
            return super().parse_args(ctx, ["--help"])
        return super().parse_args(ctx, ["--", *args])


def nim_serve(context: typer.Context, *, words: Annotated[list[str] | None, Words] = None) -> None:
    """
    Serve a model: choose a profile, download what is missing, start the engine, and answer clients.

    MODEL, if it comes first, is a model URI or the absolute path of a folder, and wins over NIM_MODEL_PATH. Every other
    word is an argument of the engine, checked before anything is downloaded. These are taken by nim-serve itself:

    --dry-run: print the profile, the resolved configuration and the engine's arguments, and start nothing.

    --json: with --dry-run, print them as JSON.

    --host ADDRESS, --port N: where clients are served. [default: every address, NIM_SERVER_PORT or 8000]
    """
    from nim_core.cli.serve_run import serve

    code = serve(list(words or ()), context.obj)
    if code:
        raise typer.Exit(code)
