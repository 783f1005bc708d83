"""The command ``list-model-profiles``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nim_core.cli.help import from_variable
from nim_core.cli.output import write_data

if TYPE_CHECKING:
    from nim_core.cli.session import Session

__all__ = ["NAME", "list_model_profiles"]

NAME = "list-model-profiles"

ManifestFile = typer.Option(
    "-m",
    "--manifest-file",
    metavar="FILE",
    show_default=False,
    help="Manifest to read. " + from_variable("NIM_MANIFEST_PATH", default="the image's own"),
)
ModelCachePath = typer.Option(
    metavar="DIR", show_default=False, help="Folder of the model cache. " + from_variable("NIM_CACHE_PATH")
)
Lora = typer.Option("--lora", help="Choose as for LoRA adapters, as NIM_PEFT_SOURCE does.")
Explain = typer.Option("--explain", help="Print as well why each profile would be chosen, or not.")


def list_model_profiles(
    context: typer.Context,
    *,
    manifest_file: Annotated[Path | None, ManifestFile] = None,
    model_cache_path: Annotated[Path | None, ModelCachePath] = None,
    lora: Annotated[bool, Lora] = False,
    explain: Annotated[bool, Explain] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """
    List the profiles of the manifest, by how well this machine can run them.

    Nothing is downloaded; of a model without a manifest, which NIM_MODEL_PATH names, its configuration is. How much
    memory a profile needs is known where its tags state it, or its model is in the cache already.
    """
    session: Session = context.obj
    session.start_logging()

    from nim_core.cli.offers import find_offer
    from nim_core.cli.profile_list import explanation, ranking_as_json, ranking_as_text
    from nim_core.download import DownloadOptions
    from nim_core.profiles.judging import rank_here
    from nim_core.profiles.names import served_model_name

    cache_path = (model_cache_path or session.settings.cache_path).absolute()
    offer = find_offer(manifest_file, DownloadOptions(cache_path=cache_path), session)
    ranking = rank_here(offer.manifest, session.settings, cache_path, lora=lora)
    if as_json:
        record = ranking_as_json(ranking)
        if offer.source is not None:
            record["served_model_name"] = served_model_name(offer.source, session.settings.served_name)
        write_data(json.dumps(record, indent=2))
        return
    write_data("\n".join([*ranking_as_text(ranking), *(explanation(ranking) if explain else [])]))
