"""Google's libraries over core's client: every request of theirs obeys its proxies, trust and time limits."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from attrs import field, frozen

from nim_core.errors import AuthenticationError, TransientError, UnsupportedError
from nim_core.types import Ambient, Anonymous, BearerToken, ModelUri, Secret, SourceContext, UriStyle
from nim_source_gcs.credentials import Found, endpoint, find_credentials
from nim_source_gcs.errors import judging, sign_in_error
from nim_source_gcs.refs import GcsRef

if TYPE_CHECKING:
    import httpx

_METADATA_HOSTS: Final = frozenset({"metadata.google.internal", "fd00:ec2::254", "fd20:ce::254"})
_DIRECT_SECONDS: Final = 10.0
_MARGIN_SECONDS: Final = 225.0
"""As google-auth has it: the metadata server gives out the same token until four minutes before its end."""

_FIELDS: Final = "items(name,size,md5Hash,crc32c,generation,contentEncoding),nextPageToken"


@frozen(kw_only=True)
class Pass:
    """
    What requests are signed with.

    Attributes:
        headers: To the API and nowhere else.
        origin: Where the credentials came from. None when there are none.
        expires_at: Unix time in seconds. None when it does not expire.
        renew_at: Unix time in seconds from which another is asked for. None: never.
    """

    headers: Mapping[str, Secret] = field(factory=dict)
    origin: str | None = None
    expires_at: float | None = None
    renew_at: float | None = None


@frozen
class _Answer:
    """An answer as google-auth reads it."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class GoogleRequest:
    """
    What google-auth makes requests with: core's client, but straight to this machine's own metadata service.

    A metadata service is reached on the link alone: no proxy gets there, and core refuses its address to all others.
    """

    def __init__(self, http: httpx.Client, metadata_host: str | None) -> None:
        self._http = http
        self._metadata_host = metadata_host
        self._direct: Any = None

    @property
    def session(self) -> Any:
        """The session for a metadata service, to which google-auth may add a client certificate."""
        return self._metadata_request().session

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **more: Any,
    ) -> Any:
        """Return the answer. Raises SourceError, or from a metadata service google-auth's TransportError."""
        if more.get("cert"):
            raise UnsupportedError("workload identity by client certificate cannot be used", hint="use a token instead")
        if self._is_metadata(url):
            limit = timeout or _DIRECT_SECONDS
            return self._metadata_request()(url, method, body, headers, limit, allow_redirects=False)
        response = self._http.request(method, url, content=body, headers=headers, extensions={"repeatable": True})
        if response.status_code >= 500:  # core has tried again often enough
            place = "{0.scheme}://{0.netloc}".format(urlsplit(url))
            raise TransientError(f"the token service failed: {place} (HTTP {response.status_code})")
        return _Answer(response.status_code, response.headers, response.content)

    def _is_metadata(self, url: str) -> bool:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host in _METADATA_HOSTS or parts.netloc == self._metadata_host:
            return True
        try:
            return ipaddress.ip_address(host).is_link_local
        except ValueError:
            return False

    def _metadata_request(self) -> Any:
        if self._direct is None:
            from google.auth.transport import requests

            self._direct = requests.Request()
            self._direct.session.trust_env = False
        return self._direct


