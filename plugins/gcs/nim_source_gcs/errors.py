"""Answers of Google Cloud Storage and of its token services as errors, judged by status and reason, never by text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from nim_core.errors import (
    AuthenticationError,
    ConfigError,
    InvalidUriError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    SourceError,
    TransientError,
)
from nim_source_gcs.credentials import Found
from nim_source_gcs.refs import GcsRef

_SET: Final = "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run: gcloud auth application-default login"
_GRANT: Final = "grant its account the role {role} on the bucket; without the right to list, an object "
_MISSING: Final = "that does not exist is refused alike"
_PAYS: Final = "if the requester pays for this bucket, set GOOGLE_CLOUD_QUOTA_PROJECT to the project to bill"
_MEANINGS: Final[Mapping[int, tuple[type[SourceError], str, str | None]]] = {
    400: (SourceError, "Google Cloud Storage does not accept the request for {ref}", _PAYS),
    401: (AuthenticationError, "Google Cloud Storage does not accept the token from {origin}", _SET),
    403: (PermissionDeniedError, "no access to {ref} with {origin}", _GRANT + _MISSING),
    404: (NotFoundError, "no such bucket: gs://{ref.bucket}", "check the name"),
}


@contextmanager
def judging(ref: GcsRef, origin: str | None, role: str) -> Iterator[None]:
    """
    Ask google-cloud-storage about ``ref``, or read an answer about it.

    Args:
        ref: What is asked about.
        origin: Where the credentials came from. None when there are none.
        role: Role that allows it.

    Raises:
        SourceError: In the subclass that the answer asks for.
    """
    from google.api_core.exceptions import GoogleAPICallError

    try:
        yield
    except GoogleAPICallError as exc:
        wait = getattr(exc.response, "headers", {}).get("Retry-After", "")
        raise status_error(int(exc.code or 0), ref, origin, role, float(wait) if wait.isdecimal() else None) from exc
    except InvalidUriError:
        raise  # a name that cannot be a file's
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SourceError(
            f"answer about {ref} cannot be understood",
            hint="check that STORAGE_EMULATOR_HOST or API_ENDPOINT_OVERRIDE, where set, name such a service",
            uri=str(ref),
        ) from exc


def status_error(
    status: int, ref: GcsRef, origin: str | None, role: str, retry_after: float | None = None
) -> SourceError:
    """
    Return the error for a status that is no success.

    Args:
        status: Of the answer.
        ref: As for :func:`judging`.
        origin: As for :func:`judging`.
        role: As for :func:`judging`.
        retry_after: Seconds that the service asks to wait. None: it asks for none.
    """
    if status >= 500 or status == 408:
        return TransientError(f"Google Cloud Storage failed for {ref} (HTTP {status})", uri=str(ref))
    if status == 429:
        return RateLimitedError(f"too many requests for {ref} (HTTP 429)", uri=str(ref), retry_after=retry_after)
    kind, words, hint = _MEANINGS.get(status, (SourceError, "unexpected answer about {ref}", None))
    if origin is None and status in {401, 403}:
        words, hint = "no access to {ref} without credentials, and none were found", _SET
    hint = hint and hint.format(role=role)
    return kind(f"{words.format(ref=ref, origin=origin)} (HTTP {status})", hint=hint, uri=str(ref))


def sign_in_error(exc: Any, found: Found) -> SourceError:
    """Return the error for a google-auth exception met while a token was asked for; nothing secret is quoted."""
    from google.auth.exceptions import TransportError

    first = exc
    while isinstance(first, Exception):
        first = first.args[0] if first.args else type(first).__name__
    said = " ".join(str(first).split())
    for name in ("token", "refresh_token", "client_secret"):
        secret = getattr(found.credentials, name, None)
        said = said.replace(secret, "***") if secret else said
    if exc.retryable or isinstance(exc, TransportError):
        return TransientError(f"the token service failed for {found.origin}: {said[:200]}", hint="try again later")
    return AuthenticationError(f"no token for the credentials from {found.origin}: {said[:200]}", hint=found.mend)


def no_token_error(found: Found) -> SourceError:
    """Return the error for an answer of a token service that is none; it may quote what was sent."""
    return SourceError(
        f"the token service's answer cannot be understood, asked with the credentials from {found.origin}",
        hint="something between this machine and the token service may answer in its place: a proxy, a sign-in page",
    )
