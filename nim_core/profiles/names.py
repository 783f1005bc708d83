"""What profiles are called, and which of them a text may mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from nim_core.manifest import Profile

__all__ = ["has_lora", "id_in_listing", "is_true", "matching", "served_model_name", "short_name", "stated_gigabytes"]

_ENGINE_TAGS: Final = ("llm_engine", "backend", "model_type")
_LATER_TAGS: Final = ("gpu_device", "nim_workspace_hash_v1", "number_of_gpus")
_MEMORY_TAG: Final = re.compile("vram|mem", re.IGNORECASE)
_NUMBER: Final = re.compile(r"\d+(\.\d+)?", re.ASCII)
_LISTED: Final = re.compile(r"([0-9a-f]{64})\s+\(.*", re.DOTALL)


def is_true(tags: Mapping[str, str], tag: str) -> bool:
    """Say whether a tag is ``'true'``."""
    return tags.get(tag, "").lower() == "true"


def has_lora(tags: Mapping[str, str]) -> bool:
    """Say whether a profile with these tags is made for LoRA adapters."""
    return is_true(tags, "feat_lora")


def stated_gigabytes(tags: Mapping[str, str]) -> str | None:
    """
    Return the memory per GPU that the tags state, as they write it, such as ``34.0``. None when they do not.

    What the tag is called is not documented; it is the one whose name speaks of memory and whose value is a number.
    """
    figures = (tags[tag] for tag in sorted(tags) if _MEMORY_TAG.search(tag) and _NUMBER.fullmatch(tags[tag]))
    return next(figures, None)


def short_name(tags: Mapping[str, str]) -> str:
    """
    Return the name of a profile, made of its tags: ``ENGINE-bf16-tp1-pp1-63.0``, ``ENGINE-fp8-tp1-pp1-feat_lora``.

    Returns:
        Lower case, parts that the tags lack left out; empty when the tags have none of them.
    """
    later = [tags.get(tag, "") for tag in _LATER_TAGS]
    return _joined(_base_name(tags), *later, stated_gigabytes(tags) or "")


def served_model_name(source: str, explicit: str | None = None) -> str:
    """
    Return what a model without a manifest is called towards clients.

    Source: "Model-free NIM" of NIM LLM 2.1: the explicit name; else the source without its scheme and a trailing
    ``:<version>``, remaining colons replaced. By what is not documented: by ``-`` here.

    Args:
        source: Its URI, or the path of a folder.
        explicit: Value of NIM_SERVED_MODEL_NAME. None or empty when not set.
    """
    if explicit:
        return explicit
    _, _, location = source.rpartition("://")
    folders, slash, last = location.rstrip("/").rpartition("/")
    return (folders + slash + re.sub("(?<=.):[^:]*$", "", last)).replace(":", "-")


def _base_name(tags: Mapping[str, str]) -> str:
    """Return the documented part of the name, which is the same whatever the product puts behind it."""
    engine = next((tags[tag] for tag in _ENGINE_TAGS if tags.get(tag)), "")
    buildable = "trtllm_buildable" if is_true(tags, "trtllm_buildable") else ""
    sizes = [f"{tag}{tags[tag]}" for tag in ("tp", "pp") if tags.get(tag)]
    parts = [engine, tags.get("gpu", ""), buildable, tags.get("precision", ""), *sizes, tags.get("profile", "")]
    return _joined(*parts, "feat_lora" if has_lora(tags) else "")


def _joined(*parts: str) -> str:
    return "-".join(filter(None, parts)).replace(" ", "_").lower()


def id_in_listing(text: str) -> str | None:
    """Return the id in ``<id> (<name>)``, as it stands in the list of profiles. None for any other text."""
    match = _LISTED.fullmatch(text.strip())
    return match[1] if match else None


def matching(text: str, profiles: Sequence[Profile]) -> list[Profile]:
    """
    Return the profiles that ``text`` names.

    An id names one; else the full name counts; else the documented part of it, without what the product appends, and
    with ``lora`` for ``feat_lora``, as its documentation writes it.

    Returns:
        None, one, or several that share the name.
    """
    wanted = re.sub(r"-lora$", "-feat_lora", text.strip())
    if not wanted:
        return []
    by_id = [profile for profile in profiles if profile.id == wanted]
    by_name = [profile for profile in profiles if short_name(profile.tags) == wanted]
    return by_id or by_name or [profile for profile in profiles if _base_name(profile.tags) == wanted]
