"""
Answers that are wrong, each as a value with a name.

A :class:`Misbehaviour` makes of the answer that would be given the one that is given. The origin of
:mod:`nim_core.testing.misbehaving` gives them as a script says; every server of the kit takes them in its ``faults``::

    server.faults.add(bad_answers.cut(1000), route="storage", path="*/model.bin", times=2)

Positions count bytes of the body of an answer unless said otherwise.
"""

from __future__ import annotations

import email.utils
import gzip
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import evolve, field, frozen

from nim_core.testing.corpus import Content, PartContent, inline, part_of, with_flipped_byte
from nim_core.testing.faults import Fault
from nim_core.testing.http_server import Response

__all__ = [
    "WAIT_FORMS",
    "Misbehaviour",
    "broken_chunks",
    "chunked",
    "close_delimited",
    "cut",
    "gzipped",
    "huge_header",
    "late",
    "long_body",
    "many_headers",
    "multipart_range",
    "no_answer",
    "no_content_range",
    "not_http",
    "other_etag",
    "other_total",
    "other_version",
    "overrun",
    "rate_limited",
    "redirect",
    "reset",
    "reset_at_once",
    "shifted_range",
    "short_body",
    "stall",
    "status",
    "trickle",
    "whole_file",
    "wrong_bytes",
]

_HTML: Final = "<html><body><h1>{}</h1></body></html>\n"
_RANGE_HEADERS: Final = frozenset({"Content-Range", "Accept-Ranges"})


@frozen
class Misbehaviour:
    """
    A fault with a name; two of one name are equal.

    Args:
        name: What the origin does, as a predicate: ``cuts after 10 bytes``.
        change: Makes of the answer that would be given the answer that is given.
    """

    name: str
    change: Fault = field(repr=False, eq=False)

    def __call__(self, response: Response) -> Response:
        """Return the answer that is given."""
        return self.change(response)

    def __str__(self) -> str:
        return self.name


# ------------------------------------------------------------------------------------------------------- the connection
def _sent(name: str, **how: Any) -> Misbehaviour:
    return Misbehaviour(name, lambda response: evolve(response, **how))


def no_answer() -> Misbehaviour:
    """Close the connection without an answer."""
    return _sent("closes without an answer", raw=b"")


def reset_at_once() -> Misbehaviour:
    """Reset the connection without an answer."""
    return _sent("resets without an answer", raw=b"", reset_at=0)


def not_http() -> Misbehaviour:
    """Answer in another protocol."""
    return _sent("answers something other than HTTP", raw=b"220 smtp.example ESMTP ready\r\n")


def late(seconds: float) -> Misbehaviour:
    """Send nothing for so many seconds, then the answer."""
    return _sent(f"is silent for {seconds:g} s", delay=seconds)


def cut(at: int) -> Misbehaviour:
    """Close the connection after that many bytes of body."""
    return _sent(f"cuts after {at} bytes", cut_at=at)


def reset(at: int) -> Misbehaviour:
    """Reset the connection after that many bytes of body."""
    return _sent(f"resets after {at} bytes", reset_at=at)


def stall(at: int, seconds: float = float("inf")) -> Misbehaviour:
    """Stop sending after that many bytes of body, for so many seconds; then go on."""
    return _sent(f"stalls after {at} bytes for {seconds:g} s", stall_at=at, stall_seconds=seconds)


def trickle(rate: float) -> Misbehaviour:
    """Send that many bytes per second."""
    return _sent(f"sends {rate:g} bytes per second", rate=rate)


# ------------------------------------------------------------------------------------------------- framing and headers
def chunked() -> Misbehaviour:
    """Send the body in chunks, its length unknown before; HTTP allows it."""
    return _sent("sends chunks without a length", framing="chunked")


def close_delimited() -> Misbehaviour:
    """Tell the end of the body by closing the connection, as HTTP/1.0 did."""
    return _sent("tells the end by closing", framing="close")


def broken_chunks() -> Misbehaviour:
    """Send what looks like chunks but is none."""
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n"
    return _sent("sends broken chunks", raw=raw)


def huge_header(size: int = 1 << 20) -> Misbehaviour:
    """Send a header of that many bytes."""
    return _with_headers(f"sends a header of {size} bytes", lambda: {"X-Huge": "x" * size})


