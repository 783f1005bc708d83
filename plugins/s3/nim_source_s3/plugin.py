"""What this distribution brings: the source ``s3``, and credentials for it."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import Credential, CredentialRequest, SourceSpec, UriStyle
from nim_source_s3.credentials import ENVIRONMENT, find_credential
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


@hookimpl(trylast=True)
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Answer for this source: the keys in the environment, else what boto3 finds."""
    return find_credential(request.variables) if request.source == "s3" else None
