"""Figures of the front for Prometheus, put before those of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from nim_core.serving.state import ServingState

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_PATHS: Final = 100
_OTHER: Final = "other"

disable_created_metrics()  # type: ignore[no-untyped-call] # they double the series, and nothing reads them in this format


class Metrics:
    """
    What the front counts.

    A request is counted by its path when the engine knew that path, at most a hundred of them: what clients make up
    must not become series.
    """

    def __init__(self, state: ServingState, version: str) -> None:
        self._registry = CollectorRegistry()
        self._paths: set[str] = set()
        self._requests = Counter(
            "nim_requests", "Requests that were answered.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "nim_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first = Histogram(
            "nim_request_first_byte_seconds",
            "From the first byte of a request to the first of its answer's body.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._broken = Counter(
            "nim_requests_broken", "Requests that ended before their answer did.", ["by"], registry=self._registry
        )
        self._in_flight = Gauge("nim_requests_in_flight", "Requests being answered.", registry=self._registry)
        self._registry.register(_StateCollector(state, version))

    def begun(self) -> None:
        """Count a request that begins."""
        self._in_flight.inc()

    def ended(self, path: str, status: int, first: float | None, seconds: float) -> None:
        """
        Count a request that has ended.

        Args:
            path: Its path.
            status: What it was answered with; 0 when it was not.
            first: Seconds to the first byte of the answer's body. None when it had none.
            seconds: In all.
        """
        self._in_flight.dec()
        label = self._label(path, status)
        self._requests.labels(label, str(status)).inc()
        self._seconds.labels(label).observe(seconds)
        if first is not None:
            self._first.labels(label).observe(first)

    def broken(self, by: str) -> None:
        """Count a request that ``client`` or ``engine`` broke off."""
        self._broken.labels(by).inc()

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)

    def _label(self, path: str, status: int) -> str:
        if path in self._paths:
            return path
        if not 200 <= status < 400 or len(self._paths) >= _PATHS:
            return _OTHER
        self._paths.add(path)
        return path


class _StateCollector(Collector):
    """Phase and progress, as they are when asked."""

    def __init__(self, state: ServingState, version: str) -> None:
        self._state = state
        self._version = version

    def collect(self) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
        """Return what there is to say now."""
        state = self._state
        phase = GaugeMetricFamily("nim_phase", "What is being done: 1 for the phase it is in.", labels=["phase"])
        phase.add_metric([state.phase], 1)
        yield phase
        yield GaugeMetricFamily("nim_phase_seconds", "How long that has been done.", value=state.seconds)
        yield GaugeMetricFamily("nim_ready", "Whether the engine serves.", value=float(state.ready))
        progress = state.progress
        if progress is not None:
            yield GaugeMetricFamily("nim_phase_bytes", "Bytes done in this phase.", value=progress.done)
            if progress.total is not None:
                yield GaugeMetricFamily("nim_phase_bytes_total", "Bytes of this phase.", value=progress.total)
        yield InfoMetricFamily("nim", "What serves.", value=self._facts())

    def _facts(self) -> dict[str, str]:
        served = self._state.served
        facts = {"version": self._version}
        if served is not None:
            backend = served.backend.get("name", "")
            facts |= {"profile_id": served.profile_id, "profile_name": served.profile_name, "backend": backend}
        return facts
