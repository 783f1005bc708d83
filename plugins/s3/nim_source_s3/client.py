"""boto3's clients: for the right region and endpoint, and over core's connections."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from attrs import field, frozen

from nim_core.errors import ConfigError, UnsupportedError
from nim_core.types import Ambient, Anonymous, Credential, KeyPair, SinkContext, SourceContext, Variables
from nim_source_s3.refs import S3Ref

if TYPE_CHECKING:
    import httpx

_DEFAULT_REGION: Final = "us-east-1"
_STYLES: Final = ("auto", "virtual", "path")
_AWS: Final = re.compile(r"(.*\.)?amazonaws\.com(\.cn)?")
_OCI: Final = re.compile(r"(.*\.)?(?P<kind>vhcompat|compat)\.objectstorage\..*\.(oraclecloud|oci\.customer-oci)\.com")
_OCI_STYLES: Final = {"compat": "path", "vhcompat": "virtual"}


@frozen(kw_only=True, eq=False)
class Access:
    """
    A way to a bucket.

    Attributes:
        client: boto3's; safe to use from several threads.
        origin: Where the keys came from. None for a stranger.
        temporary: Whether the keys expire.
        region: That requests are signed for.
        endpoint: URL of the service.
        keys: botocore's; may renew themselves. None for a stranger.
        authorities: PEM file of those to trust instead of the run's. None: the run's.
    """

    client: Any
    origin: str | None
    temporary: bool
    region: str
    endpoint: str
    keys: Any = field(repr=False)
    authorities: Path | None

    @property
    def is_aws(self) -> bool:
        """Whether this is Amazon's own service."""
        return _AWS.fullmatch(urlsplit(self.endpoint).hostname or "") is not None


class ElsewhereError(Exception):
    """The bucket is in another region than the request was signed for: ``region``."""

    def __init__(self, region: str) -> None:
        super().__init__(region)
        self.region = region


class Clients:
    """
    Makes clients when they are first needed, one per credential and region.

    Everything boto3 asks of S3, STS and SSO goes over ``context.http``, and so through the proxies and under the
    authorities that hold for the run. Only what is asked of this machine itself, such as instance metadata, does not.
    """

    def __init__(self, context: SourceContext | SinkContext) -> None:
        self._context = context
        self._made: dict[tuple[Credential, str | None], Access] = {}
        self._regions: dict[str, str] = {}
        self._lock = threading.Lock()

    def access(self, ref: S3Ref) -> Access:
        """Return the way to the bucket of ``ref``. Raises what boto3 does when it finds no credential."""
        endpoint = endpoint_of(self._context.variables) or "https://s3.amazonaws.com"
        credential = self._context.credential(endpoint, ref.uri)
        region = self._regions.get(ref.bucket)
        with self._lock:
            if (credential, region) not in self._made:
                self._made[credential, region] = self._make(credential, region)
            return self._made[credential, region]

    def move(self, bucket: str, region: str) -> None:
        """Take note of the region that a bucket is in."""
        self._regions[bucket] = region

    def _make(self, credential: Credential, region: str | None) -> Access:
        from botocore import UNSIGNED
        from botocore.session import Session

        base, variables = Session(), self._context.variables
        session = _session(base, credential, variables)
        authorities = _authorities(base, variables)
        base.register("before-send", _carrier(self._context.http, authorities))
        keys = None if isinstance(credential, Anonymous) else session.get_credentials()
        region = region or region_of(variables) or session.region_name or _DEFAULT_REGION
        client = _client(session, variables, region, UNSIGNED if keys is None else "s3v4")
        client.meta.events.register_first("needs-retry.s3", _region_check(region))
        return Access(
            client=client,
            origin=None if keys is None else credential.origin,
            temporary=keys is not None and bool(keys.token),
            region=region,
            endpoint=client.meta.endpoint_url,
            keys=keys,
            authorities=authorities,
        )


def _session(base: Any, credential: Credential, variables: Variables) -> Any:
    """Return boto3's session around botocore's ``base``, with the keys of ``credential`` where it has some."""
    import boto3

    keys: dict[str, str | None] = {}
    match credential:
        case KeyPair(access_key=access_key, secret_key=secret_key, session_token=token):
            keys = {"aws_access_key_id": access_key, "aws_secret_access_key": secret_key.reveal()}
            keys["aws_session_token"] = token.reveal() if token else None
        case Anonymous() | Ambient():
            pass
        case _:
            kind = type(credential).__name__
            raise UnsupportedError(f"S3 cannot be asked with a {kind} (from {credential.origin})")
    return boto3.Session(botocore_session=base, profile_name=variables.text("AWS_PROFILE"), **keys)


