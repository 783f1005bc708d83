"""The hooks ModelScope implements."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import Credential, CredentialRequest, SourceSpec, UriStyle
from nim_source_modelscope.credentials import ENVIRONMENT, find_credential
from nim_source_modelscope.source import ModelScopeSource


@hookimpl
def nim_register_sources() -> list[SourceSpec]:
    """Declare the scheme ``modelscope``."""
    return [
        SourceSpec(
            name="modelscope",
            schemes=("modelscope",),
            uri_style=UriStyle.REPOSITORY,
            summary="models of ModelScope and of proxies that speak its API",
            factory=ModelScopeSource,
            environment=ENVIRONMENT,
        )
    ]


@hookimpl(trylast=True)
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Find the ModelScope token of this user."""
    return find_credential(request.variables) if request.source == "modelscope" else None
