"""
A relay between core and the server of a plugin's tests: it sees every request, and puts faults into the answers.

It is a forward proxy for plain HTTP. Core is pointed at it by its proxy variables, which both of its paths obey, so
that neither the plugin nor the server of its tests has to know.
"""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import urljoin, urlsplit

from attrs import define, evolve, field, frozen

from nim_core.testing.corpus import Content, PartContent, inline
from nim_core.testing.faults import Fault
from nim_core.testing.http_server import Exchange, HttpOrigin, Request, RequestLog, Response

__all__ = ["ELSEWHERE", "Kind", "Relay"]

Kind = Literal["listing", "data", "token"]
"""
Data are requests for URLs that ``locate`` handed out, and for where those redirect to; tokens are asked for at services
that do nothing else; all other requests are listing.
"""

ELSEWHERE: Final = "http://elsewhere.example"
"""Another origin, which exists for clients of the relay only; its answers are those of the origin redirected from."""

_SECONDS: Final = 30.0
_HOP_BY_HOP: Final = frozenset(
    {
        *("connection", "content-length", "date", "keep-alive", "proxy-authenticate", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    }
)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_OF_THE_RANGE: Final = frozenset({"range", "if-range"})


@define(kw_only=True)
class _Rule:
    """A fault in force, after it has let ``after`` answers pass; it strikes ``left`` more, or with None always."""

    fault: Fault
    kind: Kind
    file: str | None
    left: int | None
    after: int

    def strikes(self, kind: Kind, file: str | None) -> bool:
        """Whether it strikes an answer; counts it."""
        if self.left == 0 or self.kind != kind or self.file not in {None, file}:
            return False
        if self.after:
            self.after -= 1
            return False
        self.left = None if self.left is None else self.left - 1
        return True


class Relay:
    """
    A relay, listening while it is entered.

    Args:
        token_services: URLs of services that hand out tokens and nothing else.

    Attributes:
        url: For ``http_proxy``.
        log: Every request, its target the whole URL. The route is its kind.
    """

    def __init__(self, token_services: Iterable[str] = ()) -> None:
        self._token_services = tuple(f"{_canonical(url).rstrip('/')}/" for url in token_services)
        self.log = RequestLog()
        self._origin = HttpOrigin("relay", self._answer, log=self.log)
        self.url = self._origin.url
        self._rules: list[_Rule] = []
        self._data: dict[str, str] = {}
        self._moving: set[Kind] = set()
        self._moved: dict[str, Request] = {}
        self._before: Callable[[], object] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._origin.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._origin.__exit__(kind, error, trace)

    def handed_out(self, url: str, file: str) -> None:
        """Hear that the data of ``file`` are at ``url``."""
        with self._lock:
            self._data[_canonical(url)] = file

    def fault(
        self, fault: Fault, kind: Kind, *, file: str | None = None, times: int | None = None, after: int = 0
    ) -> None:
        """
        Put a fault into answers that are no redirects.

        Args:
            fault: What to do with an answer.
            kind: Of the requests it strikes.
            file: Strikes the data of this file only. None: of all.
            times: How many answers it strikes. None: all.
            after: How many answers it lets pass first.
        """
        with self._lock:
            self._rules.append(_Rule(fault=fault, kind=kind, file=file, left=times, after=after))

    def send_elsewhere(self, kind: Kind) -> None:
        """Redirect the first GET or HEAD of that kind to :data:`ELSEWHERE`, where the same answer is to be had."""
        with self._lock:
            self._moving.add(kind)

    def before_data(self, action: Callable[[], object]) -> None:
        """Have ``action`` done once, before the first request for data is passed on."""
        self._before = action

    def clear(self) -> None:
        """Forget what was seen, and put no more faults in."""
        with self._lock:
            self._rules.clear()
            self._moving.clear()
        self.log.clear()

    def seen(self, kind: Kind | None = None) -> list[Exchange]:
        """Return the requests of that kind, or all, in the order of their answers."""
        return self.log.select(route=kind)

    def _answer(self, request: Request) -> tuple[str, Response]:
        if not request.target.startswith("http://"):
            return "listing", Response(status=400, body=inline("the relay is a proxy for http:// URLs"))
        url = _canonical(request.target)
        with self._lock:
            file = self._data.get(url)
            kind = self._kind(url, file, request.method)
            before, self._before = (self._before, None) if kind == "data" else (None, self._before)
            moved = self._moved.get(url) or request
            elsewhere = self._elsewhere(request, kind, file)
        if before is not None:
            before()
        if elsewhere is not None:
            return kind, Response(status=302, headers={"Location": elsewhere})
        response = _forwarded(_with_range_of(moved, request))
        if response.status in {301, 302, 303, 307, 308}:
            if kind == "data" and file is not None:
                self.handed_out(urljoin(moved.target, response.headers.get("Location", "")), file)
            return kind, response
        return kind, self._spoiled(kind, file, response)

    def _kind(self, url: str, file: str | None, method: str) -> Kind:
        if url.startswith(self._token_services):
            return "token"
        return "listing" if file is None or method == "HEAD" else "data"

    def _elsewhere(self, request: Request, kind: Kind, file: str | None) -> str | None:
        """Return where a request is redirected to. None: nowhere."""
        if kind not in self._moving or request.method not in {"GET", "HEAD"}:
            return None
        self._moving.discard(kind)
        place = f"{ELSEWHERE}/{len(self._moved)}"
        self._moved[place] = request
        if file is not None:
            self._data[place] = file
        return place

    def _spoiled(self, kind: Kind, file: str | None, response: Response) -> Response:
        with self._lock:
            struck = [rule for rule in self._rules if rule.strikes(kind, file)]
        for rule in struck:
            response = rule.fault(response)
        return response


def _canonical(url: str) -> str:
    """Return a URL as one and the same text, with or without the default port and a fragment."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port not in {None, 80} else ""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path or '/'}{query}"


def _with_range_of(first: Request, request: Request) -> Request:
    """Return the request that was redirected, for the range that is asked for now."""
    if first is request:
        return request
    kept = [(name, value) for name, value in first.headers if name.lower() not in _OF_THE_RANGE]
    asked = [(name, value) for name, value in request.headers if name.lower() in _OF_THE_RANGE]
    return evolve(first, method=request.method, headers=(*kept, *asked))


def _forwarded(request: Request) -> Response:
    """Return the server's answer; where none comes, one that closes the connection."""
    try:
        status, headers, body = _exchange(request)
    except (OSError, http.client.HTTPException):
        return Response(raw=b"")
    kept = {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
    lower = {name.lower(): value for name, value in headers.items()}
    if request.method == "HEAD":
        length = lower.get("content-length")
        return Response(
            status=status,
            headers=kept,
            length=None if length is None else int(length),
            framing="close" if length is None else "length",
        )
    return Response(status=status, headers=kept, body=_body(request, body, lower.get("content-range", "")))


def _exchange(request: Request) -> tuple[int, Mapping[str, str], bytes]:
    parts = urlsplit(request.target)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_SECONDS)
    try:
        target = request.target.partition("://")[2].partition("/")
        connection.putrequest(request.method, f"/{target[2]}", skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers:
            if name.lower() not in _HOP_BY_HOP | {"proxy-authorization"}:
                connection.putheader(name, value)
        if request.body:
            connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body or None)
        answer = connection.getresponse()
        headers: dict[str, str] = {}
        for name, value in answer.getheaders():
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return answer.status, headers, answer.read()
    finally:
        connection.close()


def _body(request: Request, body: bytes, content_range: str) -> Content:
    """Return the body; that of a range knows the file it is part of, which faults may ask for."""
    found = _CONTENT_RANGE.fullmatch(content_range)
    if found is None or int(found[2]) + 1 - int(found[1]) != len(body):
        return inline(body)
    start, last, total = (int(text) for text in found.groups())
    return _Part(whole=_Whole(request=request, length=total), start=start, stop=last + 1, held=body)


@frozen(kw_only=True)
class _Whole(Content):
    """The file that an answer is part of; asked for when somebody reads it."""

    request: Request
    length: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.length

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` up to ``stop``."""
        plain = tuple((name, value) for name, value in self.request.headers if name.lower() not in _OF_THE_RANGE)
        return _exchange(evolve(self.request, headers=plain))[2][start:stop]


@frozen(kw_only=True)
class _Part(PartContent):
    """A part that is here already."""

    held: bytes = field(repr=lambda value: f"<{len(value)} bytes>")

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` up to ``stop`` of the part."""
        return self.held[start:stop]
