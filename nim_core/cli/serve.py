"""The command ``nim-serve``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

__all__ = ["NAME", "ServeCommand", "nim_serve"]

NAME = "nim-serve"

_HELP: Final = frozenset({"-h", "--help"})

Words = typer.Argument(hidden=True)
Model = typer.Option(
    "--model", metavar="MODEL", show_default=False, help="As the word MODEL, for those who write it so."
)
Host = typer.Option("--host", metavar="ADDRESS", show_default=False, help="Where to listen. [default: everywhere]")
Port = typer.Option(
    "--port", metavar="N", show_default=False, help="Port of clients. [default: NIM_SERVER_PORT, or 8000]"
)
DryRun = typer.Option(
    "--dry-run", help="Print the profile, the resolved configuration and the engine's arguments; start nothing."
)


class ServeCommand(TyperCommand):
    """A command that takes few words for itself, spelled in full, and leaves all others to the engine."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command's own options wherever they stand, and hand on the rest as it is."""
        if not _HELP.isdisjoint(args):
            return super().parse_args(ctx, ["--help"])
        params: list[Any] = [param for param in self.get_params(ctx) if param.param_type_name == "option"]
        switches = {name for param in params if param.is_flag for name in param.opts}
        valued = {name for param in params for name in param.opts} - switches
        own, rest = _split(args, switches, valued)
        if own and own[-1] in valued and args[-1] == own[-1]:
            ctx.fail(f"option {own[-1]} needs a value")
        return super().parse_args(ctx, [*own, "--", *rest])

    def collect_usage_pieces(self, _ctx: Any) -> list[str]:
        """Return what the usage line has after the name."""
        return ["[OPTIONS]", "[MODEL]", "[ENGINE ARGUMENT ...]"]


def _split(args: Sequence[str], switches: set[str], valued: set[str]) -> tuple[list[str], list[str]]:
    """Return the command's own options, each with its value, and all other words."""
    words, own, rest = list(args), list[str](), list[str]()
    while words:
        word = words.pop(0)
        if word in switches or word.partition("=")[0] in valued:
            own.append(word)
            own += [words.pop(0)] if word in valued and words else []
        else:
            rest.append(word)
    return own, rest


def nim_serve(
    context: typer.Context,
    *,
    words: Annotated[list[str] | None, Words] = None,
    model: Annotated[str | None, Model] = None,
    host: Annotated[str | None, Host] = None,
    port: Annotated[str | None, Port] = None,
    dry_run: Annotated[bool, DryRun] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print it as JSON.")] = False,
) -> None:
    """
    Serve a model: choose a profile, download what is missing, start the engine, and answer clients.

    MODEL is a model URI or the absolute path of a folder, and wins over NIM_MODEL_PATH; without either, a profile of
    the manifest is served. Every other word that is no option below is an argument of the engine, checked before
    anything is downloaded.
    """
    if as_json and not dry_run:
        context.fail("--json needs --dry-run")
    rest = list(words or ())
    if rest and not rest[0].startswith("-"):
        model = rest.pop(0)

    context.obj.start_logging()
    from nim_core.cli.serve_run import serve
    from nim_core.cli.serving import Wish

    wish = Wish(words=tuple(rest), model=model, host=host, port=port, dry_run=dry_run, as_json=as_json)
    code = serve(wish, context.obj)
    if code:
        raise typer.Exit(code)
