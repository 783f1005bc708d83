"""
One set of network rules for both paths, httpx for control requests and libcurl for files.

Built once from the settings; nothing here opens a connection. Proxies are in :mod:`~nim_core.transfer.proxies`, trusted
authorities in :mod:`~nim_core.transfer.trust`, hosts and redirects in :mod:`~nim_core.transfer.hosts`.

What may be reached:

- http and https only.
- Loopback and private addresses may be named by whoever wrote the URI: registries on the own network are the rule.
- Link-local and unspecified addresses and cloud metadata services are refused by name, by address and by what a name
  resolves to, unless an endpoint of the user's own names that host. Behind a proxy only the name can be judged.

What a redirect may do, in addition:

- Ten hops at most; https never becomes http.
- It leads to the loopback only from the loopback. A redirect from a public to a private address is followed: that is
  what a mirror with a public name and private storage does, and nothing secret goes along.
- When scheme, host or port change, only headers known to be harmless go along (``hosts.KEPT_HEADERS``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.errors import SourceError
from nim_core.settings import Settings
from nim_core.transfer.hosts import (
    Origin,
    headers_across,
    is_forbidden_address,
    is_forbidden_name,
    is_loopback_host,
    literal_address,
    origin,
    resolve_location,
    unmapped,
)
from nim_core.transfer.proxies import Proxy, bypasses_proxy, pick_proxy
from nim_core.transfer.trust import Trust, find_trust
from nim_core.types import Secret

__all__ = [
    "MAX_REDIRECTS",
    "NetworkConfig",
    "Origin",
    "allowed_redirect",
    "check_host",
    "headers_across",
    "network_config",
    "origin",
    "refused_address",
]

MAX_REDIRECTS: Final = 10


@frozen(kw_only=True)
class NetworkConfig:
    """
    The network rules of one run.

    Attributes:
        trust: Whom to trust.
        http_proxy: Proxy for http URLs. None: direct.
        https_proxy: Proxy for https URLs. None: direct.
        no_proxy: Text of the variable, for :func:`~nim_core.transfer.proxies.bypasses_proxy`.
        own_hosts: Hosts that the user's own endpoints name, in lower case; no address of theirs is refused.
    """

    trust: Trust
    http_proxy: Proxy | None = None
    https_proxy: Proxy | None = None
    no_proxy: str = ""
    own_hosts: frozenset[str] = frozenset()

    @property
    def ca_file(self) -> Path | None:
        """PEM file of trusted authorities. None where only :attr:`ca_path` is used."""
        return self.trust.ca_file

    @property
    def ca_path(self) -> Path | None:
        """Folder of trusted authorities. None where only :attr:`ca_file` is used."""
        return self.trust.ca_path

    def proxy(self, url: str) -> Proxy | None:
        """Return the proxy for ``url``. None: direct. Raises SourceError as :func:`origin` does."""
        scheme, host, port = origin(url)
        proxy = self.https_proxy if scheme == "https" else self.http_proxy
        return None if proxy is None or bypasses_proxy(self.no_proxy, host, port) else proxy

    def proxy_for(self, url: str) -> Secret | None:
        """Return the URL of the proxy for ``url``, as libcurl takes it. None: direct."""
        proxy = self.proxy(url)
        return proxy.url if proxy else None


def network_config(settings: Settings, endpoints: Iterable[str] = ()) -> NetworkConfig:
    """
    Return the rules that the settings make.

    Args:
        settings: The environment.
        endpoints: What the user named as endpoints: URLs or ``host[:port]``; URLs of other schemes are passed over.

    Raises:
        ConfigError: A proxy variable or a variable for trusted authorities cannot work; the message names it.
    """
    variables = settings.variables
    hosts = (_endpoint_host(endpoint) for endpoint in endpoints)
    return NetworkConfig(
        trust=find_trust(variables),
        http_proxy=pick_proxy("http", variables),
        https_proxy=pick_proxy("https", variables),
        no_proxy=variables.text("no_proxy") or variables.text("NO_PROXY") or "",
        own_hosts=frozenset(host for host in hosts if host),
    )


def _endpoint_host(endpoint: str) -> str | None:
    url = endpoint if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", endpoint) else f"https://{endpoint}"
    try:
        return origin(url.strip()).host
    except SourceError:
        return None


def check_host(config: NetworkConfig, url: str) -> None:
    """Raise SourceError when the host of ``url`` must not be reached at all, judged without resolving its name."""
    target = origin(url)
    if is_forbidden_name(target.host) and target.host not in config.own_hosts:
        raise _refused(str(target))


def _refused(place: str) -> SourceError:
    return SourceError(
        f"refused to connect to a link-local or metadata address: {place}",
        hint="an endpoint of your own may name such a host; a manifest, a server or a name service may not",
    )


def refused_address(address: str, config: NetworkConfig, *, host: str = "", from_outside: bool = False) -> bool:
    """
    Whether a connection must not be opened to ``address``, an address that ``host`` resolved to.

    Args:
        address: Numeric, as a socket address has it; one that cannot be read is refused.
        config: The rules.
        host: Name or address that was asked for. Empty when not known: own hosts then count only where they are
            addresses themselves.
        from_outside: Whether a redirect led here from another host than this machine.
    """
    parsed = literal_address(address)
    if parsed is None:
        return True
    if host.lower() in config.own_hosts or str(unmapped(parsed)) in config.own_hosts:
        return False
    return is_forbidden_address(parsed) or (from_outside and unmapped(parsed).is_loopback)


def allowed_redirect(config: NetworkConfig, from_url: str, location: str) -> str:
    """
    Return the absolute URL to go on with when ``from_url`` answered with ``location`` (decoded as latin-1).

    Raises:
        SourceError: The rules in this module's docstring forbid it. Only origins are shown: URLs may be signed.
    """
    source, url = origin(from_url), resolve_location(from_url, location)
    if not re.match("https?://", url, re.IGNORECASE):
        raise SourceError(f"redirect refused: from {source} to something other than http or https")
    target = origin(url)
    if source.scheme == "https" and target.scheme == "http":
        raise SourceError(f"redirect refused: from {source} to {target}, which is not encrypted")
    check_host(config, url)
    inward = is_loopback_host(target.host) and not is_loopback_host(source.host)
    if inward and target.host not in config.own_hosts:
        raise SourceError(f"redirect refused: from {source} to this machine's own {target}")
    return url
