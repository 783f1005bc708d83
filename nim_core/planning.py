"""What a download would do, as a value: which files, how much disk, whom it would talk to and as who."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from attrs import field, frozen

from nim_core.cache.space import DeviceNeed
from nim_core.errors import NimError
from nim_core.plan import Plan, Present, Target
from nim_core.types import Ambient, Anonymous, BasicPair, BearerToken, Credential, KeyPair, ModelUri

__all__ = ["CredentialUse", "DownloadPlan", "FileState", "HostUse", "Outlook", "PlannedFile", "SourceUse", "as_planned"]

FileState = Literal["fetch", "resume", "cached", "local"]

_KINDS: Final[Mapping[type[Credential], str]] = {
    BearerToken: "bearer_token",
    BasicPair: "basic_pair",
    KeyPair: "key_pair",
    Ambient: "ambient",
    Anonymous: "anonymous",
}


@frozen(kw_only=True)
class PlannedFile:
    """
    One file, however many targets want it.

    Attributes:
        path: Path inside the workspace.
        uri: For eyes.
        size: Bytes. None when not known.
        state: ``fetch``; ``resume`` where a partial has bytes of it; ``cached``; ``local`` when used from where it is.
        resumed: Bytes that a partial has; those that turn out damaged are fetched all the same.
    """

    path: str
    uri: str
    size: int | None
    state: FileState
    resumed: int = 0

    @property
    def to_fetch(self) -> int | None:
        """Bytes to fetch. None when not known."""
        if self.state in {"cached", "local"}:
            return 0
        return None if self.size is None else self.size - self.resumed


@frozen(kw_only=True)
class SourceUse:
    """A source that is asked: ``scheme`` of the URIs, and the distribution that brings it, in that version."""

    scheme: str
    distribution: str
    version: str


@frozen(kw_only=True)
class HostUse:
    """
    A server that is talked to.

    Attributes:
        host: As the beginning of a URL.
        listing: Whether it is asked what there is, or for leave to fetch it.
        files: Whether bytes of files come from it.
        proxy: On the way there, without user and password. None: none.
    """

    host: str
    listing: bool = False
    files: bool = False
    proxy: str | None = None


@frozen(kw_only=True)
class CredentialUse:
    """
    How a source signs in.

    Attributes:
        source: Name of the source.
        endpoint: Where to.
        kind: Such as ``bearer_token``, ``ambient`` (the vendor's library finds it) or ``anonymous``.
        origin: Where it came from: a variable, a file; never its value.
        expires_at: Unix time in seconds. None when not known, or never.
    """

    source: str
    endpoint: str
    kind: str
    origin: str
    expires_at: float | None = None

    @classmethod
    def of(cls, source: str, endpoint: str, credential: Credential) -> CredentialUse:
        """Return what may be told of a credential."""
        return cls(
            source=source,
            endpoint=endpoint,
            kind=_KINDS[type(credential)],
            origin=credential.origin,
            expires_at=credential.expires_at,
        )


@frozen(kw_only=True)
class Outlook:
    """
    What only asking tells of a download; as it is here, nobody has to be asked.

    Attributes:
        resumed: Bytes that partials have, by URI of the file.
        sizes: Sizes that no listing gave, by URI of the file.
        duplicates: Files that come with another one, as their URIs differ in userinfo alone.
        devices: What it takes on each file system.
        sources: Who is asked.
        hosts: Who is talked to.
        unasked: Places whose servers are not among the hosts, as they were not asked for where their bytes are.
        streamed: Schemes whose bytes a vendor's library fetches, from where it alone knows.
        credentials: How sources sign in.
        error: What would end the download before its first byte.
    """

    resumed: Mapping[ModelUri, int] = field(factory=dict)
    sizes: Mapping[ModelUri, int] = field(factory=dict)
    duplicates: frozenset[ModelUri] = frozenset()
    devices: tuple[DeviceNeed, ...] = ()
    sources: tuple[SourceUse, ...] = ()
    hosts: tuple[HostUse, ...] = ()
    unasked: int = 0
    streamed: tuple[str, ...] = ()
    credentials: tuple[CredentialUse, ...] = ()
    error: NimError | None = None


@frozen(kw_only=True)
class DownloadPlan:
    """
    What a download would do.

    Attributes:
        targets: What is wanted, its files filled in.
        files: Every file, once.
        outlook: What it takes.
        damaged: Paths of cached files that were found damaged, and would be fetched again.
    """

    targets: tuple[Target, ...] = ()
    files: tuple[PlannedFile, ...] = ()
    outlook: Outlook = field(factory=Outlook)
    damaged: tuple[str, ...] = ()

    @property
    def wanting(self) -> tuple[PlannedFile, ...]:
        """Files to fetch, or the rest of them."""
        return tuple(file for file in self.files if file.state in {"fetch", "resume"})

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes to fetch, counting files of unknown size as nothing."""
        return sum(file.to_fetch or 0 for file in self.files)

    @property
    def bytes_resumed(self) -> int:
        """Bytes that partials have."""
        return sum(file.resumed for file in self.files)

    @property
    def unknown_sizes(self) -> int:
        """How many files to fetch have no known size."""
        return sum(file.to_fetch is None for file in self.files)

    @property
    def error(self) -> NimError | None:
        """What would end the download before its first byte. None: nothing."""
        return self.outlook.error


def as_planned(targets: Iterable[Target], plan: Plan, outlook: Outlook) -> DownloadPlan:
    """
    Return what a download would do, with a line for every file.

    Args:
        targets: What is wanted, the files of model URIs filled in.
        plan: What has to be fetched, and what need not be.
        outlook: What that takes.
    """
    targets = tuple(targets)
    present = {item.identity: item for item in plan.present}
    sizes = {fetch.identity: fetch.file.size for fetch in plan.fetches} | dict(outlook.sizes)
    wanted = {item.uri: item.path for target in reversed(targets) for item in reversed(target.files)}
    files = (
        _here(path, present[uri]) if uri in present else _coming(path, uri, sizes.get(uri), outlook.resumed.get(uri, 0))
        for uri, path in reversed(wanted.items())
        if uri not in outlook.duplicates
    )
    return DownloadPlan(targets=targets, files=tuple(files), outlook=outlook)


def _here(path: str, present: Present) -> PlannedFile:
    state: FileState = "local" if present.link is None else "cached"
    return PlannedFile(path=path, uri=present.identity.display, size=present.size, state=state)


def _coming(path: str, uri: ModelUri, size: int | None, resumed: int) -> PlannedFile:
    state: FileState = "resume" if resumed else "fetch"
    return PlannedFile(path=path, uri=uri.display, size=size, state=state, resumed=resumed)
