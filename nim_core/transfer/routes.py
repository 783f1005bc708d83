"""Where the requests of a file go now: to the URL that its source gave, or on to where that one redirected."""

from __future__ import annotations

import time
from pathlib import Path

from attrs import field, frozen

from nim_core.errors import SourceError
from nim_core.transfer.hosts import is_loopback_host
from nim_core.transfer.network import MAX_REDIRECTS, NetworkConfig, allowed_redirect, check_host, headers_across, origin
from nim_core.types import HttpObject, Secret

__all__ = ["NOWHERE", "Route"]


@frozen(kw_only=True, eq=False)
class Route:
    """
    Where requests go.

    Attributes:
        url: Sent byte for byte.
        headers: Sent along; only what the origin of ``url`` may see.
        host: Host of ``url``. Empty when there is none.
        authorities: PEM file of those to trust here and where this redirects, instead of the run's. None: the run's.
        hops: Redirects that led here.
        from_outside: Whether a host that is not this machine redirected here.
        fresh_until: Unix time in seconds after which the source has to be asked again. None: as long as it works.
    """

    url: Secret = field(factory=lambda: Secret(""))
    headers: tuple[tuple[str, Secret], ...] = ()
    host: str = ""
    authorities: Path | None = None
    hops: int = 0
    from_outside: bool = False
    fresh_until: float | None = None

    @classmethod
    def to(cls, location: HttpObject, network: NetworkConfig) -> Route:
        """Return the route to where a source says a file is. Raises SourceError for a host that may not be asked."""
        url = location.url.reveal()
        check_host(network, url)
        return cls(
            url=location.url,
            headers=location.headers,
            host=origin(url).host,
            fresh_until=_fresh_until(location.expires_at, time.time()),
            authorities=location.authorities,
        )

    def redirected(self, location: str, network: NetworkConfig) -> Route:
        """
        Return the route on to where an answer redirects.

        Raises:
            SourceError: It is not allowed, or the last of too many.
        """
        if self.hops >= MAX_REDIRECTS:
            raise SourceError(f"too many redirects: {self.host}")
        here = self.url.reveal()
        there = allowed_redirect(network, here, location)
        return Route(
            url=Secret(there),
            headers=headers_across(self.headers, here, there),
            host=origin(there).host,
            fresh_until=self.fresh_until,
            authorities=self.authorities,
            hops=self.hops + 1,
            from_outside=self.from_outside or not is_loopback_host(self.host),
        )


def _fresh_until(expires_at: float | None, now: float) -> float | None:
    """Leave a request the last tenth of the time; a time that has passed is that of another clock, and says nothing."""
    return None if expires_at is None or expires_at <= now else now + 0.9 * (expires_at - now)


NOWHERE = Route()
"""Of a file whose source has not been asked, or whose bytes come as a stream."""
