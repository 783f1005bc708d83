"""What this distribution brings: one source, and credentials for it as Google's own programs find them."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import Credential, CredentialRequest, Source, SourceContext, SourceSpec, UriStyle
from nim_source_gcs.credentials import ENVIRONMENT, default_credential


@hookimpl
def nim_register_sources() -> list[SourceSpec]:
    """Declare ``gs://``."""
    return [
        SourceSpec(
            name="gcs",
            schemes=("gs",),
            uri_style=UriStyle.OBJECT,
            summary="objects of Google Cloud Storage",
            factory=_open,
            environment=ENVIRONMENT,
        )
    ]


@hookimpl(trylast=True)
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Leave this source to Application Default Credentials, or to nobody where an emulator stands in."""
    return default_credential(request.variables) if request.source == "gcs" else None


def _open(context: SourceContext) -> Source:
    from nim_source_gcs.source import GcsSource

    return GcsSource(context)
