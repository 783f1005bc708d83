"""
HTTP origins for tests: requests and answers are values, every exchange is recorded.

An origin is one address and one handler, a function from :class:`Request` to :class:`Response`. It speaks HTTP/1.1 with
kept-alive connections, plain or TLS, on a port the system chooses at 127.0.0.1. A :class:`Response` also says how it is
sent, which may be anything but decent; :mod:`nim_core.testing.misbehaving` has names for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import http
import itertools
import json
import os
import socket
import ssl
import struct
import termios
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, unquote

from attrs import field, frozen

from nim_core.testing.certificates import Certificates
from nim_core.testing.corpus import Content, inline

__all__ = ["Exchange", "Framing", "Handler", "HttpOrigin", "Request", "RequestLog", "Response", "json_response"]

Framing = Literal["length", "chunked", "close"]
"""How the end of a body is told: by Content-Length, in chunks, or by closing the connection."""

_EMPTY = inline(b"")
_ONE_WRITE = 1 << 16
_STEPS_PER_SECOND = 20
_DELIVERY_SECONDS = 1.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@frozen(kw_only=True)
class Request:
    """
    A request as it came in.

    Attributes:
        origin: Name of the origin that was asked.
        method: In capitals.
        target: Path and query to the letter, still encoded.
        headers: In the order sent.
        body: Empty when there was none.
    """

    origin: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def raw_path(self) -> str:
        """The path, still encoded."""
        return self.target.partition("?")[0]

    @property
    def path(self) -> str:
        """The path, decoded once."""
        return unquote(self.raw_path)

    @property
    def query(self) -> str:
        """What follows the first question mark, still encoded; empty when there is none."""
        return self.target.partition("?")[2]

    def parameters(self, name: str) -> list[str]:
        """Return the decoded values of a query parameter in the order given."""
        return [value for key, value in parse_qsl(self.query, keep_blank_values=True) if key == name]

    def parameter(self, name: str) -> str | None:
        """Return the first decoded value of a query parameter. None when absent."""
        return next(iter(self.parameters(name)), None)

    def header(self, name: str) -> str | None:
        """Return the first header of that name in any case. None when absent."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@frozen(kw_only=True)
class Response:
    """
    An answer, and how it is sent. Positions count bytes of the body.

    Attributes:
        status: HTTP status.
        headers: Without Content-Length, Transfer-Encoding and Connection, which the origin adds.
        body: Not sent to a HEAD.
        length: Announced instead of the body's true length. None: the truth.
        framing: How the end of the body is told.
        delay: Seconds before the first byte of the answer.
        rate: Bytes of the body per second. None: as fast as it goes.
        stall_at: Where nothing is sent for ``stall_seconds``. None: nowhere.
        stall_seconds: How long; may be infinite, the end of the origin ends it.
        cut_at: Where the connection is closed. None: not cut.
        reset_at: Where the connection is reset, after what was sent has been delivered. None: not reset.
        raw: Sent to the letter instead of status, headers and body; then the connection is closed, or reset with
            ``reset_at``. None: a proper answer.
    """

    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    body: Content = _EMPTY
    length: int | None = None
    framing: Framing = "length"
    delay: float = 0.0
    rate: float | None = None
    stall_at: int | None = None
    stall_seconds: float = float("inf")
    cut_at: int | None = None
    reset_at: int | None = None
    raw: bytes | None = None

    @property
    def stop(self) -> int:
        """How many bytes of the body are sent to a GET."""
        if self.raw is not None:
            return 0
        return min(end for end in (self.body.size, self.cut_at, self.reset_at) if end is not None)

    @property
    def announced(self) -> int | None:
        """What Content-Length says. None when there is none."""
        if self.framing != "length":
            return None
        return self.body.size if self.length is None else self.length


Handler = Callable[[Request], tuple[str, Response]]
"""Answers a request; the text is the name of the route that did, for the log. Called from several threads."""


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``value`` as a JSON answer."""
    body = inline(json.dumps(value, ensure_ascii=False))
    return Response(status=status, headers={"Content-Type": "application/json", **(headers or {})}, body=body)


@frozen(kw_only=True)
class Exchange:
    """A request with the route that answered it, the status, and how many bytes of body were to follow."""

    request: Request
    route: str
    status: int
    sent: int


class RequestLog:
    """Every exchange of one or more origins, in the order the answers were ready; safe to use from any thread."""

    def __init__(self) -> None:
        self._exchanges: list[Exchange] = []

    def __iter__(self) -> Iterator[Exchange]:
        return iter(tuple(self._exchanges))

    def __len__(self) -> int:
        return len(self._exchanges)

    def add(self, exchange: Exchange) -> None:
        """Record an exchange."""
        self._exchanges.append(exchange)

    def clear(self) -> None:
        """Forget everything."""
        self._exchanges.clear()

    def select(
        self,
        *,
        origin: str | None = None,
        route: str | None = None,
        method: str | None = None,
        path: str | None = None,
        status: int | None = None,
    ) -> list[Exchange]:
        """Return the exchanges that match everything given; ``path`` is a pattern with ``*`` for the decoded path."""
        return [
            exchange
            for exchange in self
            if origin in {None, exchange.request.origin}
            and route in {None, exchange.route}
            and method in {None, exchange.request.method}
            and status in {None, exchange.status}
            and (path is None or fnmatchcase(exchange.request.path, path))
        ]

    def count(self, **matching: Any) -> int:
        """Return how many exchanges :meth:`select` would return."""
        return len(self.select(**matching))


class HttpOrigin:
    """
    An origin, serving from ``__enter__`` to ``__exit__``; its address is known before.

    Args:
        name: What the log calls it.
        handler: Answers the requests. An exception in it becomes a 500 with the traceback as its body.
        log: Gets every exchange.
        certificates: Served with TLS when given.
        keep_waiting: Told the number of each connection, from 0; returns the seconds, which may be infinite, that it
            waits for its TLS handshake, or without TLS for anybody to read its first request. None: nobody waits.
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        *,
        log: RequestLog,
        certificates: Certificates | None = None,
        keep_waiting: Callable[[int], float] | None = None,
    ) -> None:
        self.name = name
        self.handler = handler
        self.log = log
        self.keep_waiting = keep_waiting
        self._server = _Server(self, certificates.server_context() if certificates else None)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name=f"origin {name}")
        self.url = f"{'https' if certificates else 'http'}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: Request) -> Response:
        """Return the handler's answer and record the exchange."""
        try:
            route, response = self.handler(request)
        except Exception:  # noqa: BLE001 - whatever a handler raises must reach the test as an answer
            route, response = "failed", Response(status=500, body=inline(traceback.format_exc()))
        sent = 0 if request.method == "HEAD" else response.stop
        self.log.add(Exchange(request=request, route=route, status=response.status, sent=sent))
        return response