def endpoint_of(variables: Variables) -> str | None:
    """Return the endpoint that the variables name. None: the profile's, or AWS itself. Raises ConfigError."""
    if variables.flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
        return None
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        url = variables.text(name)
        if url is not None:
            if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url):
                raise ConfigError(f"no http or https URL in {name}", hint=f"set {name} to http[s]://host[:port]")
            return url
    return None


def _authorities(base: Any, variables: Variables) -> Path | None:
    """Return the file that AWS_CA_BUNDLE or else the profile names. Raises ConfigError when it is not there."""
    named = variables.text("AWS_CA_BUNDLE") or base.get_config_variable("ca_bundle")
    base.set_config_variable("ca_bundle", True)  # noqa: FBT003 - botocore opens no connections, and balks at ""
    if not named:
        return None
    file = Path(named).expanduser()
    if not file.is_file():
        raise ConfigError(f"no such file of certificates: {file}", hint="set AWS_CA_BUNDLE to a PEM file, or unset it")
    return file


def region_of(variables: Variables) -> str | None:
    """Return the region that the variables name. None: they name none."""
    return variables.text("AWS_REGION") or variables.text("AWS_DEFAULT_REGION")


def style_of(variables: Variables) -> str | None:
    """Return how buckets are named on the wire, as the variables say. None: they do not. Raises ConfigError."""
    if variables.flag("AWS_S3_USE_PATH_STYLE"):
        return "path"
    style = variables.text("AWS_S3_ADDRESSING_STYLE")
    if style is not None and style.lower() not in _STYLES:
        raise ConfigError(f"no addressing style: {style}", hint="set AWS_S3_ADDRESSING_STYLE to auto, virtual or path")
    return None if style is None or style.lower() == "auto" else style.lower()


def default_style(endpoint: str) -> str | None:
    """
    Return how buckets are named at an endpoint unless the user says. None: as the profile says, else as boto3 has it.

    AWS wants them in the host name, of the region's own host. Oracle's hosts serve one style each.
    """
    host = urlsplit(endpoint).hostname or ""
    oracle = _OCI.fullmatch(host)
    if oracle:
        return _OCI_STYLES[oracle["kind"]]
    return "virtual" if _AWS.fullmatch(host) else None


def _client(session: Any, variables: Variables, region: str, signature: Any) -> Any:
    """Return a client; as the style depends on the endpoint, which a profile may name, it takes two tries."""
    from botocore.config import Config

    options = {"region_name": region, "endpoint_url": endpoint_of(variables)}
    rules = Config(
        signature_version=signature,
        retries={"total_max_attempts": 1},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = session.client("s3", config=rules, **options)
    profile = (client.meta.config.s3 or {}).get("addressing_style")
    style = style_of(variables) or profile or default_style(client.meta.endpoint_url)
    if style is None:
        return client
    return session.client("s3", config=rules.merge(Config(s3={"addressing_style": style})), **options)


def _region_check(signed_for: str) -> Callable[..., None]:
    """
    Return what is to be called with every answer.

    boto3 would follow a bucket into its region by itself, but goes on to sign URLs for the first one, and asks for ever
    where no region is named; so it is told that it has followed already.
    """

    def check(response: tuple[Any, dict[str, Any]] | None, request_dict: dict[str, Any], **_: object) -> None:
        if response is None or response[0].status_code < 300:
            return
        request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True
        check_region(signed_for, response[0].headers, response[1])

    return check


def check_region(signed_for: str, headers: Mapping[str, str], answer: Mapping[str, Any]) -> None:
    """Raise ElsewhereError when a refusal, with these headers and as botocore parsed it, names another region."""
    region = headers.get("x-amz-bucket-region") or answer.get("Error", {}).get("Region")
    if region and region != signed_for:
        raise ElsewhereError(region)


class _Body(BytesIO):
    """A body as botocore reads it."""

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.read()


def _carrier(http: httpx.Client, authorities: Path | None) -> Callable[..., Any]:
    """Return what sends botocore's requests over ``http``, to the letter; redirects stay with botocore."""

    rules = {"follow_redirects": False} | ({"authorities": authorities} if authorities else {})

    def send(request: Any, **_: object) -> Any:
        from botocore.awsrequest import AWSResponse

        parts = urlsplit(request.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        answer = http.request(
            request.method,
            f"{parts.scheme}://{parts.netloc}/",
            headers={name: _text(value) for name, value in request.headers.items()},
            content=request.body,
            extensions={"target": target.encode("ascii"), **rules},
        )
        return AWSResponse(request.url, answer.status_code, dict(answer.headers), _Body(answer.content))

    return send


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
