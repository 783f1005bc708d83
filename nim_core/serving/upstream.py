"""
Requests to the engine, over aiohttp.

It parses answers in C: beside httpx and httpcore, whose parser is Python, it takes less than half the CPU of a request
and 60 % of that of a token (``bench/serving.py``).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

__all__ = ["EngineGoneError", "Upstream"]

_CONNECT_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 3.0
"""Shorter than the 5 s after which engines close idle connections: a request must not meet a connection that ends."""

_FIELD_BYTES: Final = 64 * 1024
_OWN_HEADERS: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
"""What aiohttp would add; the client's own are sent, or none."""


class EngineGoneError(Exception):
    """The engine refused a connection, or broke one off."""


class Upstream:
    """Connections to one engine; used in one event loop."""

    def __init__(self) -> None:
        self._session: ClientSession | None = None

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] | None = None,
        seconds: float | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """
        Send a request and have its answer, whose body has yet to be read; leaving the context early ends it there.

        Args:
            method: Of HTTP.
            url: With path and query, which are sent as they are.
            headers: Those, and none else but Host and what says how long the body is.
            body: None: no body.
            seconds: How long all of it may take. None: as long as it does.

        Raises:
            EngineGoneError: It cannot be reached, or breaks off, before or during its answer.
        """
        import aiohttp
        from yarl import URL

        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        options = {"headers": list(headers), "data": body, "timeout": timeout, "allow_redirects": False}
        try:
            async with await self._ask(method, URL(url, encoded=True), options) as response:
                try:
                    yield response
                except BaseException:
                    response.close()
                    raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineGoneError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error

    async def _ask(self, method: str, url: URL, options: dict[str, Any]) -> ClientResponse:
        """
        Send a request, and once more where it met the end of its connection.

        llama.cpp closes a connection after each stream without saying so, a moment later: a request that is sent on it
        meanwhile was never read. One that was read, and crashed the engine, meets nobody any more.
        """
        import aiohttp

        session = self._session_of_loop()
        try:
            return await session.request(method, url, **options)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not isinstance(options["data"], bytes | None):
                raise
            return await session.request(method, url, **options)

    async def fetch(self, url: str, *, seconds: float) -> tuple[int, bytes]:
        """Return status and body of a GET. Raises EngineGoneError, too when it takes longer than ``seconds``."""
        async with self.request("GET", url, seconds=seconds) as response:
            return response.status, await response.read()

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _session_of_loop(self) -> ClientSession:
        if self._session is None:
            self._session = _make_session()
        return self._session


def _make_session() -> Any:
    import aiohttp

    # an engine is asked on this machine, where its certificate, made out to a public name, proves nothing
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=context, use_dns_cache=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_OWN_HEADERS,
        auto_decompress=False,
        trust_env=False,
        max_line_size=_FIELD_BYTES,
        max_field_size=_FIELD_BYTES,
    )
