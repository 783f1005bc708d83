"""Requests with bodies, for sinks: sent by libcurl, one call per request, from any number of threads."""

from __future__ import annotations

import os
import threading
from typing import Final

from nim_core.errors import StalledError
from nim_core.transfer.curl import CurlLoop
from nim_core.transfer.exchange import Ended, Request, Response, Timeouts
from nim_core.transfer.failures import Peer
from nim_core.transfer.network import NetworkConfig, origin
from nim_core.transfer.outcomes import no_answer_error
from nim_core.types import Body, HttpAnswer, HttpUpload

__all__ = ["Sender"]

_TIMEOUTS: Final = Timeouts(answer=120.0)
"""A store may take its time with the last bytes of a part, until all its copies are written."""


class Sender:
    """
    Sends requests for sinks; redirects are not followed, nothing is tried again.

    Args:
        network: Proxy and trust rules.
        user_agent: Sent with each request.
    """

    def __init__(self, network: NetworkConfig, user_agent: str) -> None:
        self._network = network
        self._loop = CurlLoop(network, _TIMEOUTS, user_agent)
        self._waiting: set[_Call] = set()
        self._lock = threading.Lock()
        self._closed = False

    def send(self, upload: HttpUpload) -> HttpAnswer:
        """
        Send a request and wait for its answer, whatever its status.

        Raises:
            TransientError: There is no answer; StalledError where that took too long.
            SourceError: There never will be, as where a certificate is not trusted.
            CacheError: The body cannot be read.
        """
        call = _Call()
        with self._lock:
            if self._closed:
                raise StalledError("nothing is sent any more")
            self._waiting.add(call)
        request = Request(
            url=upload.url,
            headers=upload.headers,
            method=upload.method,
            body=None if upload.body is None else _Reader(upload.body),
            authorities=upload.authorities,
        )
        self._loop.submit(request, _Answer(), call.end)
        call.ended.wait()
        with self._lock:
            self._waiting.discard(call)
        return self._answer(upload, call.result)

    def close(self) -> None:
        """Abandon what is under way; those who wait for it get an error."""
        with self._lock:
            self._closed = True
            waiting = tuple(self._waiting)
        self._loop.stop()
        for call in waiting:
            call.ended.set()

    def _answer(self, upload: HttpUpload, ended: Ended | None) -> HttpAnswer:
        if ended is None:
            raise StalledError("interrupted while bytes were being sent")
        url = upload.url.reveal()
        peer = Peer(origin=origin(url), proxy=self._network.proxy(url), trust=self._network.trust)
        error = no_answer_error(ended, peer)
        if error is not None:
            raise error from ended.error
        return HttpAnswer(status=ended.response.status, headers=ended.response.headers, body=ended.response.body)


class _Call:
    """A request somebody waits for."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.result: Ended | None = None

    def end(self, ended: Ended) -> None:
        """Hear on the loop's thread how it ended."""
        self.result = ended
        self.ended.set()


class _Answer:
    """Leaves the body of an answer to be kept with it."""

    def accepts(self, response: Response) -> bool:  # noqa: ARG002 - no status brings data
        return False

    def write(self, data: bytes) -> None:
        """Never called."""

    def finish(self) -> None:
        """Nothing is open."""


class _Reader:
    """Reads a body as libcurl takes it."""

    def __init__(self, body: Body) -> None:
        self.size = body.size
        self._body = body
        self._place = 0
        self._handle = -1

    def read(self, count: int) -> bytes:
        count = min(count, self.size - self._place)
        if self._body.data is not None:
            found = self._body.data[self._place : self._place + count]
        else:
            if self._handle < 0:
                self._handle = os.open(self._body.path, os.O_RDONLY | os.O_CLOEXEC)
            found = os.pread(self._handle, count, self._body.offset + self._place)
        if len(found) < count:
            raise OSError(f"file is shorter than it was: {self._body.path}")
        self._place += count
        self._body.taken(count)
        return found

    def seek(self, place: int) -> None:
        self._body.taken(place - self._place)
        self._place = place

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
