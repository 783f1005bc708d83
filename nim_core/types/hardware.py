"""GPUs, as values."""

from __future__ import annotations

from attrs import frozen

_BUSY_FROM = 0.05


@frozen(kw_only=True)
class Gpu:
    """
    One GPU, or one MIG instance of one.

    Attributes:
        name: As its driver calls it.
        device_id: PCI device and vendor, lower-case hex, such as ``2330:10de``.
        memory_total: Bytes. None when not known, as where a GPU shares the memory of the machine.
        memory_free: Bytes. None as above.
        index: Position among the GPUs of the machine; that of the whole GPU for a MIG instance.
        uuid: As its driver says. Empty when not known.
        utilisation: Percentage of the time it computed lately. None when not known.
        compute_capability: Major and minor. None when not known.
        mig: Whether it is a MIG instance: no model can be spread over several of these.
    """

    name: str
    device_id: str
    memory_total: int | None
    memory_free: int | None
    index: int = 0
    uuid: str = ""
    utilisation: int | None = None
    compute_capability: tuple[int, int] | None = None
    mig: bool = False

    @property
    def used_share(self) -> float:
        """Part of the memory that is in use, 0 to 1; 0 when not known."""
        if not self.memory_total or self.memory_free is None:
            return 0.0
        return 1 - self.memory_free / self.memory_total

    @property
    def is_free(self) -> bool:
        """
        Whether nobody else uses it: at most 5 % of its memory.

        The product lists an idle GPU of 1 % as free and one of 7 % as not free, and calls this its utilization.
        """
        return self.used_share <= _BUSY_FROM
