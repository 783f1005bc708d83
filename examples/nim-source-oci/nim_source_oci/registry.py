"""
Requests to a registry, and the passes they need.

A registry that wants to know who asks answers 401 and says where tokens are; a token is good for one repository and is
kept until it expires. Source: OCI distribution specification 1.1; "Token Authentication Specification" of Distribution.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from nim_core.errors import DigestMismatchError, SourceError
from nim_core.types import Anonymous, BasicPair, BearerToken, Credential, Secret, SourceContext
from nim_source_oci.errors import reading, status_error
from nim_source_oci.refs import OciRef

if TYPE_CHECKING:
    import httpx

_MANIFESTS: Final = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.artifact.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_PARAMETER = re.compile(r'([a-z_]+)="([^"\\]*)"')
_LEAST_SECONDS: Final = 60
"""How long a token is good for at least, and where the service does not say."""
_MARGIN_SECONDS: Final = 10


@frozen(kw_only=True, eq=False)
class Pass:
    """What requests for one repository are signed with; ``origin`` is None for a guest."""

    headers: Mapping[str, Secret]
    origin: str | None = None
    expires_at: float | None = None

    @property
    def fresh(self) -> bool:
        """Whether it is good for another moment."""
        return self.expires_at is None or self.expires_at - _MARGIN_SECONDS > time.time()


class Registry:
    """Every registry that URIs name; safe to use from several threads."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._plain = {host.strip().lower() for host in (context.variables.text("OCI_PLAIN_HTTP") or "").split(",")}
        self._passes: dict[tuple[str, str], Pass] = {}
        self._lock = threading.Lock()

    def url(self, ref: OciRef, path: str) -> str:
        """Return the URL of ``path`` in a repository."""
        return f"{self._endpoint(ref)}/v2/{ref.name}/{path}"

    def manifest(self, ref: OciRef, reference: str) -> tuple[dict[str, Any], str]:
        """
        Return a manifest or index and its digest, which is worked out and not believed.

        Raises:
            SourceError: In the subclass the answer asks for.
            DigestMismatchError: The registry's answer is not what was asked for.
        """
        response, _ = self._ask("GET", ref, f"manifests/{reference}")
        digest = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
        said = response.headers.get("Docker-Content-Digest", "")
        for promised in (reference, said):
            if promised.startswith("sha256:") and promised != digest:
                raise DigestMismatchError(f"the registry gave another manifest for {ref}: {digest}, not {promised}")
        with reading(ref):
            return dict(json.loads(response.content)), digest

    def granted(self, ref: OciRef, *, refused: Pass | None = None) -> Pass:
        """Return a pass for a repository: the one that is there, unless it has expired or is ``refused``."""
        with self._lock:
            known = self._passes.get((ref.host, ref.name))
            if known is not None and known.fresh and known is not refused:
                return known
            self._passes.pop((ref.host, ref.name), None)
            return self._ask("HEAD", ref, f"manifests/{ref.reference}")[1]

    def _ask(self, method: str, ref: OciRef, path: str) -> tuple[httpx.Response, Pass]:
        known = self._passes.get((ref.host, ref.name))
        granted = known if known is not None and known.fresh else Pass(headers={})
        response = self._send(method, self.url(ref, path), granted.headers)
        if response.status_code == 401:
            granted = self._sign_in(ref, response.headers.get("WWW-Authenticate", ""))
            response = self._send(method, self.url(ref, path), granted.headers)
        if response.status_code != 200:
            raise status_error(response, ref, granted.origin)
        self._passes[ref.host, ref.name] = granted
        return response, granted

    def _send(self, method: str, url: str, headers: Mapping[str, Secret], **options: Any) -> httpx.Response:
        signed = {name: value.reveal() for name, value in headers.items()}
        return self._context.http.request(method, url, headers={"Accept": _MANIFESTS, **signed}, **options)

    def _sign_in(self, ref: OciRef, challenge: str) -> Pass:
        credential = self._context.credential(self._endpoint(ref), ref.uri)
        if isinstance(credential, BearerToken):
            headers = {"Authorization": Secret(f"Bearer {credential.token.reveal()}")}
            return Pass(headers=headers, origin=credential.origin, expires_at=credential.expires_at)
        headers, origin = _basic(credential)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() != "bearer":
            return Pass(headers=headers, origin=origin, expires_at=credential.expires_at)
        asked = dict(_PARAMETER.findall(rest))
        response = self._send("GET", self._realm(ref, asked), headers, params=_question(ref, asked))
        if response.status_code != 200:
            raise status_error(response, ref, origin)
        with reading(ref):
            answer = response.json()
            token = Secret(f"Bearer {answer.get('token') or answer['access_token']}")
            seconds = max(float(answer.get("expires_in") or 0), _LEAST_SECONDS)
        return Pass(headers={"Authorization": token}, origin=origin, expires_at=time.time() + seconds)

    def _endpoint(self, ref: OciRef) -> str:
        return f"{'http' if self._is_plain(ref.host) else 'https'}://{ref.host}"

    def _is_plain(self, host: str) -> bool:
        return host in self._plain or re.sub(r":[0-9]+$", "", host) in self._plain

    def _realm(self, ref: OciRef, asked: Mapping[str, str]) -> str:
        """Return where tokens are. Raises SourceError where a password would go there in the clear."""
        realm = asked.get("realm", "")
        scheme, _, rest = realm.partition("://")
        if scheme == "https" or (scheme == "http" and self._is_plain(rest.partition("/")[0].lower())):
            return realm
        raise SourceError(f"the token service of {ref.host} is not at an https address", hint="see OCI_PLAIN_HTTP")


def _question(ref: OciRef, asked: Mapping[str, str]) -> dict[str, str]:
    service = {"service": asked["service"]} if "service" in asked else {}
    return {**service, "scope": f"repository:{ref.name}:pull"}


def _basic(credential: Credential) -> tuple[dict[str, Secret], str | None]:
    match credential:
        case Anonymous():
            return {}, None
        case BasicPair():
            pair = base64.b64encode(f"{credential.username}:{credential.password.reveal()}".encode()).decode("ascii")
            return {"Authorization": Secret(f"Basic {pair}")}, credential.origin
    raise SourceError(f"registries take a user with a password, or a token, not what {credential.origin} gives")
