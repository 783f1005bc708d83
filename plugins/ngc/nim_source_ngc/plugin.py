"""The hooks NGC implements."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import (
    Capabilities,
    Credential,
    CredentialRequest,
    ModelUri,
    OverrideTarget,
    Source,
    SourceContext,
    SourceSpec,
    UriStyle,
)
from nim_source_ngc.credentials import ENVIRONMENT, find_credential
from nim_source_ngc.refs import proxied


@hookimpl
def nim_register_sources() -> list[SourceSpec]:
    """Declare the scheme ``ngc``."""
    return [
        SourceSpec(
            name="ngc",
            schemes=("ngc",),
            uri_style=UriStyle.REPOSITORY,
            summary="models of NVIDIA's NGC catalogue and of proxies that speak its API",
            factory=_make_source,
            capabilities=Capabilities(overridable=True, pins_revisions=True),
            environment=ENVIRONMENT,
        )
    ]


@hookimpl(trylast=True)
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Find the NGC key of this user."""
    return find_credential(request.variables) if request.source == "ngc" else None


@hookimpl(trylast=True)
def nim_rewrite_uri(uri: ModelUri, override: OverrideTarget) -> ModelUri | None:
    """Name the same model at a proxy, which is what ``ngc://`` targets are."""
    return proxied(uri, override) if override.scheme == "ngc" else None


def _make_source(context: SourceContext) -> Source:
    from nim_source_ngc.source import NgcSource  # a run that receipts satisfy does without

    return NgcSource(context)
