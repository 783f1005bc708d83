"""What this distribution brings: one source, credentials for it from netrc, and web servers as mirrors."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import (
    Credential,
    CredentialRequest,
    EnvVar,
    ModelUri,
    OverrideTarget,
    Source,
    SourceContext,
    SourceSpec,
    UriStyle,
)

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


@hookimpl(trylast=True)
def nim_rewrite_uri(uri: ModelUri, override: OverrideTarget) -> tuple[ModelUri, ...] | None:
    """Name a file on a web server, which is what ``http://`` and ``https://`` targets are."""
    if override.scheme not in {"http", "https"}:
        return None
    from nim_source_http.refs import at_server

    return at_server(uri, override)


def _make_source(context: SourceContext) -> Source:
    from nim_source_http.source import HttpSource  # a run that receipts satisfy does without

    return HttpSource(context)
