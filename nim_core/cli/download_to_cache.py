"""The command ``download-to-cache``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nim_core.cli.help import from_variable
from nim_core.cli.output import write_data

if TYPE_CHECKING:
    from nim_core.cli.fetch import Request
    from nim_core.cli.session import Session

__all__ = ["NAME", "PLAN", "download_to_cache", "plan", "write_plan"]

NAME = "download-to-cache"
PLAN = "plan"

Profiles = typer.Option(
    "-p",
    "--profiles",
    metavar="[PROFILE ...]",
    show_default=False,
    help="Profiles to download, by id or name. "
    + from_variable("NIM_MODEL_PROFILE", default="the best one for the GPUs found, or the only one"),
)
Include = typer.Option(
    metavar="[PATTERN ...]",
    show_default=False,
    help="With --model-uri: only files whose path fits one of these patterns, such as '*.safetensors'.",
)
Exclude = typer.Option(
    metavar="[PATTERN ...]",
    show_default=False,
    help="With --model-uri: no files whose path fits one of these patterns; wins over --include.",
)
ManifestFile = typer.Option(
    metavar="FILE",
    show_default=False,
    help="Manifest to read. "
    + from_variable("NIM_MANIFEST_PATH", default="the image's own")
    + " With --model-uri: read instead of listing the model, or written after the download when it is not there; "
    "JSON when it ends in .json.",
)
ModelCachePath = typer.Option(
    metavar="DIR", show_default=False, help="Folder of the model cache. " + from_variable("NIM_CACHE_PATH")
)
ModelUriText = typer.Option(metavar="URI", help="Download a model by its URI, such as scheme://org/model:revision.")
UseCache = typer.Option("--use-cache", help="Trust a complete earlier download: do not ask the source, do not hash.")
VerifyChecksums = typer.Option(
    show_default=False,
    help="Check digests of what is downloaded and of what is in the cache already. [default: check]",
)
Recheck = typer.Option(
    "--verify",
    help="As --use-cache, but read every cached file again, and fetch again what is damaged or missing.",
)
MaxConnections = typer.Option(metavar="N", help="Connections at once, at most; how many are used adapts to the server.")
DryRun = typer.Option("--dry-run", help="Say what would be done, as nim-llm plan does, and do nothing.")
LimitRate = typer.Option(metavar="RATE", help="Bytes per second, at most, such as 200M.")


def download_to_cache(
    context: typer.Context,
    *,
    every: Annotated[bool, typer.Option("--all", help="Download every profile of the manifest.")] = False,
    profiles: Annotated[list[str] | None, Profiles] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Download the best profile made for LoRA adapters.")] = False,
    model_uri: Annotated[str | None, ModelUriText] = None,
    include: Annotated[list[str] | None, Include] = None,
    exclude: Annotated[list[str] | None, Exclude] = None,
    manifest_file: Annotated[Path | None, ManifestFile] = None,
    model_cache_path: Annotated[Path | None, ModelCachePath] = None,
    use_cache: Annotated[bool, UseCache] = False,
    verify_checksums: Annotated[bool, VerifyChecksums] = True,
    recheck: Annotated[bool, Recheck] = False,
    force: Annotated[bool, typer.Option("--force", help="Download again what is in the cache already.")] = False,
    max_connections: Annotated[str, MaxConnections] = "32",
    limit_rate: Annotated[str | None, LimitRate] = None,
    dry_run: Annotated[bool, DryRun] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Download model profiles, or a model, into the cache.

    Downloads the profile that is named, else the best one for the GPUs found, or the only one there is; --all, --lora,
    --profiles and --model-uri exclude each other. Prints one line per profile or model: its id, a tab, and the path of
    its receipt.
    """
    names = _texts(profiles)
    _refuse_together(context, {"--all": every, "--profiles": names, "--lora": lora, "--model-uri": model_uri})
    _refuse_together(context, {"--verify": recheck, "--force": force})
    _refuse_together(context, {"--verify": recheck, "--no-verify-checksums": not verify_checksums})
    included, excluded = _texts(include), _texts(exclude)
    if (included or excluded) and model_uri is None:
        context.fail("--include and --exclude need --model-uri")

    from nim_core.cli.fetch import Request
    from nim_core.cli.selection import Choice
    from nim_core.cli.units import parse_count, parse_rate
    from nim_core.plan import Patterns

    variable = context.obj.settings.variables.text("NIM_MODEL_PROFILE")
    request = Request(
        choice=Choice(every=every, lora=lora, names=names, variable=variable),
        model_uri=model_uri,
        patterns=Patterns(include=included, exclude=excluded),
        manifest_file=manifest_file,
        cache_path=model_cache_path,
        use_cache=use_cache,
        verify=verify_checksums,
        force=force,
        recheck=recheck,
        max_connections=parse_count(max_connections),
        limit_rate=None if limit_rate is None else parse_rate(limit_rate),
        dry_run=dry_run,
    )
    (write_plan if dry_run else _download)(request, context.obj, as_json=as_json)


def plan(
    context: typer.Context,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every profile of the manifest.")] = False,
    profiles: Annotated[list[str] | None, Profiles] = None,
    lora: Annotated[bool, typer.Option("--lora", help="The profile made for LoRA adapters.")] = False,
    model_uri: Annotated[str | None, ModelUriText] = None,
    include: Annotated[list[str] | None, Include] = None,
    exclude: Annotated[list[str] | None, Exclude] = None,
    manifest_file: Annotated[Path | None, ManifestFile] = None,
    model_cache_path: Annotated[Path | None, ModelCachePath] = None,
    use_cache: Annotated[bool, UseCache] = False,
    verify_checksums: Annotated[bool, VerifyChecksums] = True,
    recheck: Annotated[bool, Recheck] = False,
    force: Annotated[bool, typer.Option("--force", help="Count what is in the cache already as missing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """
    Show what download-to-cache would do with the same options, and do nothing.

    Says which bytes are missing, what that takes on each disk, who is asked for them, and where credentials come from.
    Sources are asked for listings; nothing is written. Where the download could not begin, as for want of space, this
    ends as it would.
    """
    download_to_cache(
        context,
        every=every,
        profiles=profiles,
        lora=lora,
        model_uri=model_uri,
        include=include,
        exclude=exclude,
        manifest_file=manifest_file,
        model_cache_path=model_cache_path,
        use_cache=use_cache,
        verify_checksums=verify_checksums,
        recheck=recheck,
        force=force,
        dry_run=True,
        as_json=as_json,
    )


def _download(request: Request, session: Session, *, as_json: bool) -> None:
    from nim_core.cli.fetch import fetch, result_as_json, result_as_text

    result = fetch(request, session)
    write_data(json.dumps(result_as_json(result), indent=2) if as_json else result_as_text(result))


def write_plan(request: Request, session: Session, *, as_json: bool) -> None:
    """Print what a download would do, as commands that fetch do with ``--dry-run``. Raises what would end it."""
    from nim_core.cli.fetch import plan as plan_fetch
    from nim_core.cli.planned import plan_as_json, plan_as_text

    planned = plan_fetch(request, session)
    write_data(json.dumps(plan_as_json(planned), indent=2) if as_json else plan_as_text(planned))
    if planned.error is not None:
        raise planned.error


def _texts(values: list[str] | None) -> tuple[str, ...]:
    """Return the values of an option that are not empty."""
    return tuple(value for value in values or () if value)


def _refuse_together(context: typer.Context, given: dict[str, object]) -> None:
    names = [name for name, value in given.items() if value not in {None, False, ()}]
    if len(names) > 1:
        context.fail(f"{names[0]} cannot be combined with {names[1]}")
