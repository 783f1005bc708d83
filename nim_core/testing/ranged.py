"""Answers to ranged and conditional requests, as an S3-like store gives them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from attrs import frozen

from nim_core.testing.corpus import Content, part_of
from nim_core.testing.http_server import Request, Response

__all__ = ["serve_content", "strong_etag"]

_SINGLE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_LAST_MODIFIED = "Tue, 03 Jun 2025 08:00:00 GMT"
_MULTIPART_SIZE = 64 << 20


def strong_etag(content: Content) -> str:
    """
    Return the entity tag an S3-like store gives: the quoted MD5, or for a large object the form of a multipart upload.

    The latter is worked out from the ends of the content only, so that huge patterns cost nothing.
    """
    if content.size <= _MULTIPART_SIZE:
        return f'"{content.digest("md5").value}"'
    ends = content.read(0, 4096) + content.read(content.size - 4096, content.size) + str(content.size).encode()
    return f'"{hashlib.md5(ends, usedforsecurity=False).hexdigest()}-{-(-content.size // _MULTIPART_SIZE)}"'


def serve_content(
    request: Request, content: Content, *, etag: str, headers: Mapping[str, str] | None = None
) -> Response:
    """
    Answer a GET or HEAD for ``content``: 200, 206, 412 or 416.

    Range with one range, If-Range and If-Match are obeyed. What is not a single valid range, such as ``bytes=0--1``,
    is ignored, as RFC 9110 allows.
    """
    common = {"ETag": etag, "Accept-Ranges": "bytes", "Last-Modified": _LAST_MODIFIED, **(headers or {})}
    if not _precondition_holds(request, etag):
        return Response(status=412, headers=common)
    wanted = _wanted(request, etag, content.size)
    if wanted is None:
        return Response(headers=common, body=content)
    if wanted.start >= wanted.stop:
        return Response(status=416, headers={**common, "Content-Range": f"bytes */{content.size}"})
    span = {"Content-Range": f"bytes {wanted.start}-{wanted.stop - 1}/{content.size}"}
    return Response(status=206, headers={**common, **span}, body=part_of(content, wanted.start, wanted.stop))


@frozen
class _Span:
    start: int
    stop: int


def _precondition_holds(request: Request, etag: str) -> bool:
    condition = request.header("If-Match")
    return condition is None or condition.strip() == "*" or etag in [tag.strip() for tag in condition.split(",")]


def _wanted(request: Request, etag: str, size: int) -> _Span | None:
    found = _SINGLE_RANGE.fullmatch((request.header("Range") or "").strip())
    if found is None or found.group(1) == found.group(2) == "":
        return None
    if (request.header("If-Range") or etag) not in {etag, _LAST_MODIFIED}:
        return None
    first, last = found.groups()
    if not first:
        return _Span(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return _Span(int(first), min(int(last) + 1, size) if last else size)
