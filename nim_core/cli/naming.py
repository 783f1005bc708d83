"""What profiles are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["has_lora", "short_name"]

_ENGINE_TAGS: Final = ("llm_engine", "backend", "model_type")


def has_lora(tags: Mapping[str, str]) -> bool:
    """Say whether a profile with these tags is made for LoRA adapters."""
    return tags.get("feat_lora", "").lower() == "true"


def short_name(tags: Mapping[str, str]) -> str:
    """
    Return the name of a profile, made of its tags: ``ENGINE-bf16-tp1-pp1``, ``ENGINE-fp8-tp1-pp1-feat_lora``.

    Returns:
        Lower case, parts that the tags lack left out; empty when the tags have none of them.
    """
    engine = next((tags[tag] for tag in _ENGINE_TAGS if tags.get(tag)), "")
    buildable = "trtllm_buildable" if tags.get("trtllm_buildable", "").lower() == "true" else ""
    sizes = [f"{tag}{tags[tag]}" for tag in ("tp", "pp") if tags.get(tag)]
    parts = [engine, tags.get("gpu", ""), buildable, tags.get("precision", ""), *sizes, tags.get("profile", "")]
    return "-".join(filter(None, [*parts, "feat_lora" if has_lora(tags) else ""])).replace(" ", "_").lower()
