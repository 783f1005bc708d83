"""
How many requests a host gets at once, and how many bytes a run takes per second. Pure: time is an argument.

A host begins with a few requests. While more are waiting and the last step brought a tenth more bytes, it gets twice as
many; a step that brought nothing is taken back, and later ones are of a quarter, once in a while. An answer that asks
for less (429, 503) halves the number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, field

__all__ = ["HostPace", "Paces", "TokenBucket"]

_WINDOW_SECONDS: Final = 1.0
_GAIN: Final = 1.10
_HOLD_SECONDS: Final = 10.0
_REFUSED_SECONDS: Final = 30.0


@define
class HostPace:
    """
    The number of requests one host gets at once.

    Attributes:
        allowed: The number now.
        ceiling: Never more than this.
        in_flight: Requests under way.
    """

    allowed: int
    ceiling: int
    in_flight: int = 0
    _bytes: int = field(default=0, init=False)
    _since: float | None = field(default=None, init=False)
    _rate: float = field(default=0.0, init=False)
    _before: int = field(default=0, init=False)
    _doubling: bool = field(default=True, init=False)
    _hold_until: float = field(default=0.0, init=False)

    @property
    def free(self) -> bool:
        """Whether one more request may begin."""
        return self.in_flight < self.allowed

    def received(self, count: int) -> None:
        """Count bytes from this host."""
        self._bytes += count

    def refused(self, now: float) -> None:
        """Learn that the host asked for less, at ``now`` seconds."""
        self.allowed = max(1, min(self.allowed, self.in_flight + 1) // 2)
        self._before, self._doubling = 0, False
        self._hold_until = now + _REFUSED_SECONDS

    def adapt(self, now: float, *, waiting: bool) -> None:
        """
        Look at the last second and change the number.

        Args:
            now: Monotonic time in seconds.
            waiting: Whether requests wait for this host; without them the rate says nothing about the number.
        """
        if self._since is None or not waiting:
            self._since, self._bytes = now, 0
            return
        if now - self._since < _WINDOW_SECONDS:
            return
        rate = self._bytes / (now - self._since)
        self._since, self._bytes = now, 0
        if self._before and rate < self._rate * _GAIN:
            self.allowed, self._before = self._before, 0
            self._doubling = False
            self._hold_until = now + _HOLD_SECONDS
        elif now >= self._hold_until and self.allowed < self.ceiling:
            self._before, self._rate = self.allowed, rate
            step = self.allowed if self._doubling else max(2, self.allowed // 4)
            self.allowed = min(self.ceiling, self.allowed + step)


@define
class Paces:
    """
    The pace of every host of a run.

    Attributes:
        start: Requests under way to one host at the beginning.
        most: And at the most.
    """

    start: int
    most: int
    _paces: dict[str, HostPace] = field(factory=dict, init=False)
    _paused: dict[str, float] = field(factory=dict, init=False)

    def of(self, host: str) -> HostPace:
        """Return the pace of a host."""
        if host not in self._paces:
            self._paces[host] = HostPace(min(self.start, self.most), self.most)
        return self._paces[host]

    def pause(self, host: str, until: float) -> None:
        """Have no request begin to a host before ``until`` seconds."""
        self._paused[host] = until

    def open(self, host: str, now: float) -> bool:
        """Whether a request to a host may begin at ``now`` seconds."""
        return self._paused.get(host, 0.0) <= now and self.of(host).free

    def adapt(self, now: float, waits: Callable[[str], bool]) -> None:
        """Adapt every pace, as :meth:`HostPace.adapt`; ``waits`` says whether requests wait for a host."""
        for host, pace in self._paces.items():
            pace.adapt(now, waiting=not pace.free and waits(host))


@define
class TokenBucket:
    """
    Limits bytes per second; a tenth of a second's worth may come at once.

    Attributes:
        rate: Bytes per second.
    """

    rate: float
    _tokens: float = field(default=0.0, init=False)
    _at: float | None = field(default=None, init=False)

    def open(self, now: float) -> bool:
        """Whether bytes may be taken at ``now`` seconds."""
        elapsed = 0.0 if self._at is None else now - self._at
        self._at = now
        self._tokens = min(self.rate / 10, self._tokens + elapsed * self.rate)
        return self._tokens >= 0

    def take(self, count: int) -> None:
        """Take bytes; more than there are is made up for by waiting."""
        self._tokens -= count