def many_headers(count: int) -> Misbehaviour:
    """Send that many headers."""
    return _with_headers(f"sends {count} headers", lambda: {f"X-Number-{number}": "x" for number in range(count)})


def _with_headers(name: str, headers: Callable[[], Mapping[str, str]]) -> Misbehaviour:
    return Misbehaviour(name, lambda response: evolve(response, headers={**response.headers, **headers()}))


# ------------------------------------------------------------------------------------------------------------- the body
def short_body(missing: int) -> Misbehaviour:
    """Send that many bytes fewer, and a Content-Length that fits what is sent."""
    return _with_body(f"sends {missing} bytes too few", lambda body: part_of(body, 0, max(0, body.size - missing)))


def long_body(more: int) -> Misbehaviour:
    """Send that many bytes more, and a Content-Length that fits what is sent."""
    return _with_body(f"sends {more} bytes too many", lambda body: inline(body.data() + b"x" * more))


def overrun(more: int) -> Misbehaviour:
    """Send that many bytes more than Content-Length says."""

    def change(response: Response) -> Response:
        return evolve(response, length=response.body.size, body=inline(response.body.data() + b"x" * more))

    return Misbehaviour(f"sends {more} bytes more than announced", change)


def wrong_bytes(offset: int) -> Misbehaviour:
    """Invert the byte at ``offset`` of the file, where the answer has it: right length, wrong bytes."""

    def change(body: Content) -> Content:
        start = body.start if isinstance(body, PartContent) else 0
        return with_flipped_byte(body, offset - start) if start <= offset < start + body.size else body

    return _with_body(f"has byte {offset} wrong", change)


def gzipped() -> Misbehaviour:
    """Compress the body, and say so, although that was not asked for."""

    def change(response: Response) -> Response:
        body = inline(gzip.compress(response.body.data(), 0, mtime=0))
        return evolve(response, headers={**response.headers, "Content-Encoding": "gzip"}, body=body)

    return Misbehaviour("compresses unasked", change)


