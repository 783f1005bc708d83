"""
``oci`` URIs as typed references: ``oci://host[:port]/name:tag[/file]`` or ``oci://host[:port]/name@sha256:hex[/file]``.

Names and tags are those of the OCI distribution specification 1.1, "Pulling manifests". Neither has a slash after the
first colon or ``@``, so what follows one is a file. A tag is never made up: without one, a file could not be told from
the last part of a name.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from attrs import field, frozen

from nim_core.errors import InvalidUriError
from nim_core.types import CacheKey, ModelUri, check_relative_path

_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REST = re.compile(
    r"(?P<host>(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(?::[0-9]+)?)"
    rf"/(?P<name>{_PART}(?:/{_PART})*)"
    r"(?=[:@])(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
    r"(?:/(?P<file>.+))?"
)
_DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io"})


def registry_of(host: str) -> str:
    """Return ``host[:port]`` of a registry's API; Docker Hub has other names for people."""
    return "registry-1.docker.io" if host.lower() in _DOCKER_HUB else host.lower()


@frozen(kw_only=True)
class OciRef:
    """
    An artifact, or one file of it.

    Attributes:
        host: Registry, ``host[:port]``.
        name: Repository, such as ``team/model``.
        reference: Digest, or tag where no digest is given.
        tag: None when not given.
        file: Path of the file. None: all files.
        uri: What it was read from.
    """

    host: str
    name: str
    reference: str
    tag: str | None
    file: str | None
    uri: ModelUri = field(eq=False)

    @classmethod
    def parse(cls, uri: ModelUri) -> OciRef:
        """Read a URI of OBJECT style. Raises InvalidUriError, with the right form, when no artifact is called so."""
        match = _REST.fullmatch(uri.location)
        if match is None:
            raise InvalidUriError(
                f"not an artifact: {uri.display}",
                hint="the form is oci://HOST[:PORT]/NAME:TAG[/FILE], or @sha256:DIGEST for :TAG; names are lower case",
            )
        return cls(
            host=registry_of(match["host"]),
            name=match["name"],
            reference=match["digest"] or match["tag"],
            tag=match["tag"],
            file=match["file"] and check_relative_path(match["file"]),
            uri=uri,
        )

    def __str__(self) -> str:
        return f"{self.host}/{self.name}{'@' if self.reference.startswith('sha256:') else ':'}{self.reference}"

    def cache_key(self, pinned: str | None) -> CacheKey:
        """Return where files of the artifact live in the cache: one folder per repository, one snapshot per digest."""
        place = hashlib.sha256(f"{self.host}/{self.name}".encode()).hexdigest()[:32]
        return CacheKey(
            root="oci/hub",
            repo=f"models--{self.name.rpartition('/')[2][:100]}--{place}",
            snapshot=(pinned or self.reference).replace(":", "-"),
            refs=(self.tag,) if pinned and self.tag else (),
        )
