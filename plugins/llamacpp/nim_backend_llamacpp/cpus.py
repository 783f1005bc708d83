"""How many CPUs this process may use, where that is fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["allowed_cpus"]


def allowed_cpus(root: Path = Path("/")) -> int | None:
    """
    Return how many CPUs this process may use by its affinity and its control group, at least 1.

    None when it may use all there are: llama.cpp counts those itself, without hyperthreads.
    Source: cgroups(7); "cpu.max" of the kernel's cgroup-v2.rst; sched-bwc.rst for version 1.

    Args:
        root: Where /proc and /sys are.
    """
    cpus = float(len(os.sched_getaffinity(0)))
    for folder in _groups(root):
        cpus = min(cpus, _quota(folder))
    allowed = max(1, math.ceil(cpus))
    return None if allowed >= (os.cpu_count() or 1) else allowed


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups for CPUs, and of those around them."""
    hierarchies = {"": root / "sys/fs/cgroup", "cpu": root / "sys/fs/cgroup/cpu"}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in hierarchies:
                inside = PurePosixPath(path.lstrip("/"))
                yield from (hierarchies[controller] / part for part in (inside, *inside.parents))


def _quota(folder: Path) -> float:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    try:
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except ValueError:  # "max", or the group has no such file
        return math.inf


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
