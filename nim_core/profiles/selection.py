"""
Which profiles this hardware can run, and which of them is best: pure.

:func:`judge` puts one profile into a category, :data:`CRITERIA` says what counts between two, first things first, and
:func:`rank` applies both. ``explain`` is made from the same table, so it cannot say anything else than what decided.

That optimised engines come before generic ones, lower precision before higher, latency before throughput and more
tensor parallelism before less is NVIDIA's documented order ("Automatic Profile Selection" of NIM LLM 1.1 to 1.15);
what release 2 compares beyond memory is not documented.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, TypedDict

from attrs import evolve, frozen

from nim_core.manifest import Profile
from nim_core.profiles.estimate import CONTEXT_STEP, GIB, estimate, largest_context
from nim_core.profiles.hardware import Hardware
from nim_core.profiles.model import Model
from nim_core.profiles.names import has_lora, is_true, stated_gigabytes
from nim_core.types import Gpu

__all__ = [
    "CRITERIA",
    "Candidate",
    "Category",
    "Criterion",
    "Ranking",
    "Reduced",
    "Verdict",
    "explain",
    "judge",
    "rank",
]

BACKENDS: Final = ("tensorrt_llm", "vllm", "sglang")
PRECISIONS: Final = ("nvfp4", "mxfp4", "int4", "fp8", "int8", "bf16", "fp16", "fp32")
NATIVE_FROM: Final[Mapping[str, tuple[int, int]]] = {"nvfp4": (10, 0), "mxfp4": (9, 0), "fp8": (8, 9), "bf16": (8, 0)}
"""Compute capability from which a GPU computes in a precision instead of emulating it."""


class Category(IntEnum):
    """How well a profile and the hardware go together, best first."""

    RUNNABLE = 0
    COMPILABLE = 1
    LOW_MEMORY = 2
    INCOMPATIBLE = 3


@frozen(kw_only=True)
class Candidate:
    """
    A profile and what is known of its model.

    Attributes:
        profile: The profile.
        model: None when nothing is known beyond its tags.
        without_gpu: Whether it can be served where there is no GPU.
    """

    profile: Profile
    model: Model | None = None
    without_gpu: bool = False


@frozen(kw_only=True)
class Reduced:
    """A shorter context, in tokens, and the bytes per GPU that it needs."""

    context: int
    required: int


@frozen(kw_only=True)
class Verdict:
    """
    What is thought of one profile.

    Attributes:
        profile: The profile.
        category: See there.
        reason: Why it is in that category, for people.
        required: Bytes per GPU that it needs. None when not known.
        available: Bytes that the least free of its GPUs has. None when it has none, or that is not known.
        reduced: What would fit where memory is low. None when nothing would, or that is not known.
        gpus: Those it would run on.
    """

    profile: Profile
    category: Category
    reason: str
    required: int | None = None
    available: int | None = None
    reduced: Reduced | None = None
    gpus: tuple[Gpu, ...] = ()

    @property
    def tags(self) -> Mapping[str, str]:
        """Tags of the profile."""
        return self.profile.tags


@frozen(kw_only=True)
class Criterion:
    """
    One thing that counts between two profiles.

    Attributes:
        name: What it is about.
        order: Sorts verdicts, best first.
        words: What a verdict has, for people.
    """

    name: str
    order: Callable[[Verdict], Any]
    words: Callable[[Verdict], str]


@frozen(kw_only=True)
class Ranking:
    """
    All profiles of a manifest, judged.

    Attributes:
        verdicts: Best first.
        hardware: What they were judged for.
        lora: Whether profiles without LoRA were left out of the choice.
    """

    verdicts: tuple[Verdict, ...]
    hardware: Hardware
    lora: bool = False

    @property
    def selected(self) -> Verdict | None:
        """The best profile that may be chosen. None when none can run."""
        return next((verdict for verdict in self.verdicts if self.why_not(verdict) is None), None)

    def why_not(self, verdict: Verdict) -> str | None:
        """Return why a profile may not be chosen at all. None when it may."""
        if verdict.category is Category.INCOMPATIBLE:
            return verdict.reason
        return "it is not made for LoRA, and LoRA is asked for" if self.lora and not has_lora(verdict.tags) else None


def _tag(name: str) -> Callable[[Verdict], str]:
    return lambda verdict: verdict.tags.get(name, "")


def _is_specific(tags: Mapping[str, str]) -> bool:
    return bool(tags.get("gpu_device") or tags.get("gpu"))


def _backend(verdict: Verdict) -> str:
    return verdict.tags.get("llm_engine") or verdict.tags.get("backend") or ""


def _position(order: Sequence[str], value: str) -> tuple[int, str]:
    """Return where ``value`` stands in ``order``; behind all of it, by its own name, when it does not."""
    return (order.index(value), "") if value in order else (len(order), value)


def _is_emulated(verdict: Verdict) -> bool:
    needed = NATIVE_FROM.get(verdict.tags.get("precision", ""), (0, 0))
    return any(gpu.compute_capability is not None and gpu.compute_capability < needed for gpu in verdict.gpus)


CRITERIA: Final = (
    Criterion(
        name="memory",
        order=lambda verdict: verdict.category,
        words=lambda verdict: verdict.category.name.lower().replace("_", " "),
    ),
    Criterion(
        name="LoRA",
        order=lambda verdict: has_lora(verdict.tags),
        words=lambda verdict: "for LoRA" if has_lora(verdict.tags) else "without LoRA",
    ),
    Criterion(
        name="GPU",
        order=lambda verdict: not _is_specific(verdict.tags),
        words=lambda verdict: "for this GPU" if _is_specific(verdict.tags) else "for any GPU",
    ),
    Criterion(name="backend", order=lambda verdict: _position(BACKENDS, _backend(verdict)), words=_backend),
    Criterion(
        name="precision",
        order=lambda verdict: (_is_emulated(verdict), _position(PRECISIONS, verdict.tags.get("precision", ""))),
        words=lambda verdict: _tag("precision")(verdict) + (" (emulated)" if _is_emulated(verdict) else ""),
    ),
    Criterion(
        name="optimisation",
        order=lambda verdict: _position(("latency", "throughput"), verdict.tags.get("profile", "")),
        words=_tag("profile"),
    ),
    Criterion(name="tensor parallelism", order=lambda verdict: -_parallelism(verdict.tags)["tp"], words=_tag("tp")),
    Criterion(name="pipeline parallelism", order=lambda verdict: _parallelism(verdict.tags)["pp"], words=_tag("pp")),
    Criterion(name="id", order=lambda verdict: verdict.profile.id, words=lambda verdict: verdict.profile.id[:8]),
)
"""What counts between two profiles, first things first."""


def rank(
    candidates: Iterable[Candidate], hardware: Hardware, *, lora: bool = False, context: int | None = None
) -> Ranking:
    """
    Judge ``candidates`` and put the best first.

    Args:
        candidates: The profiles of a manifest.
        hardware: What they are to run on.
        lora: Whether adapters are to be served: then only profiles for that are chosen, where there are any.
        context: Tokens of the longest request. None for the models' own.
    """
    verdicts = [judge(candidate, hardware, context=context) for candidate in candidates]
    verdicts.sort(key=lambda verdict: [criterion.order(verdict) for criterion in CRITERIA])
    asked = lora and any(has_lora(verdict.tags) for verdict in verdicts)
    return Ranking(verdicts=tuple(verdicts), hardware=hardware, lora=asked)


def explain(ranking: Ranking) -> list[tuple[Verdict, str]]:
    """Return every profile with why it was chosen or not, best first."""
    return [(verdict, _explained(verdict, ranking)) for verdict in ranking.verdicts]


def _explained(verdict: Verdict, ranking: Ranking) -> str:
    best, against = ranking.selected, ranking.why_not(verdict)
    if verdict is best:
        return f"selected: {verdict.reason}"
    if against is not None or best is None:
        return f"not possible: {against}"
    deciding = next(one for one in CRITERIA if one.order(verdict) != one.order(best))
    ours, theirs = deciding.words(verdict) or "none", deciding.words(best) or "none"
    return f"lost on {deciding.name}: {ours}, selected has {theirs}"


def judge(candidate: Candidate, hardware: Hardware, *, context: int | None = None) -> Verdict:
    """Return what ``hardware`` can do with a profile; ``context`` is as for :func:`rank`."""
    profile, required = candidate.profile, _required(candidate, context)
    if candidate.without_gpu and not hardware.gpus:
        return Verdict(profile=profile, category=Category.RUNNABLE, reason="it is served without a GPU")
    gpus, problem = _gpus_for(profile.tags, hardware.gpus)
    if problem is not None:
        return Verdict(profile=profile, category=Category.INCOMPATIBLE, reason=problem, required=required)
    known = [gpu.memory_free for gpu in gpus if gpu.memory_free is not None]
    available = min(known) if len(known) == len(gpus) else None
    verdict = Verdict(
        profile=profile,
        category=Category.COMPILABLE if is_true(profile.tags, "trtllm_buildable") else Category.RUNNABLE,
        reason=_memory_in_words(required, available),
        required=required,
        available=available,
        gpus=gpus,
    )
    if required is None or available is None or required <= available:
        return verdict
    return _short_of_memory(verdict, candidate.model, available)


def _memory_in_words(required: int | None, available: int | None) -> str:
    if required is None:
        return "how much memory it needs is not known"
    if available is None:
        return "how much memory is free is not known"
    return f"needs {required / GIB:.1f} GB per GPU, {available / GIB:.1f} GB are free"


def _short_of_memory(verdict: Verdict, model: Model | None, available: int) -> Verdict:
    """Tell a profile that would run with a shorter context from one whose weights alone do not fit."""
    if model is None:
        return evolve(verdict, category=Category.LOW_MEMORY)
    sizes = _parallelism(verdict.tags)
    context = largest_context(model, available, **sizes)
    if context is not None:
        required = estimate(model, **sizes, context=context).total
        return evolve(verdict, category=Category.LOW_MEMORY, reduced=Reduced(context=context, required=required))
    if estimate(model, **sizes, context=CONTEXT_STEP).total <= available:
        return evolve(verdict, category=Category.LOW_MEMORY)
    reason = f"its weights alone do not fit: {verdict.reason}"
    return evolve(verdict, category=Category.INCOMPATIBLE, reason=reason)


def _required(candidate: Candidate, context: int | None) -> int | None:
    """Return the bytes per GPU: what the tags state for the full context, else what the model is estimated at."""
    tags, model = candidate.profile.tags, candidate.model
    stated = stated_gigabytes(tags)
    if stated is not None and (context is None or model is None or model.shape is None):
        return int(float(stated) * GIB)
    return None if model is None else estimate(model, **_parallelism(tags), context=context).total


class _Parallelism(TypedDict):
    tp: int
    pp: int


def _parallelism(tags: Mapping[str, str]) -> _Parallelism:
    return {"tp": _count(tags, "tp") or 1, "pp": _count(tags, "pp") or 1}


def _gpus_for(tags: Mapping[str, str], gpus: Sequence[Gpu]) -> tuple[tuple[Gpu, ...], str | None]:
    """Return the GPUs that a profile would run on, alike and the most free ones, or why there are none."""
    if not gpus:
        return (), "no GPU was found"
    fitting = [gpu for gpu in gpus if _is_made_for(tags, gpu)]
    if not fitting:
        return (), f"it is made for another GPU: {tags.get('gpu') or tags.get('gpu_device')}"
    sizes = _parallelism(tags)
    count = _count(tags, "number_of_gpus") or sizes["tp"] * sizes["pp"]
    alike: dict[str, list[Gpu]] = defaultdict(list)
    for gpu in sorted(fitting, key=_most_free):
        if count == 1 or not gpu.mig:
            alike[gpu.device_id].append(gpu)
    groups = [group[:count] for group in alike.values() if len(group) >= count]
    if not groups:
        most = max(map(len, alike.values()), default=0)
        return (), f"it needs {count} GPUs of one kind, there {'is' if most == 1 else 'are'} {most or 'none'}"
    groups.sort(key=lambda group: _most_free(group[-1]))
    return tuple(groups[0]), None


def _most_free(gpu: Gpu) -> tuple[int, int]:
    return -(gpu.memory_free or 0), gpu.index


def _is_made_for(tags: Mapping[str, str], gpu: Gpu) -> bool:
    """Whether a profile is for this GPU: by the device it names, else by the words of the name it gives."""
    device = tags.get("gpu_device", "").lower()
    if device:
        return gpu.device_id == device or gpu.device_id.startswith(f"{device}:")
    return _words(tags.get("gpu", "")) <= _words(gpu.name)


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", name.lower())) - {""}


def _count(tags: Mapping[str, str], tag: str) -> int | None:
    text = tags.get(tag, "")
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,3}", text, re.ASCII) else None
