"""A shelf that is paced and counts what it sends, so that what a kill costs can be told in bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from attrs import evolve, frozen

from nim_core.testing.corpus import Content
from nim_core.testing.http_server import Request, Response
from tests.faults.shelf import Shelf

__all__ = ["PIECE", "Meter"]

PIECE = 1 << 18
"""Bytes that are counted at once, before they are sent."""


class Meter:
    """
    A handler for an origin.

    Args:
        files: Contents by path.
        rate: Bytes per second on one connection.

    Attributes:
        total: Bytes of all files.
        served: Bytes of files that went out, received or not.
        most: The most requests for files that were answered at once since :meth:`begin`.
    """

    def __init__(self, files: Mapping[str, Content], rate: float) -> None:
        self.files = files
        self.total = sum(content.size for content in files.values())
        self.served = 0
        self.most = 0
        self._rate = rate
        self._shelf = Shelf(files)
        self._under_way = 0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> tuple[str, Response]:
        route, response = self._shelf(request)
        if route != "file" or not response.body.size:
            return route, response
        return route, evolve(response, body=_Metered(response.body, self), rate=self._rate)

    def begin(self) -> None:
        """Forget how many requests were answered at once."""
        with self._lock:
            self.most = self._under_way

    def enter(self) -> None:
        """Count a body that begins."""
        with self._lock:
            self._under_way += 1
            self.most = max(self.most, self._under_way)

    def leave(self) -> None:
        """Count a body that ends, complete or not."""
        with self._lock:
            self._under_way -= 1

    def count(self, more: int) -> None:
        """Count bytes."""
        with self._lock:
            self.served += more


@frozen
class _Metered(Content):
    """The body of one answer."""

    body: Content
    meter: Meter

    @property
    def size(self) -> int:
        return self.body.size

    def read(self, start: int, stop: int) -> bytes:
        return self.body.read(start, stop)

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        end = self.size if stop is None else stop
        self.meter.enter()
        try:
            for position in range(start, end, PIECE):
                piece = self.read(position, min(position + PIECE, end))
                self.meter.count(len(piece))
                yield piece
        finally:
            self.meter.leave()
