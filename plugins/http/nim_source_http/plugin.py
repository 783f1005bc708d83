"""What this distribution brings: one source, and credentials for it from netrc."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import Credential, CredentialRequest, EnvVar, SourceSpec, UriStyle
from nim_source_http.credentials import netrc_credential
from nim_source_http.source import HttpSource

_NETRC = EnvVar(
    name="NETRC",
    kind="path",
    default="~/.netrc",
    summary="file of users and passwords by host, for http:// and https:// URIs without their own",
)


@hookimpl
def nim_register_sources() -> list[SourceSpec]:
    """Declare ``http://`` and ``https://``."""
    return [
        SourceSpec(
            name="http",
            schemes=("http", "https"),
            uri_style=UriStyle.OBJECT,
            summary="single files behind plain URLs",
            factory=HttpSource,
            environment=(_NETRC,),
        )
    ]


@hookimpl(trylast=True)
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Answer for this source from netrc."""
    return netrc_credential(request) if request.source == "http" else None
