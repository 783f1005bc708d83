"""
LoRA adapters: which there are in a folder, and keeping an engine's in step with them.

A folder of adapters has one folder for each, with ``adapter_config.json`` and ``adapter_model.safetensors`` or
``adapter_model.bin``. Source: "Fine-tuning with LoRA" of NIM LLM 2.x.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog
from attrs import frozen

from nim_core.errors import ConfigError, NimError
from nim_core.types import Adapter

__all__ = ["AdapterWatch", "Found", "find_adapters"]

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")

_log = structlog.get_logger(__name__)

_Stamp: TypeAlias = tuple[tuple[str, int, int], ...]


@frozen(kw_only=True)
class Found:
    """
    What is in a folder of adapters.

    Attributes:
        adapters: Those that can be served, by name, with what changes when their files do.
        refused: Other folders, each with why it is no adapter.
    """

    adapters: Mapping[str, tuple[Adapter, _Stamp]]
    refused: Mapping[str, str]


def find_adapters(folder: Path) -> Found:
    """
    Look for adapters.

    Args:
        folder: Value of NIM_PEFT_SOURCE.

    Raises:
        ConfigError: It is no folder that can be read.
    """
    adapters: dict[str, tuple[Adapter, _Stamp]] = {}
    refused: dict[str, str] = {}
    for entry in _entries(folder):
        try:
            adapters[entry.name] = _adapter(entry)
        except _NoAdapterError as exc:
            refused[entry.name] = str(exc)
    return Found(adapters=adapters, refused=refused)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as exc:
        raise ConfigError(
            f"cannot read the folder of LoRA adapters: {folder} ({(exc.strerror or str(exc)).lower()})",
            hint="NIM_PEFT_SOURCE names a folder with one folder per adapter",
        ) from exc


class _NoAdapterError(Exception):
    """Why a folder is no adapter."""


def _adapter(folder: Path) -> tuple[Adapter, _Stamp]:
    weights = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not weights:
        raise _NoAdapterError(f"it has no {' or '.join(_WEIGHTS)}")
    config = folder / _CONFIG
    try:
        with weights[0].open("rb"):
            stamp = tuple((it.name, it.stat().st_size, it.stat().st_mtime_ns) for it in (config, weights[0]))
        content: Any = json.loads(config.read_bytes())
    except FileNotFoundError:
        raise _NoAdapterError(f"it has no {_CONFIG}") from None
    except OSError as exc:
        raise _NoAdapterError(f"it cannot be read: {(exc.strerror or str(exc)).lower()}") from None
    except (ValueError, RecursionError):
        raise _NoAdapterError(f"its {_CONFIG} is not JSON") from None
    if not isinstance(content, dict):
        raise _NoAdapterError(f"its {_CONFIG} is not a JSON object")
    rank = content.get("r")
    valid = isinstance(rank, int) and not isinstance(rank, bool) and rank > 0
    return Adapter(name=folder.name, folder=folder, rank=rank if valid else None), stamp


class AdapterWatch:
    """
    Has an engine take up adapters that appear, and let go of those that disappear or change.

    A call that fails is made again at the next look; a look that fails changes nothing.

    Args:
        folder: Value of NIM_PEFT_SOURCE.
        loaded: What the engine was started with.
        load: Has the engine take one up. Raises NimError.
        unload: Has it let go of one. Raises NimError.
        seconds: Time between two looks.
        ready: Whether the engine can be asked; until then nothing is looked at.
    """

    def __init__(
        self,
        folder: Path,
        loaded: Found,
        load: Callable[[Adapter], None],
        unload: Callable[[Adapter], None],
        seconds: float,
        *,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder = folder
        self._loaded = dict(loaded.adapters)
        self._refused = dict(loaded.refused)
        self._load, self._unload = load, unload
        self._seconds, self._ready = seconds, ready
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adapters", daemon=True)

    def start(self) -> None:
        """Look from now on, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def look(self) -> None:
        """Compare once."""
        try:
            found = find_adapters(self._folder)
        except ConfigError as exc:
            _log.warning("adapters_not_read", reason=exc.message)
            return
        for name, (adapter, stamp) in list(self._loaded.items()):
            if name not in found.adapters or found.adapters[name][1] != stamp:
                self._change("adapter_unloaded", self._unload, adapter, stamp)
        for name, (adapter, stamp) in found.adapters.items():
            if name not in self._loaded:
                self._change("adapter_loaded", self._load, adapter, stamp)
        for name, reason in found.refused.items():
            if self._refused.get(name) != reason:
                _log.warning("adapter_refused", adapter=name, reason=reason)
        self._refused = dict(found.refused)

    def _change(self, what: str, call: Callable[[Adapter], None], adapter: Adapter, stamp: _Stamp) -> None:
        try:
            call(adapter)
        except NimError as exc:
            _log.warning("adapter_not_changed", adapter=adapter.name, wanted=what, reason=exc.message)
            return
        _log.info(what, adapter=adapter.name, rank=adapter.rank)
        if what == "adapter_loaded":
            self._loaded[adapter.name] = adapter, stamp
        else:
            del self._loaded[adapter.name]

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            if self._ready():
                self.look()
