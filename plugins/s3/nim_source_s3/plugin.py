"""What this distribution brings: source and sink ``s3``, credentials for them, and ``s3://`` as an override."""

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
    SourceSpec,
    UriStyle,
)
from nim_source_s3.credentials import ENVIRONMENT, find_credential
from nim_source_s3.refs import S3Ref
from nim_source_s3.source import S3Source


@hookimpl
def nim_register_sources() -> list[SourceSpec]:
    """Declare the scheme ``s3``."""
    return [
        SourceSpec(
            name="s3",
            schemes=("s3",),
            uri_style=UriStyle.OBJECT,
            summary="buckets of Amazon S3 and of stores that speak its protocol",
            factory=S3Source,
            environment=ENVIRONMENT,
        )
    ]


@hookimpl
def nim_register_sinks() -> list[SinkSpec]:
    """Declare the sink ``s3``."""
    return [
        SinkSpec(
            name="s3",
            scheme="s3",
            summary="buckets of Amazon S3 and of stores that speak its protocol",
            factory=_sink,
            environment=ENVIRONMENT,
        )
    ]


def _sink(context: SinkContext) -> Sink:
    from nim_source_s3.sink import S3Sink

    return S3Sink(context)


@hookimpl(trylast=True)
def nim_rewrite_uri(uri: ModelUri, override: OverrideTarget) -> ModelUri | None:
    """Answer for ``s3://bucket[/prefix]``: the object beneath it that a mirror wrote, or would write, for the file."""
    if override.scheme != "s3":
        return None
    if uri.file is None and uri.style is not UriStyle.OBJECT:
        raise OverrideUnsupportedError(
            f"{override.display} cannot list the files of {uri.display}: it has one object per file",
            hint="name the files by a manifest: --manifest-file",
        )
    found = ModelUri(scheme="s3", location=f"{override.location}/{override.key}", style=UriStyle.OBJECT)
    try:
        S3Ref.parse(found)
    except InvalidUriError as exc:
        raise OverrideUnsupportedError(exc.message, hint="set NIM_REPOSITORY_OVERRIDE to s3://bucket[/prefix]") from exc
    return found


@hookimpl(trylast=True)
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Answer for source and sink: the keys in the environment, else what boto3 finds."""
    return find_credential(request.variables) if request.source == "s3" else None
