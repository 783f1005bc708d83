"""What this distribution brings: the scheme ``oci``, and credentials for it."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import (
    Capabilities,
    Credential,
    CredentialRequest,
    EnvVar,
    Source,
    SourceContext,
    SourceSpec,
    UriStyle,
)

_ENVIRONMENT = (
    EnvVar(name="OCI_REGISTRY", summary="registry, as host[:port], that OCI_USERNAME and OCI_PASSWORD are for"),
    EnvVar(name="OCI_USERNAME", summary="user at OCI_REGISTRY; wins over what docker login stored"),
    EnvVar(name="OCI_PASSWORD", summary="password or access token of OCI_USERNAME", secret=True),
    EnvVar(
        name="DOCKER_CONFIG",
        summary="folder of config.json, where docker login and oras login store credentials",
        kind="path",
        default="~/.docker",
    ),
    EnvVar(
        name="OCI_PLAIN_HTTP",
        summary="registries without TLS, as host[:port], separated by commas",
        default="localhost,127.0.0.1,[::1]",
    ),
)


@hookimpl
def nim_register_sources() -> list[SourceSpec]:
    """Declare the scheme ``oci``."""
    return [
        SourceSpec(
            name="oci",
            schemes=("oci",),
            uri_style=UriStyle.OBJECT,
            summary="artifacts in OCI registries",
            factory=_make_source,
            capabilities=Capabilities(pins_revisions=True),
            environment=_ENVIRONMENT,
        )
    ]


@hookimpl(trylast=True)
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Find the user's credential for a registry."""
    if request.source != "oci":
        return None
    from nim_source_oci.credentials import find_credential

    return find_credential(request)


def _make_source(context: SourceContext) -> Source:
    from nim_source_oci.source import OciSource

    return OciSource(context)
