"""
The control path: one httpx client for listings, tokens and metadata.

What a source gets from it:

- GET and HEAD are tried again after connection failures and passing statuses, as the settings say; the last answer is
  handed over, since a status is the source's to judge. The first 4 MiB of a body are read within an attempt, so that a
  cut there is tried again too.
- So is a POST with the request extension ``repeatable`` set to True: one that changes nothing, such as for a token.
- Redirects of GET and HEAD are followed under the rules of :mod:`~nim_core.transfer.network`; with the request
  extension ``follow_redirects`` set to False they are handed over. The request extension ``target`` (bytes) is sent
  as the request's target to the letter, where httpx would write the URL in its own way. The request extension
  ``authorities`` (a path) names those to trust instead of the run's.
- Connection failures leave as errors of :mod:`nim_core.errors` that name the host, and never a path or a query.
- No cookie is kept, no environment is read, and content is never encoded: a small answer must not unfold to a big one.
"""

from __future__ import annotations

import importlib.metadata
import random
import ssl
import threading
import time
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, Self

import httpcore
import httpx
import structlog
from attrs import evolve, frozen

from nim_core.errors import NimError, SourceError
from nim_core.transfer.bodies import Body
from nim_core.transfer.dialing import Dialer, SocksDialer
from nim_core.transfer.failures import HTTPCORE_ERRORS, Peer, explain, proxy_refusal
from nim_core.transfer.hosts import is_loopback_host
from nim_core.transfer.network import (
    MAX_REDIRECTS,
    NetworkConfig,
    Origin,
    allowed_redirect,
    check_host,
    headers_across,
    origin,
)
from nim_core.transfer.proxies import Proxy
from nim_core.transfer.retry import RetryBudget, RetryPolicy, is_retryable_status, parse_retry_after
from nim_core.transfer.trust import Trust, own_trust, ssl_context

__all__ = ["MAX_HEADER_BYTES", "ControlTransport", "control_client"]

CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 30.0
WRITE_SECONDS: Final = 30.0
POOL_SECONDS: Final = 30.0
MAX_CONNECTIONS: Final = 16
MAX_HEADER_BYTES: Final = 64 * 1024
"""Names and values of an answer's headers together; httpcore gives up by itself at 100 KiB."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})

_log = structlog.get_logger(__name__)


def control_client(
    config: NetworkConfig,
    retry: RetryPolicy,
    *,
    sleep: Callable[[float], None] = time.sleep,
    asking: Callable[[Origin], object] | None = None,
) -> httpx.Client:
    """
    Return a client for control requests; the caller closes it. Safe to use from several threads.

    Args:
        config: Proxies, trust, and what may be reached.
        retry: How often to try again.
        sleep: Waits between attempts; may raise to abandon the request.
        asking: Hears whom each request goes to, on any thread.
    """
    return httpx.Client(
        transport=ControlTransport(config, retry, sleep, asking),
        timeout=httpx.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS, write=WRITE_SECONDS, pool=POOL_SECONDS),
        headers={
            "User-Agent": f"nim-core/{importlib.metadata.version('nim-core')}",
            "Accept-Encoding": "identity",
        },
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=())),
        trust_env=False,
        follow_redirects=False,
    )


@frozen(kw_only=True)
class _Hop:
    """
    One request of a chain of redirects.

    Attributes:
        request: The request that the chain began with.
        url: Where it goes now; its path and query are ``target``'s, in httpx's spelling.
        target: Sent to the letter.
        headers: Sent along, without Host.
        from_outside: Whether a redirect led here from another host than this machine.
    """

    request: httpx.Request
    url: httpx.URL
    target: bytes
    headers: tuple[tuple[str, str], ...]
    from_outside: bool = False

    @classmethod
    def first(cls, request: httpx.Request) -> Self:
        """Return the hop that is the request itself."""
        return cls(
            request=request,
            url=request.url,
            target=request.extensions.get("target", request.url.raw_path),
            headers=tuple(
                (name.decode("ascii"), value.decode("latin-1"))
                for name, value in request.headers.raw
                if name.lower() != b"host"
            ),
        )

    @property
    def text(self) -> str:
        """The URL as it is sent."""
        return f"{self.url.scheme}://{self.url.netloc.decode('ascii')}{self.target.decode('ascii')}"

    @property
    def is_safe(self) -> bool:
        """Whether it asks and does nothing else, so that it may be sent twice and carried elsewhere."""
        return self.request.method in _SAFE_METHODS

    @property
    def is_repeatable(self) -> bool:
        """Whether sending it twice does no harm."""
        return self.is_safe or self.request.extensions.get("repeatable", False) is True

    def core_request(self) -> httpcore.Request:
        """Return the request as httpcore takes it."""
        headers = [("Host", self.url.netloc.decode("ascii")), *self.headers]
        url = self.url
        return httpcore.Request(
            method=self.request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=self.target),
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers],
            content=self.request.stream,
            # httpcore would put "target" into the proxy's own CONNECT request too.
            extensions={name: value for name, value in self.request.extensions.items() if name == "timeout"},
        )

    def redirected(self, config: NetworkConfig, location: str) -> Self:
        """Return the next hop. Raises SourceError when the rules forbid it."""
        text = allowed_redirect(config, self.text, location)
        scheme, _, rest = text.partition("://")
        authority = rest.partition("/")[0].partition("?")[0]
        target = rest[len(authority) :]
        return evolve(
            self,
            url=httpx.URL(f"{scheme}://{authority}/"),
            target=(target if target.startswith("/") else f"/{target}").encode("ascii"),
            headers=headers_across(self.headers, self.text, text),
            from_outside=not is_loopback_host(origin(self.text).host),
        )


class ControlTransport(httpx.BaseTransport):
    """
    Carries out the requests of :func:`control_client`.

    Args:
        config: Proxies, trust, and what may be reached.
        retry: How often to try again.
        sleep: Waits between attempts; may raise to abandon the request.
        asking: Hears whom each request goes to, on any thread.
    """

    def __init__(
        self,
        config: NetworkConfig,
        retry: RetryPolicy,
        sleep: Callable[[float], None],
        asking: Callable[[Origin], object] | None = None,
    ) -> None:
        self._asking = asking
        self._config = config
        self._retry = retry
        self._sleep = sleep
        self._rng = random.SystemRandom()
        self._tls = ssl_context(config.trust)
        self._pools: dict[tuple[Proxy | None, bool, Trust], httpcore.ConnectionPool] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the final answer. Raises SourceError in its most fitting subclass, or ConfigError for a proxy's no."""
        hop = _Hop.first(request)
        check_host(self._config, hop.text)
        budget = RetryBudget(self._retry, self._rng)
        follow = hop.is_safe and request.extensions.get("follow_redirects", True)
        for _ in range(MAX_REDIRECTS + 1):
            response = self._answer(hop, budget)
            location = _location(response)
            if location is None or not follow:
                return response
            response.close()
            hop = hop.redirected(self._config, location)
        raise SourceError(f"more than {MAX_REDIRECTS} redirects: from {origin(str(request.url))}")

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()

    def _answer(self, hop: _Hop, budget: RetryBudget) -> httpx.Response:
        """Return the answer to one hop, tried again while the budget lasts."""
        while True:
            try:
                response = self._attempt(hop)
            except NimError as error:
                wait = budget.next_wait(None) if error.retryable and hop.is_repeatable else None
                if wait is None:
                    raise
                reason = error.message
            else:
                again = hop.is_repeatable and is_retryable_status(response.status_code)
                wait = budget.next_wait(parse_retry_after(response.headers, time.time())) if again else None
                if wait is None:
                    return response
                response.close()
                reason = f"HTTP {response.status_code}"
            _log.warning("control_retry", host=hop.url.host, reason=reason, seconds=round(wait, 1))
            self._sleep(wait)

    def _attempt(self, hop: _Hop) -> httpx.Response:
        proxy = self._config.proxy(hop.text)
        own = hop.request.extensions.get("authorities")
        trust = self._config.trust if own is None else own_trust(own)
        peer = Peer(origin=origin(hop.text), proxy=proxy, trust=trust)
        if self._asking is not None:
            self._asking(peer.origin)
        try:
            answer = self._pool(peer, from_outside=hop.from_outside).handle_request(hop.core_request())
        except HTTPCORE_ERRORS as exc:
            raise explain(exc, peer) from exc
        body = Body(answer, peer)
        try:
            if sum(len(name) + len(value) for name, value in answer.headers) > MAX_HEADER_BYTES:
                raise SourceError(f"answer with more than {MAX_HEADER_BYTES >> 10} KiB of headers: {peer}")
            if answer.status == 407 and proxy is not None:
                raise proxy_refusal(answer.status, peer)
            body.prefetch()
        except BaseException:
            body.close()
            raise
        return httpx.Response(answer.status, headers=answer.headers, stream=body, extensions=answer.extensions)

    def _pool(self, peer: Peer, *, from_outside: bool) -> httpcore.ConnectionPool:
        with self._lock:
            key = (peer.proxy, from_outside, peer.trust)
            if key not in self._pools:
                tls = self._tls if peer.trust == self._config.trust else ssl_context(peer.trust)
                self._pools[key] = self._new_pool(peer.proxy, tls, from_outside=from_outside)
            return self._pools[key]

    def _new_pool(self, proxy: Proxy | None, tls: ssl.SSLContext, *, from_outside: bool) -> httpcore.ConnectionPool:
        if proxy is not None and proxy.scheme in {"http", "https"}:
            return httpcore.HTTPProxy(
                proxy_url=httpcore.URL(scheme=proxy.scheme, host=proxy.host, port=proxy.port, target="/"),
                proxy_auth=_basic_pair(proxy),
                ssl_context=tls,
                proxy_ssl_context=self._tls if proxy.scheme == "https" else None,
                max_connections=MAX_CONNECTIONS,
            )
        dialer = (
            Dialer(self._config, from_outside=from_outside)
            if proxy is None
            else SocksDialer(self._config, proxy, from_outside=from_outside)
        )
        return httpcore.ConnectionPool(ssl_context=tls, max_connections=MAX_CONNECTIONS, network_backend=dialer)


def _location(response: httpx.Response) -> str | None:
    """Return where a redirect leads, byte for byte. None when the answer is no redirect."""
    found = (value for name, value in response.headers.raw if name.lower() == b"location")
    location = next(found, None) if response.status_code in _REDIRECTS else None
    return None if location is None else location.decode("latin-1")


def _basic_pair(proxy: Proxy) -> tuple[bytes, bytes] | None:
    if proxy.username is None:
        return None
    return proxy.username.reveal().encode(), proxy.password.reveal().encode() if proxy.password else b""
