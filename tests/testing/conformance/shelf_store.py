"""A small object store with an HTTP interface of its own, for the sink of ``shelf_plugin``."""

from __future__ import annotations

import hashlib
import json
import threading
from itertools import count
from urllib.parse import unquote

import google_crc32c

from nim_core.testing.corpus import inline
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog, Response, json_response

TOKEN = "shelf-token-of-the-kit"
READER = "shelf-reader-of-the-kit"


class ShelfStore:
    """
    Serves ``/o/KEY`` (one bucket, ``shelf``), ``/list``, ``/u/ID/NUMBER`` and ``/copy``, like stores people know.

    PUT takes ``If-None-Match: *`` and ``If-Match``, compares ``X-Crc32c``, and stores ``X-Digests``.
    """

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        self.numbers = count(1)
        self.lock = threading.Lock()
        self.origin = HttpOrigin("shelf", self.answer, log=RequestLog())
        self.url = self.origin.url

    def __enter__(self):
        self.origin.__enter__()
        return self

    def __exit__(self, *failure):
        self.origin.__exit__(*failure)

    def answer(self, request: Request) -> tuple[str, Response]:
        bucket, _, rest = request.raw_path[1:].partition("/")
        kind, _, name = rest.partition("/")
        token = (request.header("Authorization") or "").removeprefix("Bearer ")
        if token not in {TOKEN, READER}:
            return kind, Response(status=401)
        if bucket != "shelf":
            return kind, Response(status=404, headers={"X-Missing": "bucket"})
        if token == READER and request.method not in {"GET", "HEAD"}:
            return kind, Response(status=403)
        if len(request.body) != int(request.header("Content-Length") or 0):
            return kind, Response(status=400)
        with self.lock:
            return kind, getattr(self, f"_{kind}")(request, unquote(name))

    def _o(self, request: Request, key: str) -> Response:
        if request.method in {"GET", "HEAD"}:
            return self._told(key)
        return self._write(request, key, request.body)

    def _told(self, key: str) -> Response:
        if key not in self.objects:
            return Response(status=404)
        data, digests = self.objects[key]
        return Response(headers={"ETag": _etag(data), "X-Digests": digests}, body=inline(data))

    def _write(self, request: Request, key: str, data: bytes) -> Response:
        there = self.objects.get(key)
        if request.header("If-None-Match") == "*" and there is not None:
            return Response(status=412)
        wanted = request.header("If-Match")
        if wanted is not None and (there is None or _etag(there[0]) != wanted):
            return Response(status=412)
        if request.header("X-Crc32c") not in {None, _crc32c(data)}:
            return Response(status=400)
        self.objects[key] = (data, request.header("X-Digests") or "")
        return Response(headers={"ETag": _etag(data)})

    def _list(self, request: Request, _name: str) -> Response:
        prefix = request.parameter("prefix") or ""
        found = {key: len(data) for key, (data, _) in self.objects.items() if key.startswith(prefix)}
        return json_response(found)

    def _u(self, request: Request, name: str) -> Response:
        upload, _, number = name.partition("/")
        if request.method == "POST" and not upload:
            upload = f"upload-{next(self.numbers)}"
            self.uploads[upload] = (request.parameter("key") or "", {})
            return json_response({"upload": upload})
        if upload not in self.uploads:
            return Response(status=404)
        return getattr(self, f"_{request.method.lower()}_upload")(request, upload, number)

    def _put_upload(self, request: Request, upload: str, number: str) -> Response:
        if request.header("X-Crc32c") not in {None, _crc32c(request.body)}:
            return Response(status=400)
        self.uploads[upload][1][int(number)] = request.body
        return Response()

    def _post_upload(self, request: Request, upload: str, _number: str) -> Response:
        key, parts = self.uploads[upload]
        answer = self._write(request, key, b"".join(data for _, data in sorted(parts.items())))
        if answer.status == 200:
            del self.uploads[upload]
        return answer

    def _delete_upload(self, _request: Request, upload: str, _number: str) -> Response:
        del self.uploads[upload]
        return Response()

    def _get_upload(self, _request: Request, upload: str, _number: str) -> Response:
        key, parts = self.uploads[upload]
        found = [[number, len(data), _crc32c(data)] for number, data in sorted(parts.items())]
        return json_response({"key": key, "parts": found})

    def _copy(self, request: Request, key: str) -> Response:
        origin = self.objects.get(request.parameter("from") or "")
        return Response(status=404) if origin is None else self._write(request, key, origin[0])


def _etag(data: bytes) -> str:
    return json.dumps(hashlib.sha256(data).hexdigest()[:16])


def _crc32c(data: bytes) -> str:
    return f"{google_crc32c.value(data):08x}"
