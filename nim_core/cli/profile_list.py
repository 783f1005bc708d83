"""How the list of profiles is written: as the product writes it, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from nim_core.cli.logging import printable
from nim_core.profiles.estimate import GIB
from nim_core.profiles.hardware import as_record
from nim_core.profiles.names import has_lora, short_name
from nim_core.profiles.selection import Category, Ranking, Verdict, explain
from nim_core.types import Gpu

__all__ = ["explanation", "ranking_as_json", "ranking_as_text"]

_NONE: Final = " <None>"
_COMPILABLE: Final = "Compilable to TRT-LLM using just-in-time compilation of HF models to TRTLLM engines"


def ranking_as_text(ranking: Ranking) -> list[str]:
    """
    Return the lines of the list, in the product's words and indentation.

    Source: output of ``list-model-profiles`` of NIM LLM 2.0.x, as public logs and scripts have it; where nothing is
    known of the memory a profile needs, its line ends after the name, as in release 1.
    """
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


def _gpus(gpus: Iterable[Gpu]) -> list[str]:
    return [f"  -  [{gpu.device_id}] ({gpu.index}) {printable(gpu.name)} {_utilization(gpu)}" for gpu in gpus]


def _utilization(gpu: Gpu) -> str:
    return f"[current utilization: {int(gpu.used_share * 100)}%]"


def _flat(verdicts: Iterable[Verdict]) -> list[str]:
    return [f"    - {_described(verdict)}" for verdict in verdicts]


def _by_lora(verdicts: Sequence[Verdict]) -> list[str]:
    lora = [verdict for verdict in verdicts if has_lora(verdict.tags)]
    plain = [f"  - {_described(verdict)}" for verdict in verdicts if not has_lora(verdict.tags)]
    return [*plain, *(["  - With LoRA support:", *_flat(lora)] if lora else [])]


def _described(verdict: Verdict) -> str:
    line = f"{verdict.profile.id} ({short_name(verdict.tags)})"
    if verdict.required is None:
        return line
    shorter = ""
    if verdict.reduced is not None:
        context, required = verdict.reduced.context, _gigabytes(verdict.reduced.required)
        shorter = f", try --max-model-len={context} to reduce to >={required} GB/gpu"
    return f"{line} [requires >={_gigabytes(verdict.required)} GB/gpu{shorter}]"


def _gigabytes(count: int) -> int:
    return round(count / GIB)


def explanation(ranking: Ranking) -> list[str]:
    """Return a section that says of each profile, best first, why it was chosen or not."""
    lines = [f"  - {one.profile.id} ({short_name(one.tags)}): {why}" for one, why in explain(ranking)]
    return ["SELECTION", f"- Hardware: {ranking.hardware.origin}", "- Profiles, best first:", *lines]


def ranking_as_json(ranking: Ranking) -> dict[str, Any]:
    """Return the ranking as it is printed with ``--json``; memory is in bytes."""
    best = ranking.selected
    return {
        "hardware": as_record(ranking.hardware),
        "selected": None if best is None else best.profile.id,
        "profiles": [_verdict_as_json(verdict, why) for verdict, why in explain(ranking)],
    }


def _verdict_as_json(verdict: Verdict, why: str) -> dict[str, Any]:
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