class Signer:
    """Signs requests; safe to use from several threads."""

    def __init__(self, context: SourceContext, url: str, clock: Callable[[], float]) -> None:
        self._context = context
        self._url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._request = GoogleRequest(context.http, context.variables.text("GCE_METADATA_HOST"))
        self._searched = False
        self._found: Found | None = None
        self._granted: Pass | None = None

    def sign(self, bucket: str, *, refused: Pass | None = None) -> Pass:
        """Return what signs requests about ``bucket``; never ``refused`` again where it can be renewed."""
        uri = ModelUri(scheme="gs", location=bucket, style=UriStyle.OBJECT)
        credential = self._context.credential(self._url, uri)
        match credential:
            case Anonymous():
                return Pass()
            case BearerToken():
                headers = {"Authorization": Secret(f"Bearer {credential.token.reveal()}")}
                return Pass(headers=headers, origin=credential.origin, expires_at=credential.expires_at)
            case Ambient():
                return self._ambient(refused)
        raise AuthenticationError(
            f"Google Cloud Storage has no use for a {type(credential).__name__} (from {credential.origin})",
            hint="set GOOGLE_APPLICATION_CREDENTIALS to a credentials file",
        )

    def _ambient(self, refused: Pass | None) -> Pass:
        with self._lock:
            if not self._searched:
                self._found = find_credentials(self._context.variables, self._request)
                self._searched = True
            if self._found is None:
                return Pass()
            granted = self._granted
            if granted is None or granted is refused or self._clock() >= (granted.renew_at or math.inf):
                granted = self._granted = self._renewed(self._found)
            return granted

    def _renewed(self, found: Found) -> Pass:
        from google.auth.exceptions import GoogleAuthError

        try:
            found.credentials.refresh(self._request)
        except GoogleAuthError as exc:
            raise sign_in_error(exc, found) from exc
        headers: dict[str, str] = {}
        found.credentials.apply(headers)
        ends = found.credentials.expiry
        expires_at = None if ends is None else ends.replace(tzinfo=UTC).timestamp()
        renew_at = None
        if expires_at is not None:
            renew_at = expires_at - min(_MARGIN_SECONDS, max(0.0, expires_at - self._clock()) / 3)
        secret = {name: Secret(text) for name, text in headers.items()}
        return Pass(headers=secret, origin=found.origin, expires_at=expires_at, renew_at=renew_at)


class _Session:
    """What google-cloud-storage makes requests with; it looks like a session of ``requests``."""

    is_mtls = False

    def __init__(self, http: httpx.Client, signer: Signer, bucket: str) -> None:
        self._http = http
        self._signer = signer
        self._bucket = bucket

    def request(self, method: str, url: str, data: Any = None, **_: Any) -> httpx.Response:
        """Send a request, once more with another token when the first is refused; the headers are core's own."""
        granted = self._signer.sign(self._bucket)
        response = self._send(method, url, granted, data)
        if response.status_code == 401 and granted.renew_at is not None:
            response = self._send(method, url, self._signer.sign(self._bucket, refused=granted), data)
        return response

    def _send(self, method: str, url: str, granted: Pass, data: Any) -> httpx.Response:
        parts = urlsplit(url)
        headers = {name: value.reveal() for name, value in granted.headers.items()}
        target = f"{parts.path}?{parts.query}".encode("ascii")
        origin = f"{parts.scheme}://{parts.netloc}/"
        return self._http.request(method, origin, headers=headers, content=data, extensions={"target": target})


class Client:
    """Buckets at the endpoint that the variables name."""

    def __init__(self, context: SourceContext, clock: Callable[[], float] = time.time) -> None:
        self.url = endpoint(context.variables)
        self.signer = Signer(context, self.url, clock)
        self._http = context.http
        self._buckets: dict[str, Any] = {}

    def object(self, ref: GcsRef, generation: int | None = None) -> Any | None:
        """Return what google-cloud-storage knows of an object. None when it or its bucket is not there."""
        with judging(ref, self.signer.sign(ref.bucket).origin):
            return self._bucket(ref).get_blob(ref.key, generation=generation, retry=None)

    def objects(self, ref: GcsRef) -> list[Any]:
        """Return all objects below a prefix. Raises NotFoundError when the bucket is not there."""
        with judging(ref, self.signer.sign(ref.bucket).origin):
            return list(self._bucket(ref).list_blobs(prefix=ref.prefix, fields=_FIELDS, retry=None))

    def _bucket(self, ref: GcsRef) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage  # type: ignore[import-untyped]

        if ref.bucket not in self._buckets:
            client = storage.Client(
                project=None,
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                _http=_Session(self._http, self.signer, ref.bucket),
                client_options={"api_endpoint": self.url},
            )
            # It asks for the bucket itself, in a thread of its own, for traces that nobody reads.
            client._bucket_metadata_cache = None  # noqa: SLF001
            self._buckets[ref.bucket] = client.bucket(ref.bucket)
        return self._buckets[ref.bucket]
