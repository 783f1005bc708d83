"""One request, its answer, and how far it is: what the loop works on and hands back."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, Self

import pycurl
from attrs import define, field, frozen

from nim_core.errors import SourceError
from nim_core.types import Secret

__all__ = ["Ended", "Exchange", "Outgoing", "Request", "Response", "Sink", "Timeouts"]

_DIAGNOSIS_BYTES: Final = 64 * 1024
"""Of the body of an answer that is not data, this much is kept; more of it ends the connection."""

_MAX_HEADER_BYTES: Final = 256 * 1024
_LOW_SPEED: Final = 100
"""Bytes per second below which an answer stands still, by the average of the idle limit's time."""


@frozen(kw_only=True)
class Timeouts:
    """
    Limits of the phases of one request, in seconds; passing one ends the request, which is then tried again.

    Attributes:
        connect: Name resolution and connection.
        tls: TLS handshake.
        answer: From sending the request to the first byte of the answer.
        idle: Without a further byte, or with so few that it makes no difference.
    """

    connect: float = 15.0
    tls: float = 15.0
    answer: float = 30.0
    idle: float = 30.0

    @classmethod
    def of(cls, seconds: float) -> Self:
        """Return the same limit for all phases."""
        return cls(connect=seconds, tls=seconds, answer=seconds, idle=seconds)


class Sink(Protocol):
    """Takes the body of one answer, on the loop's thread."""

    def accepts(self, response: Response) -> bool:
        """Whether the body is the data that was asked for. Asked once, before the first byte and for an empty body."""

    def write(self, data: bytes) -> None:
        """Take the next bytes. An exception ends the request and is handed to the engine."""

    def finish(self) -> None:
        """Learn that no more bytes come; may raise as ``write`` does."""


@define
class Response:
    """Status and headers of an answer; header names in lower case, the last one of a name wins."""

    status: int = 0
    headers: dict[str, str] = field(factory=dict)
    body: bytes = b""


@frozen(kw_only=True)
class Request:
    """
    One request.

    Attributes:
        url: Sent byte for byte.
        headers: Sent as they are.
        first: First byte wanted.
        last: Last byte wanted. None for all from ``first`` on; no range is asked for then when ``first`` is 0.
        fresh: Whether an existing connection must not be used.
        multiplex: Whether the request may share a connection with others (HTTP/2).
        from_outside: Whether a host that is not this machine redirected here.
        authorities: PEM file of those to trust instead of the run's. None: the run's.
        method: Of the request.
        body: What is sent. None sends no body.
    """

    url: Secret
    headers: tuple[tuple[str, Secret], ...] = ()
    first: int = 0
    last: int | None = None
    fresh: bool = False
    multiplex: bool = False
    from_outside: bool = False
    authorities: Path | None = None
    method: str = "GET"
    body: Outgoing | None = None


class Outgoing(Protocol):
    """The body of a request, read on the loop's thread."""

    size: int

    def read(self, count: int) -> bytes:
        """Return up to ``count`` further bytes; none at the end. OSError ends the request."""

    def seek(self, place: int) -> None:
        """Go to a place, as a connection that turns out to be closed makes necessary."""

    def close(self) -> None:
        """Learn that nothing more is read."""


@frozen(kw_only=True)
class Ended:
    """
    How a request ended.

    Attributes:
        response: Status, headers and, when the sink did not accept it, the first bytes of the body.
        accepted: Whether the sink accepted the answer.
        code: libcurl's error number, 0 for none.
        message: libcurl's words for it.
        error: What the sink raised. None when it raised nothing.
        connect_status: What a proxy answered to CONNECT. 0 when it was not asked.
        address: Remote address. Empty when there was no connection.
        connected: Whether there was a connection.
        seconds: From start to end; for a stall, the length of it.
        stalled: What there was none of for too long. Empty when it was not that.
    """

    response: Response
    accepted: bool
    code: int
    message: str
    error: BaseException | None
    address: str
    connected: bool
    seconds: float
    connect_status: int = 0
    stalled: str = ""


