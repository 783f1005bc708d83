"""The function behind ``mirror verify``: is everything in the bucket, and is it right?"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Final, Literal

from attrs import frozen

from nim_core.errors import NotFoundError
from nim_core.mirror.keys import Planned, agrees, planned_objects
from nim_core.mirror.place import USER_AGENT, Destination, Place, opened
from nim_core.mirror.survey import listed, survey
from nim_core.override import object_name
from nim_core.plan import Target
from nim_core.registry import Registry
from nim_core.settings import Settings
from nim_core.transfer.digests import algorithms_to_check
from nim_core.transfer.reading import Reader
from nim_core.transfer.retry import RetryBudget
from nim_core.transfer.workers import map_threads
from nim_core.types import Digest, RemoteFile, StoredObject

__all__ = ["ObjectState", "Verification", "verify"]

_THREADS: Final = 8
State = Literal["right", "missing", "wrong", "unproved"]


@frozen(kw_only=True)
class ObjectState:
    """
    How an object is.

    Attributes:
        planned: What it has to be.
        state: ``unproved``: it is there, but neither the manifest nor the bucket has a digest to compare.
        reason: What is wrong, or why it is not proved. Empty where nothing is to be said.
        size: Bytes in the bucket. None when it is not there.
    """

    planned: Planned
    state: State
    reason: str = ""
    size: int | None = None


@frozen(kw_only=True)
class Verification:
    """
    How a mirror is.

    Attributes:
        url: What NIM_REPOSITORY_OVERRIDE has to be to serve from there.
        objects: Those that have to be there.
        foreign: Objects beneath the prefix that no profile of the manifest has. None: this user may not list.
    """

    url: str
    objects: tuple[ObjectState, ...]
    foreign: tuple[StoredObject, ...] | None

    def count(self, state: State) -> int:
        """Return how many objects are in a state."""
        return sum(item.state == state for item in self.objects)


def verify(
    targets: tuple[Target, ...],
    every: tuple[Target, ...],
    destination: Destination,
    registry: Registry,
    settings: Settings,
    *,
    deep: bool,
    manifest_name: str,
    count: Callable[[int], None],
) -> Verification:
    """
    Compare a bucket with a manifest.

    Args:
        targets: Profiles that have to be there.
        every: All profiles of the manifest: what they have is not foreign.
        destination: The bucket.
        registry: The plugins.
        settings: The environment.
        deep: Read every object and hash it; else what the bucket says of its digests counts.
        manifest_name: What the manifest itself is called, where it was uploaded.
        count: Hears of bytes that were read.

    Raises:
        NotFoundError: There is no such bucket.
        SourceError: It cannot be read.
    """
    with opened(destination, registry, settings) as place:
        objects = planned_objects(targets, destination.prefix, place.with_scheme)
        all_there = listed(place.sink, (object_name(destination.prefix, ""),))
        there = survey(place.sink, objects.values(), all_there)
        with closing(Reader(place.network, USER_AGENT)) as reader:
            judge = partial(_deeply, place, reader, there, count) if deep else partial(_state, there)
            states = map_threads("nim-verify", judge, list(objects.values()), _THREADS)
        known = {item.key for item in planned_objects(every, destination.prefix, place.with_scheme).values()}
        known.add(object_name(destination.prefix, manifest_name))
        foreign = None if all_there is None else tuple(item for key, item in all_there.items() if key not in known)
        return Verification(url=place.url, objects=tuple(states), foreign=foreign)


def _state(there: Mapping[str, StoredObject], planned: Planned) -> ObjectState:
    stored = there.get(planned.key)
    if stored is None:
        return ObjectState(planned=planned, state="missing")
    right = agrees(stored, None, planned.digests)
    if right is None:
        reason = "no digest stored with it" if planned.digests else "no digest in the manifest"
        return ObjectState(planned=planned, state="unproved", reason=reason, size=stored.size)
    if right:
        return ObjectState(planned=planned, state="right", size=stored.size)
    return ObjectState(planned=planned, state="wrong", reason=_differs(stored.digests, planned), size=stored.size)


def _differs(found: tuple[Digest, ...], planned: Planned) -> str:
    meant = {digest.algorithm: digest for digest in planned.digests}
    other = next((digest for digest in found if meant.get(digest.algorithm, digest) != digest), None)
    return "" if other is None else f"has {other}, manifest has {meant[other.algorithm]}"


def _deeply(
    place: Place, reader: Reader, there: Mapping[str, StoredObject], count: Callable[[int], None], planned: Planned
) -> ObjectState:
    stored = there.get(planned.key)
    if stored is None:
        return ObjectState(planned=planned, state="missing")
    uri = place.uri(planned.key)
    expected = planned.digests or stored.digests
    source = place.resolver.source(uri.scheme)
    file = RemoteFile(path="object", size=stored.size, digests=stored.digests)
    try:
        found = reader.digests(
            partial(source.locate, uri, file),
            algorithms_to_check(expected, stored.size),
            stored.size,
            RetryBudget(place.policy, random.Random()),  # noqa: S311 - jitter
            count,
        )
    except NotFoundError:
        return ObjectState(planned=planned, state="missing")
    seen = StoredObject(key=stored.key, size=stored.size, digests=found)
    right = agrees(seen, stored.size, expected)
    if right is None:
        return ObjectState(planned=planned, state="unproved", reason="no digest to compare with", size=stored.size)
    if right:
        return ObjectState(planned=planned, state="right", size=stored.size)
    return ObjectState(planned=planned, state="wrong", reason=f"content: {_differs(found, planned)}", size=stored.size)
