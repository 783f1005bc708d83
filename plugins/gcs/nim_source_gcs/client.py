"""Google's libraries over core's client: every request of theirs obeys its proxies, trust and time limits."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from attrs import field, frozen

from nim_core.errors import AuthenticationError, SourceError, TransientError, UnsupportedError
from nim_core.types import Ambient, Anonymous, BearerToken, ModelUri, Secret, SinkContext, SourceContext, UriStyle
from nim_source_gcs.credentials import Access, Found, endpoint, find_credentials
from nim_source_gcs.errors import judging, no_token_error, sign_in_error, status_error
from nim_source_gcs.objects import FIELDS, Generation
from nim_source_gcs.refs import GcsRef

if TYPE_CHECKING:
    import httpx

_METADATA_HOSTS: Final = frozenset({"metadata.google.internal", "fd00:ec2::254", "fd20:ce::254"})
_DIRECT_SECONDS: Final = 10.0
_MARGIN_SECONDS: Final = 225.0
"""As google-auth has it: the metadata server gives out the same token until four minutes before its end."""

T = TypeVar("T")


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

    def __init__(self, context: SourceContext | SinkContext, url: str, scope: str, clock: Callable[[], float]) -> None:
        self._context = context
        self._url = url
        self._scope = scope
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

    def signed(self, bucket: str, send: Callable[[Pass], T], status: Callable[[T], int]) -> T:
        """Return what ``send`` answers; it is asked once more with another token when its answer's status is 401."""
        granted = self.sign(bucket)
        answer = send(granted)
        if status(answer) == 401 and granted.renew_at is not None:
            answer = send(self.sign(bucket, refused=granted))
        return answer

    def _ambient(self, refused: Pass | None) -> Pass:
        with self._lock:
            if not self._searched:
                self._found = find_credentials(self._context.variables, self._request, self._scope)
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
        except (ValueError, KeyError, TypeError, AttributeError) as exc:  # google-auth takes any JSON for an answer
            raise no_token_error(found) from exc
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

    def __init__(self, client: Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def request(self, method: str, url: str, data: Any = None, **_: Any) -> httpx.Response:
        """Send a request; the headers are core's own."""
        return self._client.request(self._bucket, method, url, content=data)


class Client:
    """
    Buckets at the endpoint that the variables name.

    Args:
        context: Of a source or a sink.
        access: What is to be done there.
        clock: Unix time in seconds.

    Attributes:
        url: The endpoint, without a slash at the end.
        signer: Signs what goes there.
    """

    def __init__(
        self, context: SourceContext | SinkContext, access: Access, clock: Callable[[], float] = time.time
    ) -> None:
        self.url = endpoint(context.variables)
        self.signer = Signer(context, self.url, access.scope, clock)
        self._role = access.role
        self._http = context.http
        self._buckets: dict[str, Any] = {}

    def object(self, ref: GcsRef, generation: int | None = None) -> Generation | None:
        """Return what an object holds, or whether it holds ``generation``. None when it or its bucket is not there."""
        with self.judging(ref):
            blob = self._bucket(ref).get_blob(ref.key, generation=generation, retry=None)
            return None if blob is None else Generation.read(blob._properties)  # noqa: SLF001 - as the API sent it

    def objects(self, ref: GcsRef, prefix: str) -> Iterator[Generation]:
        """Return all objects whose keys begin with ``prefix``. Raises NotFoundError when the bucket is not there."""
        with self.judging(ref):
            for blob in self._bucket(ref).list_blobs(prefix=prefix, fields=FIELDS, retry=None):
                yield Generation.read(blob._properties)  # noqa: SLF001

    def request(
        self,
        bucket: str,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """
        Send a control request, once more with another token when the first is refused.

        Args:
            bucket: What it is about.
            method: In capitals.
            url: Sent as it is.
            content: Its body.
            headers: Beside core's own and those that sign it.
            repeatable: Whether it does no harm when core sends it again.
        """
        parts = urlsplit(url)
        extensions = {"target": f"{parts.path}?{parts.query}".encode("ascii"), "repeatable": repeatable}

        def send(granted: Pass) -> httpx.Response:
            signed = {**(headers or {}), **{name: value.reveal() for name, value in granted.headers.items()}}
            origin = f"{parts.scheme}://{parts.netloc}/"
            return self._http.request(method, origin, headers=signed, content=content, extensions=extensions)

        return self.signer.signed(bucket, send, lambda answer: answer.status_code)

    def judging(self, ref: GcsRef) -> AbstractContextManager[None]:
        """Ask about ``ref``, or read what was answered, as :func:`~nim_source_gcs.errors.judging`."""
        return judging(ref, self.signer.sign(ref.bucket).origin, self._role)

    def refusal(self, ref: GcsRef, status: int) -> SourceError:
        """Return the error for a status that is no success, as :func:`~nim_source_gcs.errors.status_error`."""
        return status_error(status, ref, self.signer.sign(ref.bucket).origin, self._role)

    def _bucket(self, ref: GcsRef) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage  # type: ignore[import-untyped]

        if ref.bucket not in self._buckets:
            client = storage.Client(
                project=None,
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                _http=_Session(self, ref.bucket),
                client_options={"api_endpoint": self.url},
            )
            # It asks for the bucket itself, in a thread of its own, for traces that nobody reads.
            client._bucket_metadata_cache = None  # noqa: SLF001
            self._buckets[ref.bucket] = client.bucket(ref.bucket)
        return self._buckets[ref.bucket]
