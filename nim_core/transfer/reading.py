"""Bytes that are read to be hashed and kept nowhere."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from nim_core.errors import NimError, SizeMismatchError, UnsupportedError
from nim_core.transfer.curl import CurlLoop
from nim_core.transfer.digests import StreamDigest
from nim_core.transfer.exchange import Ended, Request, Response, Timeouts
from nim_core.transfer.failures import Peer
from nim_core.transfer.network import NetworkConfig, origin
from nim_core.transfer.outcomes import Next, decide
from nim_core.transfer.retry import RetryBudget
from nim_core.types import Digest, HttpObject, Location

__all__ = ["Reader"]

_TICK_SECONDS: Final = 0.2


class Reader:
    """
    Reads remote files and says which digests they have; from any number of threads.

    Args:
        network: Proxy and trust rules.
        user_agent: Sent with each request.
    """

    def __init__(self, network: NetworkConfig, user_agent: str) -> None:
        self._network = network
        self._loop = CurlLoop(network, Timeouts(), user_agent)
        self._stopped = threading.Event()

    def digests(
        self,
        locate: Callable[[], Location],
        algorithms: tuple[str, ...],
        size: int,
        budget: RetryBudget,
        count: Callable[[int], None],
    ) -> tuple[Digest, ...]:
        """
        Read a file from its beginning to its end.

        Args:
            locate: Says where it is; asked for every attempt.
            algorithms: Digests to compute.
            size: Bytes it has to have.
            budget: For further attempts.
            count: Hears of bytes that came.

        Raises:
            SizeMismatchError: It has another size.
            SourceError: It cannot be read.
        """
        while True:
            sink = _Hashing(algorithms, size, count)
            location = locate()
            if not isinstance(location, HttpObject):
                raise UnsupportedError("only objects behind a URL can be read again")
            ended = self._get(location, sink)
            url = location.url.reveal()
            peer = Peer(origin=origin(url), proxy=self._network.proxy(url), trust=self._network.trust)
            decision = decide(ended, refusal=None, whole=sink.whole, peer=peer, name="object", now=time.time())
            if decision.next is Next.DONE:
                return sink.digests()
            self._wait(decision.error or UnsupportedError("redirected elsewhere"), decision.delay, budget)

    def close(self) -> None:
        """End what is under way."""
        self._stopped.set()
        self._loop.stop()

    def _wait(self, error: NimError, delay: float | None, budget: RetryBudget) -> None:
        wait = budget.next_wait(delay) if error.retryable else None
        if wait is None or self._stopped.wait(wait):
            raise error

    def _get(self, location: HttpObject, sink: _Hashing) -> Ended:
        done: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        request = Request(url=location.url, headers=location.headers, authorities=location.authorities)
        self._loop.submit(request, sink, done.put)
        while True:
            try:
                return done.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                if self._stopped.is_set():
                    raise InterruptedError("interrupted while reading") from None


class _Hashing:
    """Hashes the body of an answer on the loop's thread, which is several times faster than a network."""

    def __init__(self, algorithms: tuple[str, ...], size: int, count: Callable[[int], None]) -> None:
        self._digest = StreamDigest(algorithms, size)
        self._size = size
        self._came = 0
        self._count = count

    @property
    def whole(self) -> bool:
        """Whether every byte has come."""
        return self._came == self._size

    def accepts(self, response: Response) -> bool:
        return response.status == 200

    def write(self, data: bytes) -> None:
        self._came += len(data)
        if self._came > self._size:
            raise SizeMismatchError(f"more than the {self._size} bytes it should have")
        self._digest.update(memoryview(data))
        self._count(len(data))

    def finish(self) -> None:
        """Nothing is open."""

    def digests(self) -> tuple[Digest, ...]:
        return self._digest.digests()