def other_version(tag: str = '"another"') -> Misbehaviour:
    """Answer from another version of the file: other bytes of the same length under another entity tag."""

    def change(response: Response) -> Response:
        whole = _whole(response.body)
        other = with_flipped_byte(whole, whole.size // 2) if whole.size else whole
        body = response.body
        part = PartContent(whole=other, start=body.start, stop=body.stop) if isinstance(body, PartContent) else other
        return evolve(response, headers={**response.headers, "ETag": tag}, body=part)

    return Misbehaviour("has another version", change)


def other_etag(tag: str = '"another"') -> Misbehaviour:
    """Answer under another entity tag; the bytes are the same."""
    return _with_headers("has another entity tag", lambda: {"ETag": tag})


def _with_body(name: str, change: Callable[[Content], Content]) -> Misbehaviour:
    return Misbehaviour(name, lambda response: evolve(response, body=change(response.body)))


def _whole(body: Content) -> Content:
    return body.whole if isinstance(body, PartContent) else body


# --------------------------------------------------------------------------------------------------------------- ranges
def _to_range(name: str, change: Callable[[Response, PartContent], Response]) -> Misbehaviour:
    """Return a fault that strikes answers of part of a file."""
    return Misbehaviour(
        name,
        lambda response: (
            change(response, response.body)
            if response.status == 206 and isinstance(response.body, PartContent)
            else response
        ),
    )


def whole_file() -> Misbehaviour:
    """Ignore the range: 200 with the whole file."""

    def change(response: Response, body: PartContent) -> Response:
        headers = {name: value for name, value in response.headers.items() if name not in _RANGE_HEADERS}
        return evolve(response, status=200, headers=headers, body=body.whole)

    return _to_range("ignores ranges", change)


def shifted_range(by: int) -> Misbehaviour:
    """Answer with a range that begins ``by`` bytes later than the one asked for, and say so."""

    def change(response: Response, body: PartContent) -> Response:
        start = min(body.start + by, body.stop - 1)
        return _ranged(response, part_of(body.whole, start, body.stop), start, body.stop, body.whole.size)

    return _to_range(f"answers a range {by} bytes on", change)


def other_total(by: int) -> Misbehaviour:
    """Say in Content-Range that the file is ``by`` bytes longer than it is."""

    def change(response: Response, body: PartContent) -> Response:
        return _ranged(response, body, body.start, body.stop, body.whole.size + by)

    return _to_range(f"says the file is {by} bytes longer", change)


def no_content_range() -> Misbehaviour:
    """Answer 206 without saying which range it is."""

    def change(response: Response, body: PartContent) -> Response:
        headers = {name: value for name, value in response.headers.items() if name != "Content-Range"}
        return evolve(response, headers=headers, body=body)

    return _to_range("does not say which range", change)


def multipart_range() -> Misbehaviour:
    """Answer a single range in the form for several: multipart/byteranges."""

    def change(response: Response, body: PartContent) -> Response:
        head = f"--edge\r\nContent-Range: {response.headers['Content-Range']}\r\n\r\n".encode()
        headers = {**response.headers, "Content-Type": "multipart/byteranges; boundary=edge"}
        del headers["Content-Range"]
        return evolve(response, headers=headers, body=inline(head + body.data() + b"\r\n--edge--\r\n"))

    return _to_range("answers in several parts", change)


def _ranged(response: Response, body: Content, start: int, stop: int, total: int) -> Response:
    headers = {**response.headers, "Content-Range": f"bytes {start}-{stop - 1}/{total}"}
    return evolve(response, headers=headers, body=body)


# ------------------------------------------------------------------------------------------------------------- refusals
def status(code: int, headers: Mapping[str, str] | None = None) -> Misbehaviour:
    """Answer that status, with a page that no program should read."""
    page = inline(_HTML.format(code))
    answer = Response(status=code, headers={"Content-Type": "text/html", **(headers or {})}, body=page)
    return Misbehaviour(f"answers {code}", lambda _: answer)


def redirect(location: str, code: int = 302) -> Misbehaviour:
    """Send the client to ``location``, which may be relative; ``?again`` under ``always`` is a circle."""
    answer = Response(status=code, headers={"Location": location})
    return Misbehaviour(f"redirects to {location}", lambda _: answer)


def rate_limited(form: str, seconds: int = 1, code: int = 429) -> Misbehaviour:
    """
    Ask the client to come back later.

    Args:
        form: How the time is told; a key of :data:`WAIT_FORMS`.
        seconds: When to come back.
        code: 429, or 503.
    """
    write = WAIT_FORMS[form]
    page = inline(_HTML.format(code))

    def change(_response: Response) -> Response:
        return Response(status=code, headers=write(time.time() + seconds, seconds), body=page)

    return Misbehaviour(f"answers {code} with {form}", change)


def _date(layout: str) -> Callable[[float, int], Mapping[str, str]]:
    return lambda at, _seconds: {"Retry-After": time.strftime(layout, time.gmtime(at))}


WAIT_FORMS: Final[Mapping[str, Callable[[float, int], Mapping[str, str]]]] = {
    "no time": lambda _at, _seconds: {},
    "seconds": lambda _at, seconds: {"Retry-After": str(seconds)},
    "a date": lambda at, _seconds: {"Retry-After": email.utils.formatdate(at, usegmt=True)},
    "a date as in RFC 850": _date("%A, %d-%b-%y %H:%M:%S GMT"),
    "a date as of asctime": _date("%a %b %e %H:%M:%S %Y"),
    "a past date": lambda at, _seconds: {"Retry-After": email.utils.formatdate(at - 86400, usegmt=True)},
    "words": lambda _at, _seconds: {"Retry-After": "soon"},
    "a negative number": lambda _at, seconds: {"Retry-After": f"-{seconds}"},
    "RateLimit": lambda _at, seconds: {"RateLimit": f'"default";r=0;t={seconds}'},
    "RateLimit of two policies": lambda _at, seconds: {"RateLimit": f'"day";r=5;t=9000, "burst";r=0;t={seconds}'},
    "RateLimit of draft 7": lambda _at, seconds: {"RateLimit": f"limit=10, remaining=0, reset={seconds}"},
    "RateLimit-Reset": lambda _at, seconds: {"RateLimit-Remaining": "0", "RateLimit-Reset": str(seconds)},
    "X-RateLimit-Reset": lambda at, _seconds: {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(at))},
}
"""Headers that tell when to come back, by name: made from Unix time in seconds, and seconds from now."""
