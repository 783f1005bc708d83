"""A bucket that is written to or looked at, and what it takes to talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.fetching import named_endpoints
from nim_core.override import object_name
from nim_core.registry import Registry
from nim_core.registry.guard import GuardedSink
from nim_core.resolve import Resolver
from nim_core.settings import Settings
from nim_core.transfer.control import control_client
from nim_core.transfer.network import NetworkConfig, network_config
from nim_core.transfer.retry import RetryPolicy, retry_policy
from nim_core.transfer.sending import Sender
from nim_core.types import ModelUri, UriStyle

__all__ = ["USER_AGENT", "Destination", "Place", "check_sink", "destination_url", "opened"]

USER_AGENT = f"nim-core/{version('nim-core')}"


@frozen(kw_only=True)
class Destination:
    """
    A bucket, or a part of one.

    Attributes:
        sink: Name of the sink that writes to it.
        bucket: Its name.
        prefix: Beneath which keys begin, without slashes around it. Empty: there is none.
    """

    sink: str
    bucket: str
    prefix: str = ""


@frozen(kw_only=True)
class Place:
    """
    An opened destination.

    Attributes:
        destination: What was opened.
        scheme: Of URIs of its objects.
        sink: Writes to it.
        resolver: Asks sources.
        network: Proxy and trust rules.
        policy: How often something is tried again.
        registry: The plugins.
    """

    destination: Destination
    scheme: str
    sink: GuardedSink
    resolver: Resolver
    network: NetworkConfig
    policy: RetryPolicy
    registry: Registry

    @property
    def url(self) -> str:
        """What NIM_REPOSITORY_OVERRIDE has to be for it."""
        return destination_url(self.destination, self.registry)

    def uri(self, key: str) -> ModelUri:
        """Return the URI of an object."""
        return ModelUri(scheme=self.scheme, location=f"{self.destination.bucket}/{key}", style=UriStyle.OBJECT)

    def with_scheme(self, uri: ModelUri) -> bool:
        """Whether the scheme of a file's URI belongs to its key."""
        return not self.registry.source_spec(uri.scheme).capabilities.overridable


def check_sink(destination: Destination, registry: Registry) -> None:
    """Check that the sink is one that is installed. Raises ConfigError that names those that are."""
    if destination.sink not in registry.sinks:
        there = ", ".join(registry.sinks)
        raise ConfigError(
            f"no installed plugin writes to: {destination.sink}",
            hint=f"installed: {there}" if there else "install a plugin that brings a sink (nim-llm plugins list)",
        )


def destination_url(destination: Destination, registry: Registry) -> str:
    """Return what NIM_REPOSITORY_OVERRIDE has to be for a destination whose sink is installed."""
    name = object_name(destination.bucket, destination.prefix).rstrip("/")
    return f"{registry.sinks[destination.sink].scheme}://{name}"


@contextmanager
def opened(destination: Destination, registry: Registry, settings: Settings) -> Iterator[Place]:
    """
    Give an opened destination; nothing is asked of it yet.

    Raises:
        ConfigError: No plugin writes to it.
    """
    check_sink(destination, registry)
    spec = registry.sinks[destination.sink]
    network, policy = network_config(settings, named_endpoints(registry, settings)), retry_policy(settings)
    with (
        control_client(network, policy) as http,
        closing(Sender(network, USER_AGENT)) as sender,
        closing(registry.open_sink(spec.name, destination.bucket, http, sender.send)) as sink,
        closing(Resolver(registry, http)) as resolver,
    ):
        yield Place(
            destination=destination,
            scheme=spec.scheme,
            sink=sink,
            resolver=resolver,
            network=network,
            policy=policy,
            registry=registry,
        )
