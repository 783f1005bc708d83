"""
Xet storage, as much of it as its official client needs to fetch whole files.

A file is one xorb of chunks that are not compressed. The forms are those of the Xet protocol's specification, version 1
of reconstructions (https://huggingface.co/docs/xet).
"""

from __future__ import annotations

from collections.abc import Iterable

from nim_core.testing.corpus import Content, inline
from nim_core.testing.http_server import Request, Response, json_response
from nim_core.testing.ranged import serve_content

__all__ = ["XetStorage"]

_CHUNK = 1 << 16


class XetStorage:
    """
    Files by the name that Xet storage has for them.

    Args:
        token: What requests for reconstructions must be signed with.
    """

    def __init__(self, token: str) -> None:
        self.url = ""
        self._token = token
        self._files: dict[str, Content] = {}

    def put(self, name: str, content: Content) -> None:
        """Store a file under its name of 64 hex digits."""
        self._files[name] = content

    def answer(self, request: Request) -> tuple[str, Response]:
        """Return the name of the route and its answer."""
        route, _, name = request.path.lstrip("/").rpartition("/")
        if route == "xorbs" and name in self._files:
            return "xorb", serve_content(request, inline(b"".join(_xorb(self._files[name]))), etag=f'"{name}"')
        if route != "v1/reconstructions" or name not in self._files:
            return "none", Response(status=404)
        if request.header("Authorization") != f"Bearer {self._token}":
            return "reconstruction", Response(status=401)
        return "reconstruction", json_response(self._reconstruction(name))

    def _reconstruction(self, name: str) -> dict[str, object]:
        content = self._files[name]
        chunks = {"start": 0, "end": -(-content.size // _CHUNK)}
        last = content.size + 8 * chunks["end"] - 1
        fetch = {"range": chunks, "url": f"{self.url}/xorbs/{name}", "url_range": {"start": 0, "end": last}}
        term = {"hash": name, "unpacked_length": content.size, "range": chunks}
        return {"offset_into_first_range": 0, "terms": [term], "fetch_info": {name: [fetch]}}


def _xorb(content: Content) -> Iterable[bytes]:
    """Yield header and bytes of each chunk: version 0, length as stored, scheme 0 for no compression, true length."""
    for start in range(0, content.size, _CHUNK):
        data = content.read(start, min(start + _CHUNK, content.size))
        length = len(data).to_bytes(3, "little")
        yield b"\0" + length + b"\0" + length + data
