"""What went wrong on a control connection: httpcore's exceptions to core's errors, by type, never by text."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Final

import httpcore
from attrs import frozen

from nim_core.errors import ConfigError, NimError, SourceError, StalledError, TransientError
from nim_core.transfer.hosts import Origin
from nim_core.transfer.proxies import Proxy
from nim_core.transfer.trust import Trust

__all__ = ["HTTPCORE_ERRORS", "Peer", "explain", "proxy_refusal"]

HTTPCORE_ERRORS: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)
_NO_SUCH_HOST: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})
_UNREACHABLE: Final = (
    "check the address and, in a closed network, HTTPS_PROXY; a complete cache needs no network with --use-cache"
)
_CUT_DURING_TLS: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_H11_HEADERS_TOO_LARGE: Final = 431


@frozen(kw_only=True)
class Peer:
    """Who was talked to: ``origin``, through ``proxy`` if any, under ``trust``."""

    origin: Origin
    proxy: Proxy | None
    trust: Trust

    def __str__(self) -> str:
        """Name both, and nothing secret."""
        return str(self.origin) if self.proxy is None else f"{self.origin} through the proxy {self.proxy.display}"


def explain(exc: Exception, peer: Peer) -> NimError:
    """Return the error for an exception of :data:`HTTPCORE_ERRORS`; ``retryable`` says whether to try again."""
    for kind, explained in _TABLE:
        if isinstance(exc, kind):
            return explained(exc, peer)
    return TransientError(f"connection lost: {peer} ({_words(exc)})")


def proxy_refusal(status: int, peer: Peer) -> NimError:
    """Return the error for a proxy that answered ``status`` instead of passing a request on."""
    display = peer.proxy.display if peer.proxy else "in between"
    if status == 407:
        variable = peer.proxy.variable if peer.proxy else "HTTPS_PROXY"
        return ConfigError(
            f"the proxy wants a user and password, or others than it was given: {display}",
            hint=f"set {variable} to SCHEME://USER:PASSWORD@HOST:PORT, special characters percent-encoded",
        )
    kind = TransientError if status >= 500 or status in {0, 408, 429} else SourceError
    return kind(
        f"the proxy {display} refused to connect to {peer.origin} (HTTP {status})",
        hint="have the host allowed on the proxy, or list it in NO_PROXY if it can be reached directly",
    )


def _connect_failed(exc: Exception, peer: Peer) -> NimError:
    cause = _cause(exc)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return SourceError(
            f"certificate not trusted: {peer} ({cause.verify_message})",
            hint="set SSL_CERT_FILE to a file with the authority that signed it; "
            f"trusted now: {peer.trust.origin} ({peer.trust.ca_file or peer.trust.ca_path})",
        )
    if isinstance(cause, ssl.SSLError):
        kind = TransientError if isinstance(cause, _CUT_DURING_TLS) else SourceError
        return kind(f"TLS handshake failed: {peer} ({cause.reason or cause.strerror})")
    if isinstance(cause, socket.gaierror):
        kind = SourceError if cause.errno in _NO_SUCH_HOST else TransientError
        return kind(
            f"host name not resolved: {peer} ({cause.strerror})",
            hint="check the spelling and, in a closed network, HTTPS_PROXY and HTTP_PROXY",
        )
    if isinstance(cause, UnicodeError):
        return SourceError(f"not a host name: {peer}")
    return TransientError(f"cannot connect: {peer} ({_words(exc)})", hint=_UNREACHABLE)


def _broken_protocol(exc: Exception, peer: Peer) -> NimError:
    if getattr(_cause(exc), "error_status_hint", None) == _H11_HEADERS_TOO_LARGE:
        return SourceError(f"answer with too many or too long headers: {peer}")
    return TransientError(f"connection cut, or not HTTP: {peer} ({_words(exc)})")


def _tunnel_refused(exc: Exception, peer: Peer) -> NimError:
    # httpcore gives the status of a refused CONNECT in no other form than "407 Reason".
    status = str(exc).partition(" ")[0]
    return proxy_refusal(int(status) if status.isdigit() else 0, peer)


def _cause(exc: Exception) -> object:
    """Return the exception that httpcore wrapped: its argument, since the pool cuts ``__cause__`` off."""
    return exc.args[0] if exc.args else None


def _words(exc: Exception) -> str:
    cause = _cause(exc)
    return (cause.strerror if isinstance(cause, OSError) else None) or str(exc) or type(exc).__name__


_TABLE: Final[tuple[tuple[type[Exception], Callable[[Exception, Peer], NimError]], ...]] = (
    (httpcore.ConnectTimeout, lambda _, peer: TransientError(f"no connection in time: {peer}")),
    (httpcore.PoolTimeout, lambda _, peer: TransientError(f"no free connection in time: {peer}")),
    (httpcore.TimeoutException, lambda _, peer: StalledError(f"no data for too long: {peer}")),
    (httpcore.ConnectError, _connect_failed),
    (httpcore.ProxyError, _tunnel_refused),
    (httpcore.RemoteProtocolError, _broken_protocol),
    (httpcore.LocalProtocolError, lambda exc, peer: SourceError(f"not a request that can be sent: {peer} ({exc})")),
    (httpcore.UnsupportedProtocol, lambda _, peer: SourceError(f"not http or https: {peer}")),
)
