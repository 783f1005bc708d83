"""Hosts, addresses and redirects as pure decisions: what must not be reached, and what must not be sent there."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote, urljoin

from nim_core.errors import SourceError

__all__ = [
    "KEPT_HEADERS",
    "Address",
    "Origin",
    "headers_across",
    "is_forbidden_address",
    "is_forbidden_name",
    "is_loopback_host",
    "literal_address",
    "origin",
    "resolve_location",
    "unmapped",
]

KEPT_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "cache-control",
        "if-match",
        "if-none-match",
        "if-range",
        "range",
        "user-agent",
    }
)
"""The headers that may cross to another origin; any other might be a credential, whatever its name."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<target>[^#]*)")
_AUTHORITY = re.compile(
    r"(?:[^\\\s\x00-\x1f]*@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:\[\]%\\\s\x00-\x1f]+)(?::(?P<port>\d{0,5}))?"
)
_SENT_AS_IS: Final = "".join(chr(code) for code in range(0x21, 0x7F))
_LEGACY_ADDRESS = re.compile(r"[0-9a-fx.]+")

_FORBIDDEN_NAMES: Final = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
_FORBIDDEN_NETWORKS: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # "this host", which Linux takes for the loopback
        "169.254.0.0/16",  # link-local, and where most clouds answer for instance metadata
        "100.100.100.200/32",  # the metadata services of clouds that chose an address of their own
        "168.63.129.16/32",
        "192.0.0.192/32",
        "::/128",
        "fe80::/10",
        "fd00:ec2::/32",
        "fd20:ce::/32",
    )
)
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Value = TypeVar("_Value")


class Origin(NamedTuple):
    """Scheme, host in lower case without brackets, and port of a URL."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Write the origin as a URL, with the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if _DEFAULT_PORTS.get(self.scheme) == self.port else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


@lru_cache(maxsize=1024)
def origin(url: str) -> Origin:
    """
    Return the origin of an http or https URL.

    Raises:
        SourceError: It is no such URL, or its host is written so that two programs could read it differently. Nothing
            of the URL is shown, since it may hold a secret.
    """
    match = _URL.fullmatch(url.partition("#")[0])
    authority = _AUTHORITY.fullmatch(match["authority"]) if match else None
    scheme = match["scheme"].lower() if match else ""
    if authority is None or scheme not in _DEFAULT_PORTS:
        raise SourceError("not a URL that can be fetched: it has no clear http or https host")
    port = int(authority["port"] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise SourceError(f"not a port in the URL of a host: {port}")
    return Origin(scheme, authority["host"].strip("[]").lower(), port)


@lru_cache(maxsize=1024)
def literal_address(host: str) -> Address | None:
    """
    Return the address that ``host`` is, in any of the forms that resolvers take (``2852039166``, ``0x7f.1``).

    None when it is a name.
    """
    host = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if not _LEGACY_ADDRESS.fullmatch(host):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address carries (mapped, 6to4, NAT64), else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    carried = address.ipv4_mapped or address.sixtofour
    if carried is None and address in _NAT64:
        carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return carried or address


@lru_cache(maxsize=1024)
def is_forbidden_address(address: Address) -> bool:
    """Whether ``address`` is link-local, unspecified or a cloud's metadata service. Private ranges are not."""
    plain = unmapped(address)
    return any(plain in network or address in network for network in _FORBIDDEN_NETWORKS)


def is_forbidden_name(host: str) -> bool:
    """Whether ``host``, a name or an address, is known to be a metadata service or forbidden as an address."""
    address = literal_address(host)
    if address is not None:
        return is_forbidden_address(address)
    return host.rstrip(".").lower() in _FORBIDDEN_NAMES


def is_loopback_host(host: str) -> bool:
    """Whether ``host`` is this machine by its very name; no name is resolved."""
    address = literal_address(host)
    if address is not None:
        return unmapped(address).is_loopback
    name = host.rstrip(".").lower()
    return name in _LOOPBACK_NAMES or name.endswith(".localhost")


def headers_across(headers: Iterable[tuple[str, _Value]], from_url: str, to_url: str) -> tuple[tuple[str, _Value], ...]:
    """Return the headers that a redirect may carry on: all within one origin, else those of :data:`KEPT_HEADERS`."""
    if origin(from_url) == origin(to_url):
        return tuple(headers)
    return tuple((name, value) for name, value in headers if name.lower() in KEPT_HEADERS)


def resolve_location(from_url: str, location: str) -> str:
    """
    Return the absolute URL that a ``Location`` header means, without fragment and userinfo.

    What a request line can carry stays byte for byte: escapes are neither added to nor undone nor put in another case.
    Blanks and other bytes that it cannot carry are percent-encoded.

    Args:
        from_url: The URL that was asked.
        location: The header, its bytes decoded as latin-1.

    Raises:
        SourceError: The header is empty.
    """
    wanted = quote(location.strip(" \t").partition("#")[0].encode("latin-1"), safe=_SENT_AS_IS)
    if not wanted:
        raise SourceError(f"redirect without a target: from {origin(from_url)}")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", wanted):
        absolute = wanted
    elif wanted.startswith("//"):
        absolute = f"{origin(from_url).scheme}:{wanted}"
    elif wanted.startswith("/"):
        absolute = f"{origin(from_url)}{wanted}"
    else:
        absolute = urljoin(from_url, wanted)
    scheme, marker, rest = absolute.partition("://")
    authority, target = re.fullmatch(r"([^/?]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    return scheme + marker + re.sub(r"^[^\\]*@", "", authority) + target
