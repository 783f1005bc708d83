"""What this distribution brings: one source, and credentials for it from netrc."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import Credential, CredentialRequest, EnvVar, Source, SourceContext, SourceSpec, UriStyle

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
            factory=_make_source,
            environment=(_NETRC,),
        )
    ]


@hookimpl(trylast=True)
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Answer for this source from netrc."""
    if request.source != "http":
        return None
    from nim_source_http.credentials import netrc_credential

    return netrc_credential(request)


def _make_source(context: SourceContext) -> Source:
    from nim_source_http.source import HttpSource  # a run that receipts satisfy does without

    return HttpSource(context)
