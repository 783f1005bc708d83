"""The variables, and which credential they make."""

from __future__ import annotations

from nim_core.errors import AuthenticationError
from nim_core.types import Ambient, Anonymous, EnvVar, KeyPair, Variables

ENVIRONMENT = (
    EnvVar(
        name="AWS_NO_SIGN_REQUEST",
        kind="flag",
        default="0",
        summary="read public buckets as a stranger, whatever keys there are",
    ),
    EnvVar(name="AWS_ACCESS_KEY_ID", summary="access key", secret=True),
    EnvVar(name="AWS_SECRET_ACCESS_KEY", summary="secret key of AWS_ACCESS_KEY_ID", secret=True),
    EnvVar(name="AWS_SESSION_TOKEN", summary="session token, where the keys are temporary", secret=True),
    EnvVar(name="AWS_PROFILE", summary="profile of the AWS configuration, where no keys are set"),
    EnvVar(name="AWS_REGION", summary="region; wins over AWS_DEFAULT_REGION and the profile's (default: us-east-1)"),
    EnvVar(name="AWS_DEFAULT_REGION", summary="region, where AWS_REGION is not set"),
    EnvVar(name="AWS_ENDPOINT_URL_S3", kind="url", summary="URL of a store that speaks S3's protocol"),
    EnvVar(name="AWS_ENDPOINT_URL", kind="url", summary="as AWS_ENDPOINT_URL_S3, which wins; for all services of AWS"),
    EnvVar(
        name="AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        kind="flag",
        default="0",
        summary="use AWS itself, whatever endpoints are configured",
    ),
    EnvVar(
        name="AWS_S3_USE_PATH_STYLE",
        kind="flag",
        default="0",
        summary="name buckets in the path, https://host/bucket/key, whatever AWS_S3_ADDRESSING_STYLE says",
    ),
    EnvVar(
        name="AWS_S3_ADDRESSING_STYLE",
        summary="virtual (https://bucket.host/key), path or auto (default: virtual on AWS, else auto)",
    ),
    EnvVar(name="AWS_REQUEST_PAYER", summary="requester: pay for reading buckets whose owners do not"),
    EnvVar(name="AWS_CA_BUNDLE", kind="path", summary="certificates (PEM) trusted for S3 instead of the run's own"),
)


def find_credential(variables: Variables) -> KeyPair | Anonymous | Ambient:
    """
    Return the keys that the variables hold; Ambient, where they hold none, leaves the search to boto3.

    Raises:
        AuthenticationError: One half of a key is set.
        ConfigError: AWS_NO_SIGN_REQUEST is no boolean.
    """
    if variables.flag("AWS_NO_SIGN_REQUEST"):
        return Anonymous(origin="AWS_NO_SIGN_REQUEST")
    key, secret = (variables.secret(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if key is None and secret is None:
        return Ambient(origin="AWS_PROFILE" if variables.is_set("AWS_PROFILE") else "the AWS credential chain")
    if key is None or secret is None:
        missing = "AWS_ACCESS_KEY_ID" if key is None else "AWS_SECRET_ACCESS_KEY"
        raise AuthenticationError(f"half a key: {missing} is not set", hint=f"set {missing} too, or neither")
    token = variables.secret("AWS_SESSION_TOKEN")
    return KeyPair(access_key=key.reveal(), secret_key=secret, session_token=token, origin="AWS_ACCESS_KEY_ID")
