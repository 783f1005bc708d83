"""The command ``nim-serve-ray``."""

from __future__ import annotations

from typing import Annotated

import typer

from nim_core.cli.serve import DryRun, Host, Model, Words

__all__ = ["NAME", "nim_serve_ray"]

NAME = "nim-serve-ray"

Head = typer.Option("--head", help="Be the leader: start the head of a Ray cluster, and serve.")
HeadAddress = typer.Option(
    "--head-address", metavar="HOST:PORT", show_default=False, help="Be a worker: join the head that listens there."
)
Port = typer.Option("--port", metavar="N", show_default=False, help="With --head: port of the head. [default: 6379]")


def nim_serve_ray(
    context: typer.Context,
    *,
    words: Annotated[list[str] | None, Words] = None,
    head: Annotated[bool, Head] = False,
    head_address: Annotated[str | None, HeadAddress] = None,
    port: Annotated[str | None, Port] = None,
    model: Annotated[str | None, Model] = None,
    host: Annotated[str | None, Host] = None,
    dry_run: Annotated[bool, DryRun] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print it as JSON.")] = False,
) -> None:
    """
    Serve a model on several machines, brought together by Ray.

    One machine is the leader (--head): it does all that nim-serve does, waits for NIM_NUM_COMPUTE_NODES nodes, itself
    included, has each of them get the model, and starts the engine. The others join it (--head-address) and stay until
    it ends. MODEL and all words that are no option below are read as by nim-serve, on the leader.
    """
    if head == (head_address is not None):
        context.fail("one of --head and --head-address is needed")
    if port is not None and not head:
        context.fail("--port needs --head")
    if as_json and not dry_run:
        context.fail("--json needs --dry-run")
    rest = list(words or ())
    context.obj.start_logging()
    from nim_core.cli.serve_ray_run import lead, work

    if head_address is not None:
        work(head_address, rest, context.obj)
        return
    from nim_core.cli.serving import Wish

    if rest and not rest[0].startswith("-"):
        model = rest.pop(0)
    code = lead(Wish(words=tuple(rest), model=model, host=host, dry_run=dry_run, as_json=as_json), port, context.obj)
    if code:
        raise typer.Exit(code)
