"""What went wrong on the way is logged for the operators of the store."""

import logging

from nim_core import hookimpl
from nim_core.types import TransferEvent

log = logging.getLogger("acme.transfers")


@hookimpl
def nim_transfer_event(event: TransferEvent) -> None:
    if event.kind in {"retry", "stall", "failed"}:
        log.warning("%s: %s from %s: %s", event.kind, event.file, event.host, event.reason)
