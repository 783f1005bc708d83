"""How the control path opens connections: to addresses that the rules allow, or through a SOCKS proxy."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import Any, Final

import httpcore

from nim_core.errors import ConfigError, SourceError, TransientError
from nim_core.transfer.hosts import literal_address
from nim_core.transfer.network import NetworkConfig, refused_address
from nim_core.transfer.proxies import Proxy

__all__ = ["Dialer", "SocksDialer", "resolve"]

_SOCKS4_GRANTED: Final = 0x5A
_SOCKS4_USER_REFUSED: Final = frozenset({0x5C, 0x5D})
_SOCKS5_REFUSALS: Final = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "no answer in time",
    7: "command not supported",
    8: "kind of address not supported",
}
_SOCKS5_FINAL: Final = frozenset({2, 7, 8})


def resolve(host: str, port: int, family: int = socket.AF_UNSPEC) -> list[str]:
    """Return the addresses of ``host`` in the resolver's order, each once. Raises httpcore.ConnectError."""
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise httpcore.ConnectError(exc) from exc
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Dialer(httpcore.SyncBackend):
    """
    Connects directly, to the first allowed address that answers.

    Args:
        config: The rules.
        from_outside: Whether a redirect led here from another host than this machine.
    """

    def __init__(self, config: NetworkConfig, *, from_outside: bool) -> None:
        self._config = config
        self._from_outside = from_outside

    def allowed_addresses(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> list[str]:
        """Return what ``host`` resolves to. Raises SourceError when the rules refuse all of it."""
        found = resolve(host, port, family)
        allowed = [
            address
            for address in found
            if not refused_address(address, self._config, host=host, from_outside=self._from_outside)
        ]
        if not allowed:
            raise SourceError(f"refused to connect to {host}: it resolves to {', '.join(found)}")
        return allowed

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Open a connection. Raises SourceError when the rules refuse every address, else what httpcore raises."""
        *others, last = self.allowed_addresses(host, port)
        for address in others:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return super().connect_tcp(last, port, timeout, local_address, socket_options)


class SocksDialer(Dialer):
    """
    Connects through a SOCKS proxy, all four kinds; httpcore itself knows one.

    Args:
        config: The rules, for the kinds that leave name resolution to us.
        proxy: The proxy; reached without asking the rules, since the user named it.
        from_outside: As for :class:`Dialer`.
    """

    def __init__(self, config: NetworkConfig, proxy: Proxy, *, from_outside: bool) -> None:
        super().__init__(config, from_outside=from_outside)
        self._proxy = proxy

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - the interface's; the pools here set neither
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Open a tunnel. Raises ConfigError when the proxy wants other credentials, else as :class:`Dialer` does."""
        *others, last = self._targets(host, port)
        for target in others:
            with contextlib.suppress(TransientError):
                return self._tunnel(target, port, timeout)
        return self._tunnel(last, port, timeout)

    def _targets(self, host: str, port: int) -> list[str]:
        """Return what to ask the proxy for: the name where the proxy resolves it, else addresses."""
        if self._proxy.scheme in {"socks4a", "socks5h"}:
            return [host]
        family = socket.AF_INET if self._proxy.scheme == "socks4" else socket.AF_UNSPEC
        return self.allowed_addresses(host, port, family)

    def _tunnel(self, target: str, port: int, timeout: float | None) -> httpcore.NetworkStream:
        stream = httpcore.SyncBackend().connect_tcp(self._proxy.host, self._proxy.port, timeout)
        try:
            shake = _socks4 if self._proxy.scheme.startswith("socks4") else _socks5
            shake(_Wire(stream, timeout), self._proxy, target, port)
        except BaseException:
            stream.close()
            raise
        return stream


class _Wire:
    """A stream that is read in exact lengths."""

    def __init__(self, stream: httpcore.NetworkStream, timeout: float | None) -> None:
        self._stream = stream
        self._timeout = timeout

    def ask(self, data: bytes, length: int) -> bytes:
        self._stream.write(data, self._timeout)
        return self.take(length)

    def take(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self._stream.read(length - len(data), self._timeout)
            if not piece:
                raise TransientError("the SOCKS proxy closed the connection")
            data += piece
        return data


def _socks4(wire: _Wire, proxy: Proxy, host: str, port: int) -> None:
    address = literal_address(host)
    known = address is not None and address.version == 4
    # 0.0.0.1 announces that the name follows (SOCKS4a).
    packed = address.packed if address is not None and known else b"\x00\x00\x00\x01"
    user = proxy.username.reveal().encode() if proxy.username else b""
    name = b"" if known else host.encode("ascii") + b"\x00"
    _, code = struct.unpack("!BB6x", wire.ask(struct.pack("!BBH", 4, 1, port) + packed + user + b"\x00" + name, 8))
    if code in _SOCKS4_USER_REFUSED:
        raise _refused_user(proxy)
    if code != _SOCKS4_GRANTED:
        raise TransientError(f"the proxy {proxy.display} could not connect to {host}:{port}")


def _socks5(wire: _Wire, proxy: Proxy, host: str, port: int) -> None:
    method = 0 if proxy.username is None else 2
    _, chosen = wire.ask(bytes([5, 1, method]), 2)
    if chosen != method:
        raise _refused_user(proxy)
    if proxy.username is not None:
        _sign_in(wire, proxy)
    _, code, _, kind = wire.ask(b"\x05\x01\x00" + _socks5_address(host) + struct.pack("!H", port), 4)
    if code:
        said = _SOCKS5_REFUSALS.get(code, f"code {code}")
        error = SourceError if code in _SOCKS5_FINAL else TransientError
        raise error(f"the proxy {proxy.display} could not connect to {host}:{port}: {said}")
    length = {1: 4, 4: 16}.get(kind) or wire.take(1)[0]
    wire.take(length + 2)


def _sign_in(wire: _Wire, proxy: Proxy) -> None:
    user, password = ((part.reveal() if part else "").encode() for part in (proxy.username, proxy.password))
    # The protocol has one byte for each length.
    if max(len(user), len(password)) > 255:
        raise _refused_user(proxy)
    if wire.ask(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password, 2)[1]:
        raise _refused_user(proxy)


def _socks5_address(host: str) -> bytes:
    address = literal_address(host)
    if address is None:
        name = host.encode("ascii")
        return b"\x03" + bytes([len(name)]) + name
    return (b"\x01" if address.version == 4 else b"\x04") + address.packed


def _refused_user(proxy: Proxy) -> ConfigError:
    return ConfigError(
        f"the proxy {proxy.display} does not take the user and password it was given, or wants them",
        hint=f"set {proxy.variable} to {proxy.scheme}://USER:PASSWORD@{proxy.host}:{proxy.port}",
    )
