"""The Hub's own command as jobs call it: ``huggingface-cli download REPO [FILE ...] --local-dir DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nim_core.cli.argv import PlainGroup
from nim_core.cli.output import write_data

__all__ = ["DOWNLOAD", "NAME", "HubGroup", "download"]

NAME = "huggingface-cli"
DOWNLOAD = "download"

Repo = typer.Argument(metavar="REPO", show_default=False, help="Model or dataset, such as org/name.")
Files = typer.Argument(metavar="[FILE ...]", show_default=False, help="Files of it. [default: all]")
LocalDir = typer.Option(
    metavar="DIR", show_default=False, help="Folder for the files. [default: they stay in the cache alone]"
)
RepoType = typer.Option(metavar="TYPE", help="Kind of repository: model or dataset.")
Revision = typer.Option(metavar="NAME", show_default=False, help="Branch, tag or commit. [default: main]")
Token = typer.Option(metavar="TOKEN", show_default=False, help="Token to sign in with. [env: HF_TOKEN]")
CacheDir = typer.Option(metavar="DIR", show_default=False, help="Folder of the Hub's cache. [env: HF_HUB_CACHE]")
Include = typer.Option(metavar="[PATTERN ...]", show_default=False, help="Only files that fit one of these patterns.")
Exclude = typer.Option(metavar="[PATTERN ...]", show_default=False, help="No files that fit one of these patterns.")
MaxWorkers = typer.Option(metavar="N", help="Connections at once, at most.")
SymLinks = typer.Option(metavar="VALUE", hidden=True, help="Ignored.")


def download(
    context: typer.Context,
    repo: Annotated[str, Repo],
    files: Annotated[list[str] | None, Files] = None,
    *,
    local_dir: Annotated[Path | None, LocalDir] = None,
    repo_type: Annotated[str, RepoType] = "model",
    revision: Annotated[str | None, Revision] = None,
    token: Annotated[str | None, Token] = None,
    cache_dir: Annotated[str | None, CacheDir] = None,
    include: Annotated[list[str] | None, Include] = None,
    exclude: Annotated[list[str] | None, Exclude] = None,
    force_download: Annotated[bool, typer.Option("--force-download", help="Download again what is there.")] = False,
    max_workers: Annotated[str, MaxWorkers] = "32",
    quiet: Annotated[bool, typer.Option("--quiet", help="Log what goes wrong only.")] = False,
    resume_download: Annotated[bool, typer.Option("--resume-download", hidden=True)] = False,  # noqa: ARG001 - always
    local_dir_use_symlinks: Annotated[str | None, SymLinks] = None,  # noqa: ARG001 - there are none
) -> None:
    """
    Download a model or dataset of the Hub into the cache, and its files into a folder.

    Prints the path of the folder: that of --local-dir, else the snapshot in the cache.
    """
    if files and (include or exclude):
        context.fail("files cannot be combined with --include or --exclude")
    if repo_type not in {"model", "dataset"}:
        context.fail(f"only models and datasets are downloaded: --repo-type {repo_type}")

    from nim_core.cli.hub import HubRequest, download_from_hub
    from nim_core.cli.units import parse_count

    request = HubRequest(
        repo=repo,
        dataset=repo_type == "dataset",
        files=tuple(files or ()),
        revision=revision,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        force=force_download,
        max_connections=parse_count(max_workers),
    )
    given = {"HF_TOKEN": token, "HF_HUB_CACHE": cache_dir, "NIM_LOG_LEVEL": "WARNING" if quiet else None}
    context.obj.use({name: value for name, value in given.items() if value})
    write_data(str(download_from_hub(request, local_dir, context.obj)))


class HubGroup(PlainGroup):
    """Says of the Hub's other commands where they are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that ``args`` begin with."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(
                f"no such command here: {args[0]!r}. This huggingface-cli is nim-llm's and only downloads; "
                "for anything else run hf of the package huggingface_hub, and to sign in set HF_TOKEN"
            )
        return super().resolve_command(ctx, args)
