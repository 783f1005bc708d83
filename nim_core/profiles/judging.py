"""From a manifest and the environment to a ranking: reads the hardware and the cache, and decides nothing."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from nim_core.manifest import Manifest
from nim_core.profiles.facts import CachedModels
from nim_core.profiles.hardware import Hardware, read_hardware, visible
from nim_core.profiles.nvml import detect
from nim_core.profiles.selection import Candidate, Ranking, rank
from nim_core.settings import Settings

__all__ = ["find_hardware", "rank_here"]


def find_hardware(settings: Settings) -> Hardware:
    """
    Return the GPUs of NIM_HARDWARE_FILE, or those of this machine that CUDA_VISIBLE_DEVICES leaves.

    Raises:
        ConfigError: The file cannot be read.
    """
    if settings.hardware_file is not None:
        return read_hardware(settings.hardware_file)
    found = detect()
    left = visible(found.gpus, settings.variables.text("CUDA_VISIBLE_DEVICES"))
    hidden = found.gpus and not left
    return evolve(found, gpus=left, origin="CUDA_VISIBLE_DEVICES leaves no GPU" if hidden else found.origin)


def rank_here(manifest: Manifest, settings: Settings, cache_path: Path, *, lora: bool = False) -> Ranking:
    """
    Judge the profiles of ``manifest`` for this machine; no network is used.

    Args:
        manifest: The manifest.
        settings: The environment; NIM_PEFT_SOURCE asks for LoRA, NIM_MAX_MODEL_LEN bounds the context.
        cache_path: Folder of the model cache, which knows the sizes of models that were downloaded.
        lora: Whether LoRA is asked for on the command line.

    Raises:
        ConfigError: A variable, or the file it names, cannot be read.
    """
    models = CachedModels(cache_path)
    return rank(
        (Candidate(profile=profile, model=models.model_of(profile)) for profile in manifest.profiles),
        find_hardware(settings),
        lora=lora or settings.variables.is_set("NIM_PEFT_SOURCE"),
        context=settings.max_model_len,
    )
