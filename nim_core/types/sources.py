"""Sources: the Protocols of their workers and the record that announces them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import frozen

from nim_core.types.credentials import Credential
from nim_core.types.environment import EnvVar, Variables
from nim_core.types.files import CacheKey, Listing, Location, RemoteFile
from nim_core.types.uris import ModelUri, UriStyle

if TYPE_CHECKING:
    import httpx


@frozen(kw_only=True)
class Capabilities:
    """
    What a source can do beyond the minimum; all off unless said. Core and the kit branch on each.

    Attributes:
        pins_revisions: Every listing names the immutable revision it belongs to.
        overridable: Its URIs obey NIM_REPOSITORY_OVERRIDE, and a mirror's keys leave their scheme out.
    """

    pins_revisions: bool = False
    overridable: bool = False


@frozen(kw_only=True)
class SourceContext:
    """
    What core hands to a source when it makes one.

    Attributes:
        http: Client for control calls, with proxy, CA, timeouts, retry, redirect and redaction rules in it. Connection
            failures leave it as :class:`~nim_core.errors.TransientError`; statuses are the source's to judge.
        variables: The variables its spec declares.
        credential: Asks the installed plugins for a credential; remembered until it expires.
    """

    http: httpx.Client
    variables: Variables
    credential: Callable[[str, ModelUri | None], Credential]


class Source(Protocol):
    """Says what is at a URI and where its bytes are. Made by ``SourceSpec.factory``; must not do I/O when made."""

    def list_files(self, uri: ModelUri) -> Listing:
        """
        List what ``uri`` names; ``uri.file`` is None unless the style is OBJECT.

        Raises:
            SourceError: In its most fitting subclass.
        """

    def locate(self, uri: ModelUri, file: RemoteFile) -> Location:
        """
        Say where the bytes of ``file``, one of the listing of ``uri``, are now.

        Asked again when a URL has expired or was refused; must then not answer from memory what was refused.
        """

    def close(self) -> None:
        """Free what was opened. Called once, when nothing else is running."""


@runtime_checkable
class CachePlacement(Protocol):
    """Optional ability of a source: its files live elsewhere in the cache than core would put them."""

    def cache_key(self, uri: ModelUri, pinned: str | None) -> CacheKey:
        """Return the place for files of ``uri`` at revision ``pinned``. Pure: no network, no disk."""


@runtime_checkable
class FileNaming(Protocol):
    """
    Optional ability of a source of OBJECT style that pins nothing: it knows what a file is called without asking.

    Core then asks neither for the size nor for the digests of a file whose digest a manifest promises, where there are
    many.
    """

    def file_name(self, uri: ModelUri) -> str:
        """Return the path that a listing of ``uri`` would have. Pure: no network, no disk."""


@frozen(kw_only=True)
class SourceSpec:
    """
    A source a plugin brings.

    Attributes:
        name: Unique, usually the plugin's own.
        schemes: URI schemes it owns, lower case.
        uri_style: The grammar of all its schemes.
        summary: One line for ``plugins list``.
        factory: Makes the worker; imports its vendor's library then, not before.
        capabilities: What it can do beyond the minimum.
        environment: Variables it reads, in priority order.
    """

    name: str
    schemes: tuple[str, ...]
    uri_style: UriStyle
    summary: str
    factory: Callable[[SourceContext], Source]
    capabilities: Capabilities = Capabilities()
    environment: tuple[EnvVar, ...] = ()
