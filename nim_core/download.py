"""The one function behind ``download-to-cache``: targets → listings → plan → engine → cache → receipts."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from attrs import frozen

from nim_core.plan import Plan, Target
from nim_core.registry import Registry
from nim_core.settings import Settings
from nim_core.types import TransferEvent

__all__ = ["DownloadOptions", "DownloadResult", "Observer", "TargetResult", "download"]


@frozen(kw_only=True)
class DownloadOptions:
    """
    How to download.

    Attributes:
        cache_path: Folder of the model cache.
        use_cache: A complete receipt is enough; the source is not asked and nothing is hashed.
        verify: Check digests of what is fetched and of what is cached.
        force: Fetch everything again.
    """

    cache_path: Path
    use_cache: bool = False
    verify: bool = True
    force: bool = False


@frozen(kw_only=True)
class TargetResult:
    """
    What became of one target.

    Attributes:
        target: The target, its files filled in where a model URI was listed.
        receipt: Its receipt. None when the cache cannot be written and already had all files.
        files: How many files it has.
        fetched: How many of them were fetched now.
    """

    target: Target
    receipt: Path | None
    files: int
    fetched: int


@frozen(kw_only=True)
class DownloadResult:
    """What was done: per target, and in all ``bytes_fetched`` bytes over the network in ``seconds``."""

    targets: tuple[TargetResult, ...]
    plan: Plan
    bytes_fetched: int
    seconds: float


class Observer(Protocol):
    """Hears how a download goes on, from any thread; must return at once."""

    def phase(self, name: str) -> None:
        """Hear that a phase begins: ``listing``, ``verifying``, ``fetching``, ``finishing``."""

    def planned(self, plan: Plan) -> None:
        """Hear what will be done, once, before the first byte."""

    def event(self, event: TransferEvent) -> None:
        """Hear a fact about a file."""


def download(
    targets: tuple[Target, ...], options: DownloadOptions, registry: Registry, settings: Settings, observer: Observer
) -> DownloadResult:
    """
    Bring every file of ``targets`` into the cache.

    Raises:
        NimError: In its most fitting subclass; what was verified until then stays, nothing else is visible.
        KeyboardInterrupt: Within a second of the user's wish; partials are kept.
    """
    raise NotImplementedError
