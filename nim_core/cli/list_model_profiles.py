"""The command ``list-model-profiles``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nim_core.cli.help import from_variable
from nim_core.cli.output import write_data

if TYPE_CHECKING:
    from nim_core.cli.session import Session
    from nim_core.profiles.hardware import Gpu
    from nim_core.profiles.selection import Category, Ranking, Verdict

__all__ = ["NAME", "explanation", "list_model_profiles", "ranking_as_json", "ranking_as_text"]

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

_NONE: Final = " <None>"
_COMPILABLE: Final = "Compilable to TRT-LLM using just-in-time compilation of HF models to TRTLLM engines"


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

    Nothing is downloaded. How much memory a profile needs is known where its tags state it, or its model is in the
    cache already.
    """
    session: Session = context.obj
    session.start_logging()

    from nim_core.manifest import find_manifest, load_manifest
    from nim_core.profiles.judging import rank_here

    cache_path = (model_cache_path or session.settings.cache_path).absolute()
    path = find_manifest(manifest_file, session.settings.manifest_path)
    manifest = load_manifest(path, cache_dir=cache_path)
    ranking = rank_here(manifest, session.settings, cache_path, lora=lora)
    if as_json:
        write_data(json.dumps(ranking_as_json(ranking), indent=2))
        return
    write_data("\n".join([*ranking_as_text(ranking), *(explanation(ranking) if explain else [])]))


def ranking_as_text(ranking: Ranking) -> list[str]:
    """
    Return the lines of the list, in the product's words and indentation.

    Source: output of ``list-model-profiles`` of NIM LLM 2.0.x, as public logs and scripts have it; where nothing is
    known of the memory a profile needs, its line ends after the name, as in release 1.
    """
    from nim_core.profiles.selection import Category

    return [
        "SYSTEM INFO",
        *_gpu_lines(ranking.hardware.gpus),
        "MODEL PROFILES",
        *_section("Compatible with system and runnable", _of(ranking, Category.RUNNABLE), _by_lora),
        *_section("Compatible with system but low memory", _of(ranking, Category.LOW_MEMORY), _flat),
        *_section(_COMPILABLE, _of(ranking, Category.COMPILABLE), _by_lora),
        *_section("Incompatible with system", _of(ranking, Category.INCOMPATIBLE), _flat),
    ]


def _of(ranking: Ranking, category: Category) -> list[Verdict]:
    return [verdict for verdict in ranking.verdicts if verdict.category is category]


def _gpu_lines(gpus: Sequence[Gpu]) -> list[str]:
    """Return those that nobody uses, and the others if there are any."""
    others = [gpu for gpu in gpus if not gpu.is_free]
    return [
        *_section("Free GPUs", [gpu for gpu in gpus if gpu.is_free], _gpus),
        *(_section("Non-free GPUs", others, _gpus) if others else []),
    ]


def _section(title: str, items: Sequence[Any], render: Callable[[Any], Iterable[str]]) -> list[str]:
    return [f"- {title}:", *render(items)] if items else [f"- {title}:{_NONE}"]


def _gpus(gpus: Iterable[Gpu]) -> Iterable[str]:
    return (
        f"  -  [{gpu.device_id}] ({gpu.index}) {gpu.name} [current utilization: {int(gpu.used_share * 100)}%]"
        for gpu in gpus
    )


def _flat(verdicts: Iterable[Verdict]) -> list[str]:
    return [f"    - {_described(verdict)}" for verdict in verdicts]


def _by_lora(verdicts: Iterable[Verdict]) -> list[str]:
    from nim_core.profiles.names import has_lora

    plain, lora = list[Verdict](), list[Verdict]()
    for verdict in verdicts:
        (lora if has_lora(verdict.tags) else plain).append(verdict)
    lines = [f"  - {_described(verdict)}" for verdict in plain]
    return [*lines, *(["  - With LoRA support:", *_flat(lora)] if lora else [])]


def _described(verdict: Verdict) -> str:
    from nim_core.profiles.names import short_name

    line = f"{verdict.profile.id} ({short_name(verdict.tags)})"
    if verdict.required is None:
        return line
    shorter = ""
    if verdict.reduced is not None:
        context, required = verdict.reduced.context, _gigabytes(verdict.reduced.required)
        shorter = f", try --max-model-len={context} to reduce to >={required} GB/gpu"
    return f"{line} [requires >={_gigabytes(verdict.required)} GB/gpu{shorter}]"


def _gigabytes(count: int) -> int:
    return round(count / 2**30)


def explanation(ranking: Ranking) -> list[str]:
    """Return a section that says of each profile, best first, why it was chosen or not."""
    from nim_core.profiles.names import short_name
    from nim_core.profiles.selection import explain

    lines = [f"  - {one.profile.id} ({short_name(one.tags)}): {why}" for one, why in explain(ranking)]
    return ["SELECTION", f"- Hardware: {ranking.hardware.origin}", "- Profiles, best first:", *lines]


def ranking_as_json(ranking: Ranking) -> dict[str, Any]:
    """Return the ranking as it is printed with ``--json``; memory is in bytes."""
    from nim_core.profiles.hardware import as_record
    from nim_core.profiles.selection import explain

    best = ranking.selected
    return {
        "hardware": as_record(ranking.hardware),
        "selected": None if best is None else best.profile.id,
        "profiles": [_verdict_as_json(verdict, why) for verdict, why in explain(ranking)],
    }


def _verdict_as_json(verdict: Verdict, why: str) -> dict[str, Any]:
    from nim_core.profiles.names import has_lora, short_name

    reduced = verdict.reduced
    return {
        "id": verdict.profile.id,
        "name": short_name(verdict.tags),
        "category": verdict.category.name.lower(),
        "lora": has_lora(verdict.tags),
        "required": verdict.required,
        "available": verdict.available,
        "reduced": None if reduced is None else {"max_model_len": reduced.context, "required": reduced.required},
        "gpus": [gpu.index for gpu in verdict.gpus],
        "explanation": why,
        "tags": dict(verdict.tags),
    }
