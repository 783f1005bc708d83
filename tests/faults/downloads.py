"""Whole downloads, from the listing to the receipt, in this process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import define, field, frozen

from nim_core.download import DownloadOptions, download
from nim_core.errors import NimError
from nim_core.plan import Plan, Target
from nim_core.settings import Settings
from nim_core.testing.corpus import Content
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.misbehaving import Script, well_behaved
from nim_core.types import TransferEvent
from tests.faults.invariants import violations
from tests.faults.shelf import URI, Shelf, registry_of, snapshot_of

__all__ = ["ENDLESS", "RIGHT", "Downloads", "Ended", "Observed"]

RIGHT = "right bytes"
"""The outcome that is no error."""

ENDLESS = "no end"
"""The outcome of a download that had to be ended by closing its origin."""

_LONGEST_SECONDS = 25.0

_PATIENCE_SECONDS = 2.0


@define
class Observed:
    """What a download says while it works."""

    events: list[TransferEvent] = field(factory=list)

    def phase(self, name: str) -> None: ...

    def planned(self, plan: Plan) -> None: ...

    def event(self, event: TransferEvent) -> None:
        self.events.append(event)


@frozen(kw_only=True)
class Ended:
    """
    How a download ended.

    Attributes:
        error: None when it succeeded.
        endless: Whether it went on until its origin was closed.
        faults: What is wrong with the cache now; empty when nothing is.
        visible: Blobs, links and receipts that are there.
        left: What is beneath ``tmp``.
        requests: How many requests for files there were.
        seconds: How long it took.
    """

    error: NimError | None
    endless: bool
    faults: list[str]
    visible: list[str]
    left: list[str]
    requests: int
    seconds: float

    @property
    def outcome(self) -> str:
        """:data:`RIGHT`, :data:`ENDLESS`, or the name of the error."""
        if self.endless:
            return ENDLESS
        return RIGHT if self.error is None else type(self.error).__name__


@define
class Downloads:
    """
    Downloads the model of a shelf into one cache.

    Attributes:
        cache: Its folder.
        installed: Where the shelf's plugin is installed.
        retries: How often each part is tried again; at once.
    """

    cache: Path
    installed: Path
    retries: int = 3

    def from_shelf(self, files: Mapping[str, Content], script: Script = well_behaved, **options: object) -> Ended:
        """Serve ``files`` as ``script`` says and download them; options as for :class:`Shelf`."""
        log, given_up = RequestLog(), threading.Event()
        with HttpOrigin("shelf", Shelf(files, script, **options), log=log) as origin:
            began = time.monotonic()
            with _limited(origin, given_up):
                error = self.fetch(origin.url)
            seconds = time.monotonic() - began
        links = [path for path in snapshot_of(self.cache).rglob("*") if not path.is_dir()]
        seen = [*self.cache.glob("*/hub/*/blobs/*"), *links, *self.cache.glob("receipts/*")]
        return Ended(
            error=error,
            endless=given_up.is_set(),
            faults=violations(self.cache, files, complete=error is None),
            visible=sorted(str(path.relative_to(self.cache)) for path in seen),
            left=sorted(path.name for path in self.cache.glob("tmp/*")),
            requests=log.count(path="/files/*"),
            seconds=seconds,
        )

    def fetch(self, url: str) -> NimError | None:
        """Download from the shelf at ``url`` and return the error, if there was one."""
        retrying = {
            "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": str(self.retries),
            "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "1",
        }
        settings = Settings({"SHELF_URL": url, **retrying})
        registry = registry_of(self.installed, settings)
        target = Target(id="shelf", label="shelf", uri=registry.parse_uri(URI))
        options = DownloadOptions(cache_path=self.cache, patience=_PATIENCE_SECONDS)
        try:
            download((target,), options, registry, settings, Observed())
        except NimError as exc:
            return exc
        return None


@contextlib.contextmanager
def _limited(origin: HttpOrigin, given_up: threading.Event) -> Iterator[None]:
    """Close ``origin`` when what is done meanwhile takes too long, which ends any download from it."""

    def give_up() -> None:
        given_up.set()
        origin.__exit__(None, None, None)

    timer = threading.Timer(_LONGEST_SECONDS, give_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
