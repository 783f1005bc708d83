"""What a bucket holds: listed where that is allowed, else asked for key by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from nim_core.errors import PermissionDeniedError
from nim_core.mirror.keys import Planned
from nim_core.registry.guard import GuardedSink
from nim_core.transfer.workers import map_threads
from nim_core.types import StoredObject

__all__ = ["listed", "survey"]

_THREADS: Final = 16


def survey(
    sink: GuardedSink, objects: Iterable[Planned], there: Mapping[str, StoredObject] | None
) -> Mapping[str, StoredObject]:
    """
    Return those of ``objects`` that are in the bucket, by key, with the digests stored with them.

    Args:
        sink: Of the bucket.
        objects: What is looked for.
        there: What was listed, which need not be asked for again where it is not there. None: nothing was.

    Raises:
        SourceError: The bucket cannot be read.
    """
    keys = [item.key for item in objects if there is None or item.key in there]
    told = {key: there[key] for key in keys if there is not None and there[key].digests}
    found = map_threads("nim-head", sink.head, [key for key in keys if key not in told], _THREADS)
    return told | {item.key: item for item in found if item is not None}


def listed(sink: GuardedSink, prefixes: Iterable[str]) -> Mapping[str, StoredObject] | None:
    """Return all objects whose keys begin with one of ``prefixes``, by key. None: this user may not list."""
    try:
        return {item.key: item for prefix in prefixes for item in sink.list_objects(prefix)}
    except PermissionDeniedError:
        return None
