"""Which object of a bucket holds which file, and whether what is there is right: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from attrs import frozen

from nim_core.override import object_key, object_name
from nim_core.plan import Target
from nim_core.types import Digest, ModelUri, StoredObject, UriStyle
from nim_core.uris import without_file

__all__ = ["Planned", "agrees", "listing_prefixes", "planned_objects"]

_WEAK: Final = frozenset({"crc32c", "crc32", "md5"})
_MOST_LISTINGS: Final = 16


@frozen(kw_only=True)
class Planned:
    """
    An object as a mirror has to have it.

    Attributes:
        key: Literal, prefix included.
        uri: The file, as the manifest names it.
        path: Inside the workspace, for people.
        digests: What the manifest promises, of all profiles that have the file.
    """

    key: str
    uri: ModelUri
    path: str
    digests: tuple[Digest, ...] = ()


def planned_objects(
    targets: Iterable[Target], prefix: str, with_scheme: Callable[[ModelUri], bool]
) -> dict[ModelUri, Planned]:
    """
    Return the objects for all files of ``targets``, each file once.

    Args:
        targets: With their files.
        prefix: Beneath which keys begin; slashes around it do not count.
        with_scheme: Whether a URI's scheme belongs to its key.
    """
    found: dict[ModelUri, Planned] = {}
    for target in targets:
        for item in target.files:
            before = found[item.uri].digests if item.uri in found else ()
            digests = before if item.digest is None else (*before, item.digest)
            key = object_name(prefix, object_key(item.uri, with_scheme=with_scheme(item.uri)))
            found[item.uri] = Planned(key=key, uri=item.uri, path=item.path, digests=tuple(dict.fromkeys(digests)))
    return found


def listing_prefixes(
    objects: Iterable[Planned], prefix: str, with_scheme: Callable[[ModelUri], bool]
) -> tuple[str, ...]:
    """Return what to list so that every key is among it: a prefix for each repository, or one where that is many."""
    whole = object_name(prefix, "")
    found: dict[str, None] = {}
    for item in objects:
        if item.uri.style is UriStyle.OBJECT:
            found[item.key.rpartition("%2F")[0]] = None
        else:
            key = object_key(without_file(item.uri), with_scheme=with_scheme(item.uri))
            found[object_name(prefix, key)] = None
    return tuple(found) if len(found) <= _MOST_LISTINGS else (whole,)


def agrees(stored: StoredObject, size: int | None, digests: Sequence[Digest]) -> bool | None:
    """
    Whether a stored object is the content that is meant.

    Args:
        stored: As the store tells it.
        size: Bytes. None: not known.
        digests: Of that content.

    Returns:
        None when nothing strong enough to decide is known of both.
    """
    if size not in {None, stored.size}:
        return False
    meant = {digest.algorithm: digest for digest in digests}
    both = [(digest, meant[digest.algorithm]) for digest in stored.digests if digest.algorithm in meant]
    if any(one != other for one, other in both):
        return False
    return True if any(one.algorithm not in _WEAK for one, _ in both) else None
