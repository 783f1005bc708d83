"""What this distribution brings: a source, a sink, and credentials for both as Google's own programs find them."""

from __future__ import annotations

from nim_core.errors import InvalidUriError, OverrideUnsupportedError
from nim_core.hookspecs import hookimpl
from nim_core.types import (
    Credential,
    CredentialRequest,
    ModelUri,
    OverrideTarget,
    Sink,
    SinkContext,
    SinkSpec,
    Source,
    SourceContext,
    SourceSpec,
    UriStyle,
)
from nim_source_gcs.credentials import ENVIRONMENT, default_credential
from nim_source_gcs.refs import GcsRef


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


@hookimpl
def nim_register_sinks() -> list[SinkSpec]:
    """Declare the sink for buckets."""
    return [
        SinkSpec(
            name="gcs",
            summary="buckets of Google Cloud Storage",
            scheme="gs",
            factory=_open_sink,
            environment=ENVIRONMENT,
        )
    ]


@hookimpl(trylast=True)
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Leave source and sink to Application Default Credentials, or to nobody where an emulator stands in."""
    return default_credential(request.variables) if request.source == "gcs" else None


@hookimpl(trylast=True)
def nim_rewrite_uri(uri: ModelUri, override: OverrideTarget) -> ModelUri | None:
    """Name the object that a mirror wrote for ``uri``. Raises OverrideUnsupportedError when there can be none."""
    if override.scheme != "gs":
        return None
    if uri.style is not UriStyle.OBJECT and uri.file is None:
        raise OverrideUnsupportedError(
            f"{override.display} has files and no repositories: {uri.display}",
            hint="name a manifest that lists the files (--manifest-file)",
        )
    target = ModelUri(scheme="gs", location=f"{override.location}/{override.key}", style=UriStyle.OBJECT)
    try:
        GcsRef.parse(target)
    except InvalidUriError as exc:
        raise OverrideUnsupportedError(
            f"not a bucket of Google Cloud Storage: {override.display}", hint="write the target as gs://BUCKET[/PREFIX]"
        ) from exc
    return target


def _open(context: SourceContext) -> Source:
    from nim_source_gcs.source import GcsSource

    return GcsSource(context)


def _open_sink(context: SinkContext) -> Sink:
    from nim_source_gcs.sink import GcsSink

    return GcsSink(context)
