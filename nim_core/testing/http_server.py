"""
HTTP origins for tests: requests and answers are values, every exchange is recorded.

An origin is one address and one handler, a function from :class:`Request` to :class:`Response`. It speaks HTTP/1.1 with
kept-alive connections, plain or TLS, on a port the system chooses at 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import http
import json
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote

from attrs import field, frozen

from nim_core.testing.certificates import Certificates
from nim_core.testing.corpus import Content, inline

__all__ = ["Exchange", "Handler", "HttpOrigin", "Request", "RequestLog", "Response", "json_response"]

_EMPTY = inline(b"")
_ONE_WRITE = 1 << 16


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
    An answer.

    Attributes:
        status: HTTP status.
        headers: Without Content-Length, which the origin adds.
        body: Not sent to a HEAD.
        length: Announced instead of the body's true length. None: the truth.
        cut_at: Bytes of the body after which the connection is closed. None: not cut.
    """

    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    body: Content = _EMPTY
    length: int | None = None
    cut_at: int | None = None


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
    """

    def __init__(
        self, name: str, handler: Handler, *, log: RequestLog, certificates: Certificates | None = None
    ) -> None:
        self.name = name
        self.handler = handler
        self.log = log
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
        sent = 0 if request.method == "HEAD" else response.body.size
        sent = sent if response.cut_at is None else min(sent, response.cut_at)
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
        self._closing = False
        super().__init__(("127.0.0.1", 0), _Connection)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection; the handshake happens here, in the connection's own thread."""
        if self._context is not None:
            request = self._context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        self._open.add(request)
        try:
            if self._closing:
                return
            if isinstance(request, ssl.SSLSocket):
                request.do_handshake()
            super().finish_request(request, client_address)
        finally:
            self._open.discard(request)
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients go away and refuse certificates, as tests want them to."""

    def server_close(self) -> None:
        """End every connection, then wait for their threads."""
        self._closing = True
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
        length = response.body.size if response.length is None else response.length
        stop = response.body.size if response.cut_at is None else min(response.cut_at, response.body.size)
        if request.method == "HEAD":
            stop = 0
        elif stop != length:
            self.close_connection = True
        head = self._head(response, length)
        if 0 < stop <= _ONE_WRITE:
            head += response.body.read(0, stop)
            stop = 0
        self.connection.sendall(head)
        for piece in response.body.pieces(0, stop):
            self.connection.sendall(piece)

    def _head(self, response: Response, length: int) -> bytes:
        reason = http.HTTPStatus(response.status).phrase if response.status in _STATUSES else "Unknown"
        lines = [f"HTTP/1.1 {response.status} {reason}", f"Date: {self.date_time_string()}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        if response.status not in {204, 304}:
            lines.append(f"Content-Length: {length}")
        if self.close_connection:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


_STATUSES = {status.value for status in http.HTTPStatus}