@define(eq=False)
class Exchange:
    """
    A request under way, on the loop's thread.

    Attributes:
        accepted: Whether the sink takes the answer. None before it was asked.
        error: What the sink raised, or why the request was refused. None: nothing.
        handle: libcurl's.
        gate: Says whether so many bytes may be taken now. None: any number.
        paused: Whether the gate was closed.
        began: Monotonic time in seconds.
        sockets: Those that were opened for it.
        connected_at: When a connection was first seen. None: not yet.
        touched: When the answer last moved on. 0.0: no byte of it yet.
        counted: Bytes that came since ``counted_from``, in monotonic seconds.
        stalled: As in :class:`Ended`.
        sent_at: When bytes of the body were last taken. 0.0: none yet.
    """

    request: Request
    sink: Sink
    done: Callable[[Ended], None]
    response: Response = field(factory=Response)
    accepted: bool | None = None
    error: BaseException | None = None
    header_bytes: int = 0
    handle: Any = None
    gate: Callable[[int], bool] | None = None
    paused: bool = False
    began: float = 0.0
    sockets: list[socket.socket] = field(factory=list)
    connected_at: float | None = None
    touched: float = 0.0
    counted: int = 0
    counted_from: float = 0.0
    stalled: str = ""
    sent_at: float = 0.0

    def on_read(self, count: int) -> bytes | int:
        """Give bytes of the body."""
        try:
            data = self.request.body.read(count) if self.request.body else b""
        except BaseException as exc:  # noqa: BLE001 - handed to whoever sends
            self.error = exc
            return int(pycurl.READFUNC_ABORT)
        self.sent_at = time.monotonic()
        return data

    def on_seek(self, place: int, whence: int) -> int:
        """Go to a place in the body."""
        if self.request.body is None or whence != os.SEEK_SET:
            return int(pycurl.SEEKFUNC_FAIL)
        self.request.body.seek(place)
        return int(pycurl.SEEKFUNC_OK)

    def on_header(self, line: bytes) -> int | None:
        """Take a line of headers; ends the request when there are too many."""
        self._touch(len(line))
        self.header_bytes += len(line)
        if self.header_bytes > _MAX_HEADER_BYTES:
            self.error = SourceError("answer with too many or too long headers")
            return -1
        text = line.decode("latin-1").strip()
        if text.startswith("HTTP/"):
            words = text.split(None, 2)
            self.response = Response(status=int(words[1]) if len(words) > 1 and words[1].isdigit() else 0)
        elif ":" in text:
            name, _, value = text.partition(":")
            self.response.headers[name.strip().lower()] = value.strip()
        return None

    def on_body(self, data: bytes) -> int | None:
        """Take bytes of the body: hand them to the sink, or keep them when it does not want them."""
        self._touch(len(data))
        if self.gate is not None and not self.gate(len(data)):
            self.paused = True
            return int(pycurl.WRITEFUNC_PAUSE)
        try:
            if self.judge():
                self.sink.write(data)
                return None
        except BaseException as exc:  # noqa: BLE001 - handed to the engine, which knows what it means
            self.error = exc
            return -1
        if len(self.response.body) + len(data) > _DIAGNOSIS_BYTES:
            return -1
        self.response.body += data
        return None

    def judge(self) -> bool:
        """Ask the sink whether it takes the answer; once."""
        if self.accepted is None:
            self.accepted = self.sink.accepts(self.response)
        return self.accepted

    def note_connection(self, now: float) -> None:
        """Remember when a connection was first seen; libcurl tells only after the TLS handshake."""
        if self.connected_at is None and any(map(_is_connected, self.sockets)):
            self.connected_at = now

    def standstill(self, now: float, limits: Timeouts) -> tuple[str, float, float]:
        """Return what there is none of, for how many seconds there has been none, and for how many there may be."""
        elapsed = now - self.began
        sent = self.handle.getinfo(pycurl.PRETRANSFER_TIME)
        self.note_connection(now)
        if self.touched:
            return self._low_speed(now, limits.idle)
        if self.sent_at:
            return "nothing taken, and no answer, by", now - self.sent_at, limits.answer
        if sent:
            return "no answer from", elapsed - sent, limits.answer
        if self.connected_at is not None:
            return "no TLS handshake with", now - self.connected_at, limits.tls
        return "no connection to", elapsed, limits.connect

    def _touch(self, count: int) -> None:
        self.touched = time.monotonic()
        self.counted += count
        self.counted_from = self.counted_from or self.touched

    def _low_speed(self, now: float, limit: float) -> tuple[str, float, float]:
        """As :meth:`standstill`, of an answer that has begun; a rate that was asked for is never too low."""
        over = now - self.counted_from
        if self.gate is None and over > limit and now - self.touched <= limit:
            if self.counted < _LOW_SPEED * over:
                return f"less than {_LOW_SPEED} bytes per second from", over, limit
            self.counted, self.counted_from = 0, now
        return "no data from", now - self.touched, limit

    def close_sockets(self) -> None:
        """Close our handles of its sockets; libcurl has its own."""
        self.note_connection(time.monotonic())
        for item in self.sockets:
            item.close()

    def end(self, code: int, message: str, seconds: float | None = None) -> Ended:
        """
        Let the sink finish, and return how the request ended.

        Args:
            code: libcurl's error number, 0 for none.
            message: libcurl's words for it.
            seconds: Length of a stall. None: of the whole request.
        """
        curl = self.handle
        if not code:
            self._quietly(self.judge)  # an answer without a body, which the sink has not seen yet
        self._quietly(self.sink.finish)
        if self.request.body is not None:
            self.request.body.close()
        return Ended(
            response=self.response,
            accepted=bool(self.accepted),
            code=code,
            message=message,
            error=self.error,
            address=curl.getinfo(pycurl.PRIMARY_IP) or "",
            connected=bool(self.response.status) or self.connected_at is not None,
            seconds=curl.getinfo(pycurl.TOTAL_TIME) if seconds is None else seconds,
            stalled=self.stalled,
            connect_status=curl.getinfo(pycurl.HTTP_CONNECTCODE),
        )

    def _quietly(self, ask: Callable[[], object]) -> None:
        try:
            ask()
        except Exception as exc:  # noqa: BLE001 - handed to the engine, which knows what it means
            self.error = self.error or exc


def _is_connected(item: socket.socket) -> bool:
    try:
        item.getpeername()
    except OSError:
        return False
    return True
