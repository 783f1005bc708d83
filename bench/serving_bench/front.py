"""
A front before an engine, as a process: ``python front.py CLIENT PORT ENGINE_PORT [names]``.

CLIENT is what talks to the engine: aiohttp, which is what the front uses, or httpx or httpcore in its place.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nim_core.serving import front
from nim_core.serving.listener import Listener
from nim_core.serving.state import Engine, ServingState
from nim_core.serving.upstream import Upstream
from nim_core.types import FrontDuties, LaunchPlan


class Answer:
    """An answer of another client, in the form that the proxy expects."""

    def __init__(self, status: int, raw_headers: list[tuple[bytes, bytes]], pieces: AsyncIterator[bytes]) -> None:
        self.status = status
        self.raw_headers = raw_headers
        self.content = self
        self.headers = self
        self.content_type = dict(raw_headers).get(b"content-type", b"").decode()
        self._pieces = pieces

    def getall(self, _name: str, default: list[str]) -> list[str]:
        """Return the values of a header that these engines do not send."""
        return default

    def iter_any(self) -> AsyncIterator[bytes]:
        """Return the pieces of the body."""
        return self._pieces


class HttpxUpstream(Upstream):
    """Requests over httpx."""

    def __init__(self) -> None:
        super().__init__()
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._client = httpx.AsyncClient(trust_env=False, timeout=None, limits=limits)

    @asynccontextmanager
    async def request(self, method: str, url: str, *, headers: Any = (), body: Any = None, **_options: Any) -> Any:
        """Send a request and have its answer."""
        async with self._client.stream(method, url, headers=list(headers), content=body) as response:
            yield Answer(response.status_code, response.headers.raw, response.aiter_raw())


class HttpcoreUpstream(Upstream):
    """Requests over httpcore."""

    def __init__(self) -> None:
        super().__init__()
        import httpcore

        self._pool = httpcore.AsyncConnectionPool(max_connections=None, max_keepalive_connections=100)

    @asynccontextmanager
    async def request(self, method: str, url: str, *, headers: Any = (), body: Any = None, **_options: Any) -> Any:
        """Send a request and have its answer."""
        sent = [("Host", "127.0.0.1"), *headers, ("Content-Length", str(len(body or b"")))]
        async with self._pool.stream(method, url, headers=sent, content=body) as response:
            raw = [(name.lower(), value) for name, value in response.headers]
            yield Answer(response.status, raw, response.aiter_stream())


CLIENTS = {"aiohttp": Upstream, "httpx": HttpxUpstream, "httpcore": HttpcoreUpstream}


def main() -> None:
    """Serve until killed."""
    client, port, engine_port, *names = sys.argv[1:]
    front.Upstream = CLIENTS[client]  # type: ignore[misc]
    front.prepare()
    state = ServingState()
    duties = FrontDuties(model="tiny", lists_models=True) if names else FrontDuties()
    plan = LaunchPlan(argv=("engine",), duties=duties, served_names=("tiny",))
    state.started(Engine(url=f"http://127.0.0.1:{engine_port}", plan=plan))
    state.enter("serving")
    Listener(front.make_front(state, front.FrontOptions(release="1")), "127.0.0.1", int(port)).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
