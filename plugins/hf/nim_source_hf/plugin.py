"""The hooks the Hugging Face Hub implements."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import Capabilities, Credential, CredentialRequest, SourceSpec, UriStyle
from nim_source_hf.credentials import ENVIRONMENT, find_credential
from nim_source_hf.source import HfSource


@hookimpl
def nim_register_sources() -> list[SourceSpec]:
    """Declare the scheme ``hf``."""
    return [
        SourceSpec(
            name="hf",
            schemes=("hf",),
            uri_style=UriStyle.REPOSITORY,
            summary="models and datasets of the Hugging Face Hub, and of hubs and proxies that speak its API",
            factory=HfSource,
            capabilities=Capabilities(pins_revisions=True),
            environment=ENVIRONMENT,
        )
    ]


@hookimpl(trylast=True)
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Find the Hub token of this user."""
    return find_credential(request.variables) if request.source == "hf" else None
