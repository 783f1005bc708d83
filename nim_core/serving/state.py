"""What a start to serve has come to: written by the thread that starts, read by the front."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from nim_core.types import LaunchPlan

__all__ = ["Engine", "Progress", "Served", "ServingState"]


@frozen(kw_only=True)
class Progress:
    """How far a phase is: bytes done, bytes in all and seconds left, None where that is not known."""

    done: int = 0
    total: int | None = None
    seconds_left: float | None = None


@frozen(kw_only=True)
class Served:
    """
    What is served, as the front tells it.

    Attributes:
        profile_id: Of the chosen profile.
        profile_name: What that is called.
        model_urls: URIs of the model, without files and secrets.
        manifest: Text of the manifest, YAML.
        licenses: Texts of the model's license files, by path; read once the model is there.
        backend: Name and version of what serves, such as ``{"name": "...", "distribution": "...", "version": "..."}``.
    """

    profile_id: str
    profile_name: str
    model_urls: tuple[str, ...] = ()
    manifest: str = ""
    licenses: Mapping[str, str] = field(factory=dict)
    backend: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Engine:
    """A running engine: where it listens, such as ``http://127.0.0.1:8001``, and what its backend says of it."""

    url: str
    plan: LaunchPlan


@frozen(kw_only=True)
class _Now:
    phase: str = "starting"
    since: float = 0.0
    ready: bool = False
    served: Served | None = None
    engine: Engine | None = None
    progress: Callable[[], Progress] | None = None


class ServingState:
    """
    What a start to serve has come to; every method may be called from any thread.

    Phases are words for people: ``starting``, ``choosing``, ``listing``, ``downloading``, ``verifying``,
    ``laying out``, ``waiting for nodes``, ``starting engine``, ``serving``, ``stopping``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._now = _Now(since=clock())

    @property
    def phase(self) -> str:
        """What is being done."""
        return self._now.phase

    @property
    def seconds(self) -> float:
        """How long that has been done."""
        now = self._now
        return self._clock() - now.since

    @property
    def ready(self) -> bool:
        """Whether the engine serves."""
        return self._now.ready

    @property
    def served(self) -> Served | None:
        """What is served. None before that is chosen."""
        return self._now.served

    @property
    def engine(self) -> Engine | None:
        """The engine. None before it was started, and after it ended."""
        return self._now.engine

    @property
    def progress(self) -> Progress | None:
        """How far the phase is. None for one whose length is not known."""
        tell = self._now.progress
        return None if tell is None else tell()

    def enter(self, phase: str, progress: Callable[[], Progress] | None = None) -> None:
        """Note that a phase begins; ``serving`` alone means ready."""
        with self._lock:
            ready = phase == "serving"
            self._now = evolve(self._now, phase=phase, since=self._clock(), progress=progress, ready=ready)

    def chosen(self, served: Served) -> None:
        """Note what is served."""
        with self._lock:
            self._now = evolve(self._now, served=served)

    def started(self, engine: Engine | None) -> None:
        """Note that an engine was started, or that it ended."""
        with self._lock:
            self._now = evolve(self._now, engine=engine, ready=self._now.ready and engine is not None)

    def as_record(self) -> dict[str, Any]:
        """Return phase and progress as ``/v1/health/ready`` tells them."""
        record: dict[str, Any] = {"phase": self.phase, "phase_seconds": round(self.seconds, 1)}
        progress = self.progress
        if progress is not None:
            left = progress.seconds_left
            eta = None if left is None else round(left, 1)
            record |= {"bytes_done": progress.done, "bytes_total": progress.total, "eta_seconds": eta}
        return record
