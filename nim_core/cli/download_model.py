"""The command ``download-model``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nim_core.cli.download_to_cache import DryRun, ManifestFile, ModelCachePath, ModelUriText, UseCache, write_plan
from nim_core.cli.help import from_variable
from nim_core.cli.output import write_data

__all__ = ["NAME", "download_model"]

NAME = "download-model"

ProfileName = typer.Option(
    "-p",
    "--profile",
    metavar="PROFILE",
    show_default=False,
    help="Profile to download, by id or name. "
    + from_variable("NIM_MODEL_PROFILE", default="the best one for the GPUs found, or the only one"),
)
WorkspacePath = typer.Option(
    metavar="DIR", show_default=False, help="Folder of the workspace. [default: a fresh temporary folder]"
)


def download_model(
    context: typer.Context,
    *,
    profile: Annotated[str | None, ProfileName] = None,
    model_uri: Annotated[str | None, ModelUriText] = None,
    workspace_path: Annotated[Path | None, WorkspacePath] = None,
    manifest_file: Annotated[Path | None, ManifestFile] = None,
    model_cache_path: Annotated[Path | None, ModelCachePath] = None,
    use_cache: Annotated[bool, UseCache] = False,
    dry_run: Annotated[bool, DryRun] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Download a model into the cache, and make a workspace of it, without starting a server.

    A workspace is a folder of links into the cache under the names that an engine looks for; nothing is copied. Prints
    the profile's id, a tab, and the path of the workspace.
    """
    if profile and model_uri is not None:
        context.fail("--profile cannot be combined with --model-uri")

    from nim_core.cli.fetch import Request
    from nim_core.cli.layouts import create_workspace, result_as_json, result_as_text
    from nim_core.cli.selection import Choice

    variable = context.obj.settings.variables.text("NIM_MODEL_PROFILE")
    request = Request(
        choice=Choice(names=(profile,) if profile else (), variable=variable),
        model_uri=model_uri,
        manifest_file=manifest_file,
        cache_path=model_cache_path,
        use_cache=use_cache,
        dry_run=dry_run,
    )
    if dry_run:
        write_plan(request, context.obj, as_json=as_json)
        return
    done = create_workspace(request, workspace_path, context.obj)
    write_data(json.dumps(result_as_json(done), indent=2) if as_json else result_as_text(done))