class _Server(ThreadingHTTPServer):
    """Closes open connections when it is closed, so that no thread outlives it."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, origin: HttpOrigin, context: ssl.SSLContext | None) -> None:
        self.origin = origin
        self._context = context
        self._open: set[socket.socket] = set()
        self._numbers = itertools.count()
        self._closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Connection)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection; the handshake happens here, in the connection's own thread."""
        if self._context is not None:
            request = self._context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        self._open.add(request)
        try:
            if self.origin.keep_waiting is not None:
                self.pause(self.origin.keep_waiting(next(self._numbers)))
            if self._closing.is_set():
                return
            if isinstance(request, ssl.SSLSocket):
                request.do_handshake()
            super().finish_request(request, client_address)
        finally:
            self._open.discard(request)
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients go away and refuse certificates, as tests want them to."""

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the server."""
        self._closing.wait(None if seconds == float("inf") else seconds)

    def server_close(self) -> None:
        """End every connection, then wait for their threads."""
        self._closing.set()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Connection(BaseHTTPRequestHandler):
    """One kept-alive connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the standard library's
        """Write nothing; the log has it all."""

    def _serve(self) -> None:
        request = Request(
            origin=self.server.origin.name,
            method=self.command,
            target=self.path,
            headers=tuple(self.headers.items()),
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        self._send(request, self.server.origin.answer(request))

    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = _serve  # noqa: N815 - the library asks for these

    def _send(self, request: Request, response: Response) -> None:
        stop = 0 if request.method == "HEAD" else response.stop
        told = response.body.size if response.announced is None else response.announced
        if response.raw is not None or response.framing == "close" or (request.method != "HEAD" and stop != told):
            self.close_connection = True
        self.server.pause(response.delay)
        head = self._head(response) if response.raw is None else response.raw
        if response.rate is None and response.stall_at is None and stop <= _ONE_WRITE:
            self.connection.sendall(head + b"".join(self._framed(response, stop, request.method)))
        else:
            self.connection.sendall(head)
            for piece in self._framed(response, stop, request.method):
                self.connection.sendall(piece)
        if response.reset_at is not None and request.method != "HEAD":
            self._reset()

    def _framed(self, response: Response, stop: int, method: str) -> Iterator[bytes]:
        """Yield the body up to ``stop`` as it goes over the wire."""
        if response.framing != "chunked" or method == "HEAD":
            yield from self._paced(response, stop)
            return
        for piece in self._paced(response, stop):
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
        if stop == response.body.size and response.reset_at is None:
            yield b"0\r\n\r\n"

    def _paced(self, response: Response, stop: int) -> Iterator[bytes]:
        """Yield the body up to ``stop``, pausing after a piece where the answer says so."""
        stall = stop if response.stall_at is None else min(response.stall_at, stop)
        yield from self._slowly(response.body.pieces(0, stall), response.rate)
        if response.stall_at is not None and stall == response.stall_at:
            self.server.pause(response.stall_seconds)
        yield from self._slowly(response.body.pieces(stall, stop), response.rate)

    def _slowly(self, pieces: Iterator[bytes], rate: float | None) -> Iterator[bytes]:
        for piece in pieces:
            step = len(piece) if rate is None else max(1, int(rate / _STEPS_PER_SECOND))
            for start in range(0, len(piece), step):
                yield piece[start : start + step]
                if rate is not None:
                    self.server.pause(len(piece[start : start + step]) / rate)

    def _reset(self) -> None:
        """Reset the connection once the peer's system has everything that was sent: a reset would discard the rest."""
        deadline = time.monotonic() + _DELIVERY_SECONDS
        while _undelivered(self.connection) and time.monotonic() < deadline:
            self.server.pause(0.001)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        os.close(self.connection.detach())
        self.close_connection = True

    def _head(self, response: Response) -> bytes:
        reason = http.HTTPStatus(response.status).phrase if response.status in _STATUSES else "Unknown"
        lines = [f"HTTP/1.1 {response.status} {reason}", f"Date: {self.date_time_string()}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        if response.framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
        elif response.announced is not None and response.status not in {204, 304}:
            lines.append(f"Content-Length: {response.announced}")
        if self.close_connection:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _undelivered(connection: socket.socket) -> int:
    """Return how many bytes the peer's system has not confirmed."""
    return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0])


_STATUSES = {status.value for status in http.HTTPStatus}
