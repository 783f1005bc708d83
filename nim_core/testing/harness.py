"""What a source's own tests need to make one: a context as core makes it, and URIs."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from nim_core.errors import TransientError
from nim_core.types import (
    Anonymous,
    Credential,
    CredentialRequest,
    ModelUri,
    SourceContext,
    SourceSpec,
    UriStyle,
    Variables,
)

__all__ = ["ControlClient", "object_uri", "repository_uri", "source_context"]

Provider = Callable[[CredentialRequest], Credential | None]


class ControlClient(httpx.Client):
    """
    Stands in for core's client for control calls: no proxies, redirects followed without the credential, failures to
    connect as TransientError, statuses left to the source. Unlike core's it does not retry.

    Args:
        trust: As for :func:`source_context`.
    """

    def __init__(self, *, trust: ssl.SSLContext | None = None) -> None:
        super().__init__(
            trust_env=False, timeout=20, follow_redirects=True, verify=trust or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request. Raises TransientError when no answer comes."""
        try:
            return super().send(request, **options)
        except httpx.TransportError as exc:
            raise TransientError(f"no answer from {request.url.host}") from exc


@contextmanager
def source_context(
    spec: SourceSpec,
    environment: Mapping[str, str],
    *,
    provide: Provider | None = None,
    trust: ssl.SSLContext | None = None,
) -> Iterator[SourceContext]:
    """
    Yield a context for ``spec.factory``, closed afterwards.

    Args:
        spec: The source; its variables are those of the context.
        environment: Values of variables; the process's own are not looked at.
        provide: The plugin's ``nim_provide_credential``. None: every credential is Anonymous.
        trust: An SSL context, such as ``certificates.client_context()``. None: no authority.
    """
    variables = Variables(spec.environment, environment)

    def credential(endpoint: str, uri: ModelUri | None) -> Credential:
        request = CredentialRequest(source=spec.name, endpoint=endpoint, uri=uri, variables=variables)
        return (provide and provide(request)) or Anonymous()

    with ControlClient(trust=trust) as client:
        yield SourceContext(http=client, variables=variables, credential=credential)


def object_uri(text: str) -> ModelUri:
    """Read a well-formed ``scheme://bucket/key``; for tests, core has the real grammar."""
    scheme, _, location = text.partition("://")
    return ModelUri(scheme=scheme, location=location, style=UriStyle.OBJECT)


def repository_uri(text: str) -> ModelUri:
    """Read a well-formed ``scheme://a/b[/c][:revision][?file=path]``; for tests, core has the real grammar."""
    scheme, _, rest = text.partition("://")
    place, _, file = rest.partition("?file=")
    location, _, revision = place.partition(":")
    return ModelUri(
        scheme=scheme, location=location, revision=revision or None, file=file or None, style=UriStyle.REPOSITORY
    )
