"""GPUs as values, from this machine or from a file that stands in for another one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import asdict, evolve, frozen

from nim_core.errors import ConfigError
from nim_core.types import Gpu

__all__ = ["Hardware", "as_record", "read_hardware", "visible"]

_MOST: Final = 1024


@frozen(kw_only=True)
class Hardware:
    """
    What there is to run a model on.

    Attributes:
        gpus: In the order of their driver.
        driver: Version of the driver. None when there is none, or not known.
        origin: Where this comes from, for people; why there are no GPUs when there are none.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    origin: str = ""


def as_record(hardware: Hardware) -> dict[str, Any]:
    """Return ``hardware`` as JSON has it, in the form that :func:`read_hardware` reads."""
    return asdict(hardware)


def visible(gpus: Sequence[Gpu], variable: str | None) -> tuple[Gpu, ...]:
    """
    Return the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order.

    As CUDA does, an entry is an index, or the start of a UUID, and an entry that fits no GPU hides all behind it. NVML
    does not obey the variable by itself; its indices are those of ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.
    """
    if variable is None:
        return tuple(gpus)
    chosen: list[Gpu] = []
    for entry in map(str.strip, variable.split(",")):
        fitting = [gpu for gpu in gpus if _is_meant(gpu, entry)]
        if not fitting:
            break
        chosen += [gpu for gpu in fitting if gpu not in chosen]
    return tuple(chosen)


def _is_meant(gpu: Gpu, entry: str) -> bool:
    return str(gpu.index) == entry or (entry.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(entry))


def read_hardware(path: Path) -> Hardware:
    """
    Read a file as ``nim-llm hardware --json`` prints it: ``{"gpus": [{...}, ...]}``.

    A GPU needs ``name``, ``device_id`` and ``memory_total`` (bytes); ``memory_free`` is all of that unless given, and
    ``"count": 8`` stands for eight alike.

    Raises:
        ConfigError: The file cannot be read or is not of that form.
    """
    try:
        value = json.loads(path.read_bytes())
        gpus = [gpu for entry in value["gpus"] for gpu in _alike(entry)]
        numbered = (evolve(gpu, index=number) if gpu.index < 0 else gpu for number, gpu in enumerate(gpus))
        return Hardware(gpus=tuple(numbered), driver=value.get("driver"), origin=str(path))
    except OSError as exc:
        raise ConfigError(f"cannot read NIM_HARDWARE_FILE: {path} ({exc.strerror})") from exc
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise ConfigError(
            f"not a description of hardware: {path} ({type(exc).__name__}: {exc})",
            hint="NIM_HARDWARE_FILE names a file as `nim-llm hardware --json` prints it",
        ) from exc


def _alike(entry: Mapping[str, Any]) -> Iterator[Gpu]:
    count = int(entry.get("count", 1))
    if not 0 <= count <= _MOST:
        raise ValueError(f"count is not from 0 to {_MOST}: {count}")
    total, capability = _bytes(entry["memory_total"]), entry.get("compute_capability")
    major_minor = None if capability is None else (int(capability[0]), int(capability[1]))
    for _ in range(count):
        yield Gpu(
            name=str(entry["name"]),
            device_id=str(entry["device_id"]).lower(),
            memory_total=total,
            memory_free=_bytes(entry.get("memory_free", total)),
            index=int(entry.get("index", -1)) if count == 1 else -1,
            uuid=str(entry.get("uuid", "")),
            utilisation=entry.get("utilisation"),
            compute_capability=major_minor,
            mig=bool(entry.get("mig", False)),
        )


def _bytes(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(f"not a number of bytes: {value!r}")
    return value
