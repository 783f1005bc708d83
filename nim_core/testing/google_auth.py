"""
Where Google gives out tokens: token service, security token service, impersonation, and the metadata server.

In a test::

    with GoogleAuth() as auth:
        key = auth.service_account_file(folder)  # for GOOGLE_APPLICATION_CREDENTIALS
        ...  # auth.log, auth.faults, auth.expire_tokens()

Assertions are checked against the public key, refresh tokens and subject tokens against what the files hold. Google's
own library, google-auth, gets tokens here with every kind of credentials.
"""

from __future__ import annotations

import base64
import datetime
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from attrs import frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from nim_core.testing.certificates import Certificates
from nim_core.testing.corpus import inline
from nim_core.testing.faults import Faults
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog, Response, json_response

__all__ = ["GoogleAuth"]

_ACCOUNT = "reader@sample.iam.gserviceaccount.com"
_AUDIENCE = "https://oauth2.googleapis.com/token"
_METADATA = "/computeMetadata/v1/"
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


@frozen(kw_only=True)
class _Token:
    holder: str
    expires_at: float


class GoogleAuth:
    """
    Google's ways to a token, serving while it is entered.

    Args:
        certificates: Makes it speak TLS; not the metadata server, which never does.
        lifetime: Seconds a token is good for.
        log: Gets every request; routes are ``token``, ``sts``, ``impersonate`` and ``metadata``. None: one of its own.

    Attributes:
        faults: What goes wrong, by route or path.
        metadata_host: Host and port, for GCE_METADATA_HOST and GCE_METADATA_IP.
        holders: Who got a token, in order: ``service account``, ``user``, ``workload``, ``impersonated``, ``machine``.
    """

    def __init__(
        self, *, certificates: Certificates | None = None, lifetime: float = 3600, log: RequestLog | None = None
    ) -> None:
        self.log = RequestLog() if log is None else log
        self.faults = Faults()
        self.lifetime = lifetime
        self.holders: list[str] = []
        self._tokens: dict[str, _Token] = {}
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._refresh_token, self._client_secret, self._subject_token = (secrets.token_hex(16) for _ in range(3))
        self._tokens_origin = HttpOrigin("google tokens", self._answer, log=self.log, certificates=certificates)
        self._metadata_origin = HttpOrigin("google metadata", self._answer, log=self.log)
        self.url = self._tokens_origin.url
        self.metadata_host = self._metadata_origin.url.partition("://")[2]

    def __enter__(self) -> Self:
        self._tokens_origin.__enter__()
        self._metadata_origin.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metadata_origin.__exit__(kind, error, trace)
        self._tokens_origin.__exit__(kind, error, trace)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens that were given out and are not expired by hand."""
        return tuple(self._tokens)

    def knows(self, authorization: str | None) -> bool:
        """Whether the header ``Authorization`` carries a token that was given out here and has not expired."""
        token = self._tokens.get((authorization or "").removeprefix("Bearer "))
        return token is not None and token.expires_at > time.time()

    def expire_tokens(self) -> None:
        """Let every token given out so far be expired."""
        self._tokens.clear()

    # ------------------------------------------------------------------------------------------- files with credentials
    def service_account_file(self, folder: Path, *, forged: bool = False) -> Path:
        """Write a service account's key file; ``forged``: with another key than the account's."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048) if forged else self._key
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        facts = {"client_email": _ACCOUNT, "private_key_id": "1", "private_key": pem.decode(), "project_id": "sample"}
        return _write(folder / "service_account.json", "service_account", token_uri=f"{self.url}/token", **facts)

    def user_file(self, folder: Path, *, revoked: bool = False) -> Path:
        """Write what ``gcloud auth application-default login`` writes; ``revoked``: with a token that is no good."""
        return _write(
            folder / "application_default_credentials.json",
            "authorized_user",
            client_id="sample",
            client_secret=self._client_secret,
            refresh_token=secrets.token_hex(16) if revoked else self._refresh_token,
            token_uri=f"{self.url}/token",
        )

    def workload_file(self, folder: Path, *, impersonate: bool = False) -> Path:
        """
        Write the file of workload identity federation, whose subject token lies in a file beside it.

        Args:
            folder: Gets both files.
            impersonate: Whether the workload acts as a service account.
        """
        subject = folder / "subject_token"
        subject.write_text(self._subject_token, encoding="utf-8")
        url = f"{self.url}/impersonate/{_ACCOUNT}:generateAccessToken"
        return _write(
            folder / "workload.json",
            "external_account",
            audience="//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/sample/providers/sample",
            subject_token_type="urn:ietf:params:oauth:token-type:jwt",  # noqa: S106 - the name of a kind of token
            token_url=f"{self.url}/sts",
            credential_source={"file": str(subject)},
            **({"service_account_impersonation_url": url} if impersonate else {}),
        )

    # ---------------------------------------------------------------------------------------------------------- answers
    def _answer(self, request: Request) -> tuple[str, Response]:
        if request.origin == "google metadata":
            route, response = "metadata", self._metadata(request)
        elif request.path.startswith("/impersonate/"):
            route, response = "impersonate", self._impersonate(request)
        elif request.path == "/sts":
            route, response = "sts", self._exchange(_form(request))
        else:
            route, response = "token", self._grant(_form(request))
        return route, self.faults.apply(route, request, response)

    def _grant(self, form: Mapping[str, str]) -> Response:
        if form.get("grant_type") == _JWT_BEARER:
            fault = self._assertion_fault(form.get("assertion", ""))
            return _refusal(400, "invalid_grant", fault) if fault else self._give("service account")
        known = (form.get("client_secret"), form.get("refresh_token")) == (self._client_secret, self._refresh_token)
        if form.get("grant_type") != "refresh_token":
            return _refusal(400, "unsupported_grant_type", "Unknown grant.")
        return self._give("user") if known else _refusal(400, "invalid_grant", "Token has been expired or revoked.")

    def _assertion_fault(self, assertion: str) -> str:
        """Return what is wrong with a signed assertion (RFC 7523); empty when nothing is."""
        signed, _, signature = assertion.rpartition(".")
        try:
            claims = json.loads(_unpadded(signed.partition(".")[2]))
            self._key.public_key().verify(_unpadded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (ValueError, InvalidSignature):
            return "Invalid JWT Signature."
        right = claims.get("iss") == _ACCOUNT and claims.get("aud") == _AUDIENCE and claims.get("scope")
        return "" if right and claims["iat"] - 60 < time.time() < claims["exp"] else "Invalid JWT."

    def _exchange(self, form: Mapping[str, str]) -> Response:
        if form.get("grant_type") != _EXCHANGE or form.get("subject_token") != self._subject_token:
            return _refusal(400, "invalid_grant", "The subject token is not valid.")
        return self._give("workload", issued_token_type="urn:ietf:params:oauth:token-type:access_token")  # noqa: S106

    def _impersonate(self, request: Request) -> Response:
        if not self.knows(request.header("Authorization")):
            return json_response({"error": {"code": 401, "status": "UNAUTHENTICATED"}}, status=401)
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.lifetime)
        return json_response({"accessToken": self._issue("impersonated"), "expireTime": f"{ends:%Y-%m-%dT%H:%M:%SZ}"})

    def _metadata(self, request: Request) -> Response:
        """Answer as ``metadata.google.internal`` does, which wants to be asked with ``Metadata-Flavor: Google``."""
        if request.header("Metadata-Flavor") != "Google":
            return Response(status=403)
        texts = {"/": "computeMetadata/", f"{_METADATA}project/project-id": "sample"}
        texts[f"{_METADATA}universe/universe-domain"] = "googleapis.com"
        headers = {"Metadata-Flavor": "Google", "Content-Type": "application/text"}
        if request.path in texts:
            return Response(headers=headers, body=inline(texts[request.path]))
        account = {"email": _ACCOUNT, "aliases": ["default"], "scopes": ["cloud-platform"]}
        name, _, what = request.path.removeprefix(f"{_METADATA}instance/service-accounts/").partition("/")
        if name in {"default", _ACCOUNT} and what == "":
            return json_response(account, headers={"Metadata-Flavor": "Google"})
        if name in {"default", _ACCOUNT} and what == "token":
            return self._give("machine")
        return Response(status=404, headers=headers)

    def _give(self, holder: str, **more: str) -> Response:
        token = {"access_token": self._issue(holder), "expires_in": int(self.lifetime), "token_type": "Bearer"}
        return json_response({**token, **more}, headers={"Metadata-Flavor": "Google"})

    def _issue(self, holder: str) -> str:
        token = f"ya29.{secrets.token_hex(24)}"
        self._tokens[token] = _Token(holder=holder, expires_at=time.time() + self.lifetime)
        self.holders.append(holder)
        return token


def _form(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.body.decode("latin-1")).items()}


def _refusal(status: int, error: str, description: str) -> Response:
    return json_response({"error": error, "error_description": description}, status=status)


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _write(file: Path, kind: str, **facts: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps({"type": kind, **facts}, indent=2), encoding="utf-8")
    return file
