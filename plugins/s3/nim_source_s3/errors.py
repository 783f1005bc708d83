"""What S3 and boto3 say, in core's errors: by code and type, never by text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from nim_core.errors import (
    AuthenticationError,
    ConfigError,
    NimError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RemoteChangedError,
    SourceError,
    TransientError,
    UnsupportedError,
)
from nim_core.types import HttpAnswer
from nim_source_s3.client import Access
from nim_source_s3.refs import S3Ref

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_PATH_STYLE: Final = "a store that does not know buckets as host names needs AWS_S3_USE_PATH_STYLE=true"
_SIGN_IN: Final = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


class UploadGoneError(NotFoundError):
    """The store does not know an upload: it was finished or dropped, or has expired."""


@frozen
class _Meaning:
    kind: type[NimError]
    message: str
    hint: str | None = None


_CODES: Final[Mapping[str, _Meaning]] = {
    "NoSuchBucket": _Meaning(
        NotFoundError, "no such bucket: {bucket}", f"check its name and AWS_ENDPOINT_URL; {_PATH_STYLE}"
    ),
    "NoSuchKey": _Meaning(
        NotFoundError, "no such object: {ref}", "keys are literal, case and escapes included; s3://bucket/prefix/ lists"
    ),
    "InvalidAccessKeyId": _Meaning(
        AuthenticationError,
        "the store does not know the access key from {origin}",
        "check key and AWS_ENDPOINT_URL",
    ),
    "SignatureDoesNotMatch": _Meaning(
        AuthenticationError,
        "the secret key does not fit the access key, both from {origin}",
        "check AWS_SECRET_ACCESS_KEY: copied whole, nothing around it",
    ),
    "RequestTimeTooSkewed": _Meaning(
        AuthenticationError, "this machine's clock is too far off for S3", "set the clock, best by NTP"
    ),
    "RequestExpired": _Meaning(
        AuthenticationError, "the signature had expired when it arrived", "set this machine's clock, best by NTP"
    ),
    "ExpiredToken": _Meaning(
        AuthenticationError,
        "the temporary credential from {origin} has expired",
        "get a new one, all three parts",
    ),
    "InvalidToken": _Meaning(
        AuthenticationError, "the session token from {origin} is not valid", "set key, secret and token of one sign-in"
    ),
    "AuthorizationHeaderMalformed": _Meaning(
        SourceError, "bucket {bucket} is not in region {region}", "set AWS_REGION to the bucket's region"
    ),
    "AccessDenied": _Meaning(
        PermissionDeniedError,
        "access denied to {ref} with the keys from {origin}",
        "reading takes s3:GetObject and s3:ListBucket, without the latter S3 says so of missing objects too; writing "
        "takes s3:PutObject as well. Where the requester pays, set AWS_REQUEST_PAYER=requester",
    ),
    "Unauthorized": _Meaning(
        AuthenticationError, "the keys from {origin} are not accepted", "check keys, AWS_ENDPOINT_URL and HTTPS_PROXY"
    ),
    "InvalidObjectState": _Meaning(UnsupportedError, "archived, not readable: {ref}", "restore it first"),
    "SlowDown": _Meaning(RateLimitedError, "S3 asks for fewer requests about bucket {bucket}", "try again later"),
    "NotImplemented": _Meaning(UnsupportedError, "the store cannot do what was asked about {ref}"),
    "PreconditionFailed": _Meaning(RemoteChangedError, "somebody else has written {ref}", "mirror again"),
    "NoSuchUpload": _Meaning(UploadGoneError, "the store has dropped what was sent of {ref}", "mirror again"),
    "InvalidPart": _Meaning(TransientError, "the store has other parts of {ref} than were sent", "mirror again"),
    "BadDigest": _Meaning(TransientError, "other bytes of {ref} arrived than were sent", "try again"),
    "OperationAborted": _Meaning(TransientError, "the store is busy with {ref}", "try again"),
    "KeyTooLongError": _Meaning(
        UnsupportedError,
        "S3 takes keys of up to 1024 bytes, not {ref}",
        "choose a shorter prefix, or shorter file names",
    ),
    "EntityTooLarge": _Meaning(UnsupportedError, "larger than the store takes: {ref}"),
}
_SAME: Final[Mapping[str, str]] = {
    "PermanentRedirect": "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException": "AuthorizationHeaderMalformed",
    "InvalidRegion": "AuthorizationHeaderMalformed",
    "TokenRefreshRequired": "ExpiredToken",
    "AllAccessDisabled": "AccessDenied",
    "AccountProblem": "AccessDenied",
    "InvalidBucketName": "NoSuchBucket",
    "TooManyRequests": "SlowDown",
    "RequestLimitExceeded": "SlowDown",
    "301": "AuthorizationHeaderMalformed",
    "ConditionalRequestConflict": "OperationAborted",
    "MethodNotAllowed": "NotImplemented",
    "InvalidPartOrder": "InvalidPart",
    "XAmzContentChecksumMismatch": "BadDigest",
    "XAmzContentSHA256Mismatch": "BadDigest",
    "IncompleteBody": "BadDigest",
    "RequestTimeout": "OperationAborted",
    "401": "Unauthorized",
    "403": "AccessDenied",
    "404": "NoSuchKey",
    "405": "NotImplemented",
    "412": "PreconditionFailed",
    "429": "SlowDown",
    "501": "NotImplemented",
}


_UNKNOWN: Final = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest"})
"""What stores say that do not know a header; they may mean something else."""


def no_such_object(ref: S3Ref) -> NotFoundError:
    """Return the error for a key that no object has, and below which there is none."""
    meaning = _CODES["NoSuchKey"]
    return NotFoundError(meaning.message.format(ref=ref), hint=meaning.hint, uri=str(ref))


def archived(ref: S3Ref) -> UnsupportedError:
    """Return the error for an object in an archive that it was not restored from."""
    meaning = _CODES["InvalidObjectState"]
    return UnsupportedError(meaning.message.format(ref=ref), hint=meaning.hint, uri=str(ref))


def client_error(answer: HttpAnswer, operation: str) -> ClientError:
    """Return what boto3 would have raised for a refusal, had it made the request itself."""
    from botocore.exceptions import ClientError
    from botocore.parsers import RestXMLParser

    plain = {"status_code": answer.status, "headers": answer.headers, "body": answer.body}
    return ClientError(RestXMLParser().parse(plain, None), operation)


def may_be_unknown(answer: Mapping[str, Any]) -> bool:
    """Whether a refusal, as botocore parsed it, may be for a header that the store does not know."""
    return _status(answer) == 501 or (_status(answer) == 400 and answer.get("Error", {}).get("Code") in _UNKNOWN)


def answer_error(answer: Mapping[str, Any], ref: S3Ref, access: Access) -> NimError:
    """
    Return the error for an answer of the store.

    Args:
        answer: As botocore parsed it.
        ref: What was asked for.
        access: How.
    """
    status = _status(answer)
    code = str(answer.get("Error", {}).get("Code", ""))
    shown = code if code.isalnum() and not code.isdigit() else ""
    what = f"HTTP {status}" + (f", {shown}" if shown else "")
    meaning = _CODES.get(_SAME.get(code, code)) or _CODES.get(_SAME.get(str(status), ""))
    if status >= 500 and status != 501 and code != "SlowDown":
        meaning = _Meaning(TransientError, "the store failed: {endpoint}", "try again; check AWS_ENDPOINT_URL")
    if meaning is None:
        meaning = _Meaning(SourceError, "not an answer to a question about {ref}", "check AWS_ENDPOINT_URL")
    message, hint = meaning.message, meaning.hint
    if access.origin is None and meaning.kind in {PermissionDeniedError, AuthenticationError}:
        return AuthenticationError(
            f"no credentials were found, and strangers have no access to {ref}: {what}", hint=_SIGN_IN, uri=str(ref)
        )
    words = {"ref": ref, "bucket": ref.bucket, "origin": access.origin}
    text = message.format(**words, region=access.region, endpoint=access.endpoint)
    return _error(meaning.kind, f"{text}: {what}", hint, ref, answer)


def _error(kind: type[NimError], text: str, hint: str | None, ref: S3Ref, answer: Mapping[str, Any]) -> NimError:
    if issubclass(kind, RateLimitedError):
        return kind(text, hint=hint, uri=str(ref), retry_after=_retry_after(answer))
    return kind(text, hint=hint, uri=str(ref)) if issubclass(kind, SourceError) else kind(text, hint=hint)


def _status(answer: Mapping[str, Any]) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _retry_after(answer: Mapping[str, Any]) -> float | None:
    value = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
    return float(value) if value.isdecimal() else None


def garbled(ref: S3Ref, why: object) -> SourceError:
    """Return the error for an answer that makes no sense."""
    text = f"the answer about {ref} cannot be understood: {_one_line(str(why))}"
    hint = "a proxy or a login page may have answered; check AWS_ENDPOINT_URL and HTTPS_PROXY"
    return SourceError(text, hint=hint, uri=str(ref))


def boto_error(exc: Exception, ref: S3Ref) -> NimError:
    """
    Return the error for what boto3 raised by itself: over its configuration, an answer, or the search for a credential.

    Args:
        exc: A ``BotoCoreError``, or the ``ClientError`` of another service, which gives out credentials.
        ref: What was to be asked for.
    """
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    said = _one_line(str(exc))
    if isinstance(exc, boto.ProfileNotFound | boto.ConfigParseError | boto.ConfigNotFound | boto.InvalidConfigError):
        return ConfigError(
            f"the AWS configuration cannot be used: {said}", hint="check AWS_PROFILE and AWS_CONFIG_FILE"
        )
    if isinstance(exc, boto.ParamValidationError | boto.InvalidRegionError | boto.EndpointProviderError):
        return ConfigError(f"boto3 cannot ask for {ref}: {said}", hint="check the URI, AWS_REGION and AWS_ENDPOINT_URL")
    if isinstance(exc, ResponseParserError):
        return garbled(ref, "not XML")
    hint = _SIGN_IN
    if isinstance(exc, boto.SSOError | boto.TokenRetrievalError):
        hint = "run: aws sso login, with --profile where AWS_PROFILE is set"
    return AuthenticationError(f"no AWS credential could be had: {said}", hint=hint, uri=str(ref))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())[:300]
