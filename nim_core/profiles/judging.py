"""From a manifest and the environment to a ranking: reads the hardware and the cache, and decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import evolve

from nim_core.manifest import Manifest, Profile
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


def rank_here(
    manifest: Manifest,
    settings: Settings,
    cache_path: Path,
    *,
    lora: bool = False,
    without_gpu: Callable[[Profile], bool] = lambda _profile: False,
) -> Ranking:
    """
    Judge the profiles of ``manifest`` for this machine; no network is used.

    Args:
        manifest: The manifest.
        settings: The environment; NIM_PEFT_SOURCE asks for LoRA, NIM_MAX_MODEL_LEN bounds the context.
        cache_path: Folder of the model cache, which knows the sizes of models that were downloaded.
        lora: Whether LoRA is asked for on the command line.
        without_gpu: Whether a profile can be served where there is no GPU; asked only there.

    Raises:
        ConfigError: A variable, or the file it names, cannot be read.
    """
    models, hardware = CachedModels(cache_path), find_hardware(settings)
    candidates = (
        Candidate(
            profile=profile,
            model=models.model_of(profile),
            without_gpu=not hardware.gpus and without_gpu(profile),
        )
        for profile in manifest.profiles
    )
    return rank(
        candidates,
        hardware,
        lora=lora or settings.variables.is_set("NIM_PEFT_SOURCE"),
        context=settings.max_model_len,
    )
