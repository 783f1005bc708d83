"""
An object store behind presigned URLs.

A URL carries its own permission, made and checked with a key only the store has. A request that brings a credential
besides is refused and kept in :attr:`SignedStorage.leaks`: whoever sent it gave a secret to a stranger.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from urllib.parse import quote

from attrs import evolve, frozen

from nim_core.testing.corpus import Content, inline, with_flipped_byte
from nim_core.testing.http_server import Request, Response
from nim_core.testing.ranged import serve_content, strong_etag

__all__ = ["CREDENTIAL_HEADERS", "SignedStorage"]

CREDENTIAL_HEADERS = ("Authorization", "Cookie", "X-NGC-Guest-Token")

_ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'


@frozen(kw_only=True)
class _Object:
    content: Content
    etag: str


class SignedStorage:
    """
    Objects by path.

    Args:
        lifetime: Seconds a signed URL is good for.
    """

    def __init__(self, *, lifetime: float) -> None:
        self.lifetime = lifetime
        self.leaks: list[Request] = []
        self._objects: dict[str, _Object] = {}
        self._serial = 1
        self._key = b"known to the store alone"

    def put(self, path: str, content: Content) -> None:
        """Store ``content`` at ``path``, which starts with a slash and is not encoded; its entity tag follows."""
        self._objects[path] = _Object(content=content, etag=strong_etag(content))

    def flip(self, path: str, offset: int) -> None:
        """Invert the byte at ``offset`` of what is stored; the entity tag stays, as when a disk fails."""
        stored = self._objects[path]
        self._objects[path] = evolve(stored, content=with_flipped_byte(stored.content, offset))

    def sign(self, path: str) -> str:
        """Return the path and query by which ``path`` may be read for :attr:`lifetime` seconds."""
        quoted = quote(path)
        expires = str(int(time.time() + self.lifetime))
        signature = self._signature(quoted, expires, str(self._serial))
        return f"{quoted}?Expires={expires}&Key-Pair-Id={self._serial}&Signature={signature}"

    def expire_urls(self) -> None:
        """Let every URL signed so far be expired."""
        self._serial += 1

    def answer(self, request: Request) -> Response:
        """Answer a GET or HEAD: the object, or 403 as XML, or 404."""
        if any(request.header(name) is not None for name in CREDENTIAL_HEADERS):
            self.leaks.append(request)
            return _refusal(403, "InvalidArgument", "Only one auth mechanism allowed")
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        stored = self._objects.get(request.path)
        if stored is None:
            return _refusal(404, "NoSuchKey", "The specified key does not exist.")
        headers = {"Content-Type": "application/octet-stream"}
        return serve_content(request, stored.content, etag=stored.etag, headers=headers)

    def _refusal(self, request: Request) -> Response | None:
        if request.method not in {"GET", "HEAD"}:
            return _refusal(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        expires, serial, given = (request.parameter(name) or "" for name in ("Expires", "Key-Pair-Id", "Signature"))
        if not hmac.compare_digest(self._signature(request.raw_path, expires, serial).encode(), given.encode()):
            return _refusal(403, "SignatureDoesNotMatch", "The request signature does not match.")
        if float(expires) < time.time() or int(serial) < self._serial:
            return _refusal(403, "AccessDenied", "Request has expired")
        return None

    def _signature(self, quoted_path: str, expires: str, serial: str) -> str:
        return hmac.new(self._key, f"{quoted_path}\n{expires}\n{serial}".encode(), hashlib.sha256).hexdigest()


def _refusal(status: int, code: str, message: str) -> Response:
    body = inline(_ERROR.format(code=code, message=message))
    return Response(status=status, headers={"Content-Type": "application/xml"}, body=body)
