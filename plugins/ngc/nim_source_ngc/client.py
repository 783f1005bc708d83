"""Requests to the API: signed, tried again once with a new token, judged, page by page."""

from __future__ import annotations

import base64
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve, frozen

from nim_core.errors import AuthenticationError, SourceError
from nim_core.types import Anonymous, BearerToken, Credential, Secret, SourceContext
from nim_source_ngc.credentials import Pass, endpoint, proxy_endpoint
from nim_source_ngc.errors import checked_json, reading
from nim_source_ngc.refs import NgcRef

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_MOST_PAGES = 10_000


@frozen(kw_only=True)
class _Token:
    granted: Pass
    renew_at: float


class Signer:
    """
    Signs requests; safe to use from several threads.

    Keys that start with ``nvapi-`` and JSON web tokens are sent as they are. Other keys are traded at the token service
    for a token with the narrowest scope, which is kept until a third of its life or a minute is left.
    """

    def __init__(self, context: SourceContext, *, clock: Callable[[], float] = time.time) -> None:
        self._context = context
        self._clock = clock
        self._api = endpoint(context.variables, "NGC_API_ENDPOINT")
        self._auth = endpoint(context.variables, "NGC_AUTH_ENDPOINT")
        self._guest = Pass(headers={"X-NGC-Guest-Token": Secret(str(uuid.uuid4()))})
        self._tokens: dict[tuple[Secret, str | None, str], _Token] = {}
        self._lock = threading.Lock()

    def admitted(self, ref: NgcRef) -> NgcRef:
        """Return ``ref`` with the paths of a guest when there is no key."""
        return evolve(ref, guest=isinstance(self._credential(ref), Anonymous))

    def sign(self, ref: NgcRef, *, refused: Pass | None = None) -> Pass:
        """Return what signs requests about ``ref``; never the token in ``refused``, which no longer works."""
        credential = self._credential(ref)
        if isinstance(credential, Anonymous):
            return self._guest
        key = _key(credential)
        if key.reveal().startswith("nvapi-") or _JWT.fullmatch(key.reveal()):
            return _bearer(key, key, origin=credential.origin, expires_at=credential.expires_at)
        with self._lock:
            token = self._tokens.get((key, ref.proxy, ref.scope))
            if token is None or token.granted is refused or self._clock() >= token.renew_at:
                token = self._tokens[key, ref.proxy, ref.scope] = self._trade(key, credential.origin, ref)
            return token.granted

    def api(self, ref: NgcRef) -> str:
        """Return the URL of the API that has ``ref``: that of its proxy, else NGC_API_ENDPOINT."""
        return self._api if ref.proxy is None else proxy_endpoint(self._context.variables, ref.proxy)

    def _credential(self, ref: NgcRef) -> Credential:
        return self._context.credential(self.api(ref), ref.uri)

    def _trade(self, key: Secret, origin: str, ref: NgcRef) -> _Token:
        pair = Secret(base64.b64encode(f"$oauthtoken:{key.reveal()}".encode()).decode())
        asking = Pass(headers={"Authorization": Secret(f"Basic {pair.reveal()}")}, origin=origin, secrets=(key, pair))
        auth = self._auth if ref.proxy is None else self.api(ref)
        url = f"{auth}/token?service=ngc&scope={ref.scope}"
        body = checked_json(self._context.http.get(url, headers=_wire(asking)), ref, asking)
        with reading(ref):
            token, life = Secret(str(body["token"])), float(body.get("expires_in") or 0)
        now = self._clock()
        granted = _bearer(token, key, origin=origin, expires_at=now + life, renewable=True)
        return _Token(granted=granted, renew_at=now + life - max(life / 3, 60))


class Client:
    """The API at NGC_API_ENDPOINT, and those of proxies."""

    def __init__(self, context: SourceContext, signer: Signer) -> None:
        self._http = context.http
        self._signer = signer

    def url(self, ref: NgcRef, path: str) -> str:
        """Return the URL of an API path."""
        return self._signer.api(ref) + path

    def json(self, ref: NgcRef, path: str) -> dict[str, Any]:
        """Return the object at an API path. Raises SourceError in the subclass the answer asks for."""
        response, granted = self._get(ref, path)
        return checked_json(response, ref, granted)

    def text(self, ref: NgcRef, path: str) -> str | None:
        """Return the text of a file at an API path that redirects. None when it is refused or absent."""
        response, _ = self._get(ref, path)
        return response.text if response.status_code == 200 else None

    def pages(self, ref: NgcRef, path: str, read: Callable[[dict[str, Any]], Mapping[str, T]]) -> dict[str, T]:
        """
        Return what ``read`` finds in all pages at an API path, by file path.

        Pages count from 0. Because clients in the field disagree about that, one page more than there should be is
        asked for when files are missing; repeated and empty pages do no harm.
        """
        found: dict[str, T] = {}
        number, pages, total = 0, 1, 0
        while number < pages or (number == pages and len(found) < total):
            page = self.json(ref, f"{path}?page-size=500" + (f"&page-number={number}" if number else ""))
            with reading(ref):
                found.update({path: item for path, item in read(page).items() if path not in found})
                info = page.get("paginationInfo") or {}
                pages, total = min(int(info.get("totalPages", 1)), _MOST_PAGES), int(info.get("totalResults", 0))
            number += 1
        if len(found) < total:
            raise SourceError(f"NGC's listing of {ref} is not complete: {len(found)} of {total} files")
        return found

    def _get(self, ref: NgcRef, path: str) -> tuple[httpx.Response, Pass]:
        granted = self._signer.sign(ref)
        response = self._http.get(self.url(ref, path), headers=_wire(granted))
        if response.status_code == 401 and granted.renewable:
            granted = self._signer.sign(ref, refused=granted)
            response = self._http.get(self.url(ref, path), headers=_wire(granted))
        return response, granted


def _wire(granted: Pass) -> dict[str, str]:
    signed = {name: value.reveal() for name, value in granted.headers.items()}
    return {"Accept": "application/json, */*;q=0.5", **signed}


def _bearer(token: Secret, key: Secret, *, origin: str, expires_at: float | None, renewable: bool = False) -> Pass:
    headers = {"Authorization": Secret(f"Bearer {token.reveal()}")}
    return Pass(headers=headers, origin=origin, secrets=(token, key), expires_at=expires_at, renewable=renewable)


def _key(credential: Credential) -> Secret:
    if not isinstance(credential, BearerToken):
        raise AuthenticationError(f"NGC wants a key, not what {credential.origin} gives", hint="set NGC_API_KEY")
    if not re.fullmatch(r"[!-~]+", credential.token.reveal()):
        origin = credential.origin
        raise AuthenticationError(f"the key from {origin} has characters no key has", hint=f"set {origin} again")
    return credential.token
