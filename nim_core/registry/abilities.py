"""What a source, sink or backend can do beyond its required methods, as the contract's optional Protocols say."""

from __future__ import annotations

import re
from typing import Final

from nim_core.types import (
    AdapterLoader,
    CachePlacement,
    CopyingSink,
    FileNaming,
    NearbyOptions,
    PartedSink,
    RemoteReader,
)

__all__ = ["BACKEND_ABILITIES", "SINK_ABILITIES", "SOURCE_ABILITIES", "abilities"]

SOURCE_ABILITIES: Final[tuple[type, ...]] = (CachePlacement, FileNaming)
SINK_ABILITIES: Final[tuple[type, ...]] = (CopyingSink, PartedSink)
BACKEND_ABILITIES: Final[tuple[type, ...]] = (AdapterLoader, NearbyOptions, RemoteReader)


def abilities(worker: object, protocols: tuple[type, ...]) -> tuple[str, ...]:
    """Return the names of those of ``protocols`` that ``worker`` follows, in words, such as cache-placement."""
    followed = (protocol.__name__ for protocol in protocols if isinstance(worker, protocol))
    return tuple(re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower() for name in followed)
