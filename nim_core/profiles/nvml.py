"""
The GPUs that the driver knows, asked through NVML.

The bindings are imported only where the driver's library loads, so a machine without a GPU pays for one failed
``dlopen``. Every call beyond counting may be unsupported (MIG on a desktop GPU, memory on one that shares the
machine's): what cannot be told is None.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from nim_core.profiles.hardware import Hardware
from nim_core.types import Gpu

__all__ = ["detect"]

_LIBRARY: Final = "libnvidia-ml.so.1"

T = TypeVar("T")


def detect() -> Hardware:
    """Return the GPUs of this machine; none, and why, where there is no driver or it does not answer."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return Hardware(origin=f"no driver: {_LIBRARY} is not there")
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Hardware(origin=f"the driver does not answer: {error}")
    try:
        return Hardware(
            gpus=tuple(_gpus(pynvml)), driver=_known(pynvml, pynvml.nvmlSystemGetDriverVersion), origin="NVML"
        )
    except pynvml.NVMLError as error:
        return Hardware(origin=f"the driver does not answer: {error}")
    finally:
        _known(pynvml, pynvml.nvmlShutdown)


def _known(nvml: Any, call: Callable[..., T], *arguments: Any) -> T | None:
    """Return what ``call`` returns. None where the driver cannot tell."""
    try:
        return call(*arguments)
    except nvml.NVMLError:
        return None


def _gpus(nvml: Any) -> Iterator[Gpu]:
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        instances = list(_instances(nvml, handle))
        for one in instances or [handle]:
            yield _gpu(nvml, index, handle, one)


def _instances(nvml: Any, handle: Any) -> Iterator[Any]:
    """Yield the handles of a GPU's MIG instances; none unless it is divided."""
    mode = _known(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if mode is None or not mode[0]:
        return
    for number in range(_known(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        instance = _known(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if instance is not None:
            yield instance


def _gpu(nvml: Any, index: int, whole: Any, one: Any) -> Gpu:
    """Return a GPU, or the MIG instance ``one`` of it; what only the whole GPU knows is asked of ``whole``."""
    memory = _known(nvml, nvml.nvmlDeviceGetMemoryInfo, one)
    busy = _known(nvml, nvml.nvmlDeviceGetUtilizationRates, one)
    return Gpu(
        name=_known(nvml, nvml.nvmlDeviceGetName, one) or "GPU",
        device_id=_device_id(_known(nvml, nvml.nvmlDeviceGetPciInfo, whole)),
        memory_total=None if memory is None else int(memory.total),
        memory_free=None if memory is None else int(memory.free),
        index=index,
        uuid=_known(nvml, nvml.nvmlDeviceGetUUID, one) or "",
        utilisation=None if busy is None else int(busy.gpu),
        compute_capability=_known(nvml, nvml.nvmlDeviceGetCudaComputeCapability, whole),
        mig=one is not whole,
    )


def _device_id(pci: Any) -> str:
    """Return device and vendor of what NVML gives as one number, the device in its upper half."""
    return "" if pci is None else f"{pci.pciDeviceId >> 16:04x}:{pci.pciDeviceId & 0xFFFF:04x}"
