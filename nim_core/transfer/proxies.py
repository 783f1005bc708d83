"""Proxy variables as values: which proxy a URL is fetched through, and which hosts are reached directly. No I/O."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.types import Secret, Variables

__all__ = ["Proxy", "bypasses_proxy", "parse_proxy", "pick_proxy"]

_DEFAULT_PORTS: Final[Mapping[str, int]] = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]%]+)(?::(\d{1,5}))?")
_ENTRY_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):(\d+)")


@frozen(kw_only=True)
class Proxy:
    """
    One proxy.

    Attributes:
        variable: The environment variable that names it.
        scheme: ``http``, ``https``, ``socks4``, ``socks4a``, ``socks5`` or ``socks5h``; the forms ending in a letter
            leave name resolution to the proxy.
        host: Name or address, without brackets.
        port: Explicit, since libcurl's default of 1080 for every scheme is nobody else's.
        username: Decoded. None when the variable has no user.
        password: Decoded; empty where there is a user only. None when the variable has no user.
    """

    variable: str
    scheme: str
    host: str
    port: int
    username: Secret | None = None
    password: Secret | None = None

    @property
    def display(self) -> str:
        """The proxy without userinfo, for messages and logs."""
        return f"{self.scheme}://{self._authority}"

    @property
    def url(self) -> Secret:
        """The URL with userinfo percent-encoded, as libcurl takes it."""
        if self.username is None:
            return Secret(self.display)
        username, password = (quote(part.reveal() if part else "", safe="") for part in (self.username, self.password))
        return Secret(f"{self.scheme}://{username}:{password}@{self._authority}")

    @property
    def _authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_proxy(variable: str, value: Secret) -> Proxy:
    """
    Read the value of a proxy variable: a URL, or ``host:port`` which stands for ``http://host:port``.

    Raises:
        ConfigError: The value is neither. The message names the variable and shows nothing of the value.
    """
    scheme, marker, rest = value.reveal().partition("://")
    scheme, rest = (scheme.lower(), rest) if marker else ("http", scheme)
    authority, *beyond = re.split("[/?#]", rest, maxsplit=1)
    userinfo, at, host_port = authority.rpartition("@")
    match = _HOST_PORT.fullmatch(host_port)
    # An @ beyond the authority is a password with a raw slash, whose first half would be taken for the host.
    if scheme not in _DEFAULT_PORTS or match is None or any("@" in part for part in beyond):
        raise _not_a_proxy(variable)
    port = int(match[2] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise _not_a_proxy(variable)
    username, _, password = userinfo.partition(":")
    return Proxy(
        variable=variable,
        scheme=scheme,
        host=match[1].strip("[]").lower(),
        port=port,
        username=Secret(unquote(username)) if at else None,
        password=Secret(unquote(password)) if at else None,
    )


def _not_a_proxy(variable: str) -> ConfigError:
    schemes = ", ".join(_DEFAULT_PORTS)
    return ConfigError(
        f"{variable} is not a proxy URL",
        hint=f"write SCHEME://USER:PASSWORD@HOST:PORT with special characters of user and password percent-encoded, "
        f"where SCHEME is one of {schemes}",
    )


def pick_proxy(scheme: str, variables: Variables) -> Proxy | None:
    """
    Return the proxy for URLs of ``scheme``: from ``<scheme>_proxy``, else from ``all_proxy``; lower case wins.

    Only the variable that wins is parsed. None when none is set.

    Raises:
        ConfigError: As :func:`parse_proxy` does.
    """
    for lower in (f"{scheme}_proxy", "all_proxy"):
        for name in (lower, lower.upper()):
            value = variables.secret(name)
            if value:
                return parse_proxy(name, value)
    return None


def bypasses_proxy(no_proxy: str, host: str, port: int) -> bool:
    """
    Say whether ``no_proxy`` has ``host`` reached directly.

    Entries are separated by commas or blanks and compared without regard to case. ``*`` is every host; a name is that
    host and all below it, with or without a leading dot; an IPv4 or IPv6 address and a CIDR network match hosts given
    as addresses, names are not resolved; ``:port`` at the end narrows an entry to that port (an IPv6 address then
    needs brackets). The loopback is no exception: it has to be listed like any other. An entry that is none of these
    matches nothing.
    """
    host = host.strip("[]").rstrip(".").lower()
    entries = re.split(r"[\s,]+", no_proxy.lower())
    return any(_matches(entry, host, port) for entry in entries if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    address = _address(host)
    if "/" in entry:
        return address is not None and _in_network(address, entry)
    with_port = _ENTRY_PORT.fullmatch(entry)
    if with_port and int(with_port[2]) != port:
        return False
    name = with_port[1] if with_port else entry
    if address is not None:
        return _address(name.strip("[]")) == address
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _in_network(address: _Address, entry: str) -> bool:
    try:
        return address in ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False
