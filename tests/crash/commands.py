"""The command as a user runs it, for tests that kill it or take its storage away."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from nim_core.transfer import jobs
from tests.faults.shelf import URI

__all__ = ["ALL", "PART_BYTES", "command", "environment", "small_parts"]

ROOT = Path(__file__).parents[2]
ALL = os.environ.get("NIM_TEST_CRASHES") == "all"
"""Whether there is time for all crashes; else for a few of each kind."""

PART_BYTES = 1 << 20
"""Smallest part with :func:`small_parts`, so that what takes gigabytes in earnest takes megabytes here."""

_PROGRAM = "from nim_core.cli.app import download_to_cache; download_to_cache()"
_SMALL = f"from nim_core.transfer import jobs; assert jobs._MIN_PART_BYTES; jobs._MIN_PART_BYTES = {PART_BYTES}; "


def command(*options: str, small: bool = False, first: str = "") -> list[str]:
    """Return what downloads a shelf's model: the installed command, or the same ``small`` and after ``first``."""
    installed = str(Path(sys.executable).with_name("download-to-cache"))
    program = first + (_SMALL if small else "") + _PROGRAM
    return [*([sys.executable, "-c", program] if small or first else [installed]), "--model-uri", URI, *options]


def environment(url: str, cache: Path, installed: Path, **more: str) -> dict[str, str]:
    """Return its environment: a shelf at ``url``, whose plugin is in ``installed``."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(installed),
        "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}",
        "NIM_CACHE_PATH": str(cache),
        "SHELF_URL": url,
        "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "10",
        **more,
    }


@contextlib.contextmanager
def small_parts() -> Iterator[None]:
    """Have engines in this process cut files into small parts."""
    with mock.patch.object(jobs, "_MIN_PART_BYTES", PART_BYTES):
        yield
