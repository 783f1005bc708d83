"""The command ``create-model-store``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nim_core.cli.download_to_cache import DryRun, ManifestFile, ModelCachePath, UseCache, write_plan
from nim_core.cli.output import write_data

__all__ = ["NAME", "create_model_store"]

NAME = "create-model-store"

ProfileName = typer.Option(
    "-p", "--profile", metavar="PROFILE", show_default=False, help="Profile of a manifest, by id or name."
)
ModelRepo = typer.Option(
    metavar="URI", show_default=False, help="A model by its URI, such as scheme://org/model:revision, not --profile."
)
ModelStore = typer.Option(
    "-m", "--model-store", metavar="DIR", show_default=False, help="Folder of the store: a new or empty one. [required]"
)
Copy = typer.Option(
    "--copy", help="Make no hard links into the cache, so that the store may be changed without changing the cache."
)


def create_model_store(
    context: typer.Context,
    *,
    profile: Annotated[str | None, ProfileName] = None,
    model_repo: Annotated[str | None, ModelRepo] = None,
    model_store: Annotated[Path | None, ModelStore] = None,
    model_cache_path: Annotated[Path | None, ModelCachePath] = None,
    manifest_file: Annotated[Path | None, ManifestFile] = None,
    use_cache: Annotated[bool, UseCache] = False,
    dry_run: Annotated[bool, DryRun] = False,
    copy: Annotated[bool, Copy] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Make a plain folder of a model, to be served from, copied or shipped.

    Downloads what the cache lacks; the store has the files, verified, and checksums.blake3. Prints the profile's id, a
    tab, and the path of the store.
    """
    if model_store is None:
        context.fail("--model-store is missing: the folder to make")
    if bool(profile) == bool(model_repo):
        context.fail("give --profile or --model-repo, one of them")

    from nim_core.cli.fetch import Request
    from nim_core.cli.layouts import create_store, result_as_json, result_as_text
    from nim_core.cli.selection import Choice

    request = Request(
        choice=Choice(names=(profile,) if profile else ()),
        model_uri=model_repo,
        manifest_file=manifest_file,
        cache_path=model_cache_path,
        use_cache=use_cache,
        dry_run=dry_run,
    )
    if dry_run:
        write_plan(request, context.obj, as_json=as_json)
        return
    done = create_store(request, model_store, context.obj, share=not copy)
    write_data(json.dumps(result_as_json(done), indent=2) if as_json else result_as_text(done))
