"""The command ``hardware``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from nim_core.cli.output import write_data

if TYPE_CHECKING:
    from nim_core.cli.session import Session
    from nim_core.profiles.hardware import Hardware
    from nim_core.types import Gpu

__all__ = ["NAME", "hardware_as_text", "show_hardware"]

NAME = "hardware"


def show_hardware(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON, the form of NIM_HARDWARE_FILE.")] = False,
) -> None:
    """Show the GPUs that profiles are chosen for: those of this machine, or of NIM_HARDWARE_FILE."""
    session: Session = context.obj
    session.start_logging()

    from nim_core.profiles.hardware import as_record
    from nim_core.profiles.judging import find_hardware

    found = find_hardware(session.settings)
    write_data(json.dumps(as_record(found), indent=2) if as_json else hardware_as_text(found))


def hardware_as_text(hardware: Hardware) -> str:
    """Return a line per GPU; where there is none, why."""
    from nim_core.cli.logging import printable

    driver = f", driver {hardware.driver}" if hardware.driver else ""
    count = len(hardware.gpus)
    head = f"{count or 'no'} GPU{'' if count == 1 else 's'} ({hardware.origin}{driver})"
    return "\n".join(printable(line) for line in (head, *map(_line, hardware.gpus)))


def _line(gpu: Gpu) -> str:
    capability = "-" if gpu.compute_capability is None else "{}.{}".format(*gpu.compute_capability)
    busy = "-" if gpu.utilisation is None else f"{gpu.utilisation}%"
    memory = "memory unknown"
    if gpu.memory_total is not None and gpu.memory_free is not None:
        memory = f"{gpu.memory_free / 2**30:.1f} of {gpu.memory_total / 2**30:.1f} GB free"
    kind = " MIG instance" if gpu.mig else ""
    return f"{gpu.index}  [{gpu.device_id}]  {gpu.name}{kind}  {memory}  busy {busy}  compute capability {capability}"
