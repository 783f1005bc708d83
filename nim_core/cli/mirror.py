"""The command ``mirror``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nim_core.cli.download_to_cache import ModelCachePath
from nim_core.cli.help import from_variable
from nim_core.cli.output import write_data

__all__ = ["NAME", "VERIFY", "mirror"]

NAME = "mirror"
VERIFY = "verify"

Where = typer.Argument(metavar="[verify] SINK", hidden=True)
Bucket = typer.Option("-b", "--bucket", metavar="BUCKET", show_default=False, help="Name of the bucket. (required)")
Prefix = typer.Option(metavar="PREFIX", show_default=False, help="What keys begin with, before a slash.")
Profiles = typer.Option(
    metavar="[PROFILE ...]",
    show_default=False,
    help="Profiles to mirror, by id or name. "
    + from_variable("NIM_MODEL_PROFILE", default="the best one for the GPUs found, or the only one"),
)
ManifestFile = typer.Option(
    metavar="FILE",
    show_default=False,
    help="Manifest to read. " + from_variable("NIM_MANIFEST_PATH", default="the image's own"),
)
MaxConnections = typer.Option(metavar="N", help="Connections at once, at most, in each direction.")
WithManifest = typer.Option("--with-manifest", help="Upload the manifest file itself, too, under its own name.")
DryRun = typer.Option("--dry-run", help="Say what would be done, and do nothing.")
Deep = typer.Option("--deep", help="With verify: read every object and hash it; else stored digests are compared.")


def mirror(
    context: typer.Context,
    where: Annotated[list[str] | None, Where] = None,
    *,
    bucket: Annotated[str | None, Bucket] = None,
    prefix: Annotated[str, Prefix] = "",
    every: Annotated[bool, typer.Option("--all", help="Every profile of the manifest.")] = False,
    profiles: Annotated[list[str] | None, Profiles] = None,
    manifest_file: Annotated[Path | None, ManifestFile] = None,
    model_cache_path: Annotated[Path | None, ModelCachePath] = None,
    with_manifest: Annotated[bool, WithManifest] = False,
    dry_run: Annotated[bool, DryRun] = False,
    deep: Annotated[bool, Deep] = False,
    max_connections: Annotated[str, MaxConnections] = "32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Copy model profiles to a bucket, where NIM_REPOSITORY_OVERRIDE finds them.

    SINK says what kind of bucket it is, such as s3 or gcs; plugins bring them. Files go through the cache and are
    uploaded as soon as they are verified; objects that are right already are left alone.

    "mirror verify SINK" compares a bucket with the manifest instead: it exits with 31 when objects are missing and with
    52 when some are wrong.
    """
    words = where or []
    verifying = words[:1] == [VERIFY]
    sinks = words[1:] if verifying else words
    if len(sinks) != 1:
        context.fail("name one sink, such as: mirror s3 -b BUCKET, or mirror verify s3 -b BUCKET")
    if not bucket:
        context.fail("Missing option '-b' / '--bucket'")
    if deep and not verifying:
        context.fail("--deep needs verify: mirror verify SINK --deep")
    if verifying and (dry_run or with_manifest):
        context.fail(f"{'--dry-run' if dry_run else '--with-manifest'} cannot be combined with verify")
    names = tuple(name for name in profiles or () if name)
    if every and names:
        context.fail("--all cannot be combined with --profiles")

    from nim_core.cli.mirroring import Request, mirror_profiles, verify_mirror
    from nim_core.cli.selection import Choice
    from nim_core.cli.units import parse_count
    from nim_core.mirror.place import Destination

    variable = context.obj.settings.variables.text("NIM_MODEL_PROFILE")
    request = Request(
        destination=Destination(sink=sinks[0], bucket=bucket, prefix=prefix.strip("/")),
        choice=Choice(every=every, names=names, variable=variable),
        manifest_file=manifest_file,
        cache_path=model_cache_path,
        max_connections=parse_count(max_connections),
        with_manifest=with_manifest,
        dry_run=dry_run,
        deep=deep,
    )
    answer = (verify_mirror if verifying else mirror_profiles)(request, context.obj)
    write_data(json.dumps(answer.record, indent=2) if as_json else answer.text)
    if answer.error is not None:
        raise answer.error
