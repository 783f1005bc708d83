"""Requests under way, and which of them lag behind."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Final

from attrs import frozen

from nim_core.transfer.exchange import Request
from nim_core.transfer.failures import Peer
from nim_core.transfer.hosts import Origin
from nim_core.transfer.jobs import FileTask, Part
from nim_core.transfer.network import NetworkConfig, origin
from nim_core.transfer.routes import Route
from nim_core.transfer.sinks import FileSink, MemorySink

__all__ = ["Flight", "laggards"]

_LAG_SECONDS: Final = 10.0
_LAG_SIBLINGS: Final = 4
_LAG_FACTOR: Final = 8
"""A request this many times slower than the median of its siblings is ended and sent again on a new connection."""


@frozen(kw_only=True, eq=False)
class Flight:
    """
    A request under way for a part.

    Attributes:
        before: Bytes of the part that were there before it.
        route: Route of the file that it took.
        began: Monotonic time in seconds.
    """

    task: FileTask
    part: Part
    sink: FileSink | MemorySink
    request: Request
    before: int
    route: Route
    began: float

    def speed(self, now: float) -> float:
        """Bytes per second so far."""
        return (self.part.done - self.before) / max(now - self.began, 0.001)

    def peer(self, network: NetworkConfig) -> Peer:
        """Return who was asked, for messages."""
        if not self.request.url:
            return Peer(origin=Origin("stream", self.task.job.identity.scheme, 0), proxy=None, trust=network.trust)
        url = self.request.url.reveal()
        return Peer(origin=origin(url), proxy=network.proxy(url), trust=network.trust)


def laggards(flights: Iterable[Flight], now: float) -> list[Flight]:
    """Return the requests that run far below the median of those to the same host, and would go on for long."""
    old = [flight for flight in flights if now - flight.began > _LAG_SECONDS and not flight.task.small]
    by_host: dict[str, list[float]] = {}
    for flight in old:
        by_host.setdefault(flight.route.host, []).append(flight.speed(now))
    usual = {host: median(speeds) for host, speeds in by_host.items() if len(speeds) >= _LAG_SIBLINGS}
    return [flight for flight in old if _lags(flight, usual.get(flight.route.host, 0.0), now)]


def _lags(flight: Flight, usual: float, now: float) -> bool:
    speed, length = flight.speed(now), flight.part.length
    if length is None or speed * _LAG_FACTOR >= usual:
        return False
    return (length - flight.part.done) / max(speed, 1.0) > _LAG_SECONDS
