"""Keys and tokens of the NGC stand-in: who is asking, and may they."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import time
from collections.abc import Sequence
from urllib.parse import unquote

from attrs import frozen

from nim_core.testing.http_server import Request, Response, json_response
from nim_core.testing.ngc_models import NgcModel, refusal, success

__all__ = ["LEGACY_KEY", "NVAPI_KEY", "NgcAuth"]

NVAPI_KEY = "nvapi-" + "Zq3x7vT1mK9bR5cW8sYd2hLpN6gJ4fXe" * 2
LEGACY_KEY = base64.b64encode(b"stand-in-legacy-key:0123456789abcdef0123456789abcdef").decode()


@frozen(kw_only=True)
class _Token:
    scopes: frozenset[str]
    expires_at: float


class NgcAuth:
    """
    Checks keys, trades legacy keys for tokens.

    Args:
        org: Organisation the keys belong to.
        token_lifetime: Seconds a token is good for, sent as ``expires_in``.
    """

    def __init__(self, *, org: str, token_lifetime: float) -> None:
        self.org = org
        self.token_lifetime = token_lifetime
        self._tokens: dict[str, _Token] = {}
        self._numbers = itertools.count(1)

    def expire_tokens(self) -> None:
        """Let every token given out so far be expired."""
        self._tokens.clear()

    def caller_info(self, request: Request) -> Response:
        """``POST /v3/keys/get-caller-info``: what a personal key belongs to."""
        if request.header("Content-Type") != "application/x-www-form-urlencoded":
            return refusal(400, "form expected")
        name, _, key = request.body.decode("latin-1").partition("=")
        if name != "credentials" or unquote(key) != NVAPI_KEY:
            return refusal(401, "Invalid API key.")
        role = {"org": {"name": self.org, "displayName": self.org}, "orgRoles": ["USER"], "teamRoles": []}
        user = {"name": "Sample User", "email": "user@example.test", "roles": [role]}
        return success(type="PERSONAL_KEY", orgName=self.org, products=[], userId="1", keyId="k-1", user=user)

    def token(self, request: Request) -> Response:
        """``GET /token``: a token for a legacy key."""
        if request.parameter("service") != "ngc":
            return refusal(400, "service expected")
        if _basic(request) != ("$oauthtoken", LEGACY_KEY):
            return refusal(401, "invalid key")
        token = self._new_token()
        scopes = frozenset(request.parameters("scope"))
        self._tokens[token] = _Token(scopes=scopes, expires_at=time.time() + self.token_lifetime)
        return json_response({"token": token, "expires_in": self.token_lifetime})

    def refuse(self, request: Request, model: NgcModel | None = None) -> Response | None:
        """Return the refusal of a bearer, in general or for one model. None when it may go on."""
        scheme, _, bearer = (request.header("Authorization") or "").partition(" ")
        if scheme != "Bearer":
            return refusal(401, "bearer token expected")
        if bearer == NVAPI_KEY:
            return None
        token = self._tokens.get(bearer)
        if token is None or token.expires_at < time.time():
            return refusal(401, "token unknown or expired")
        if model is not None and token.scopes and token.scopes.isdisjoint(_scopes(model)):
            return refusal(403, "token has other scopes")
        return None

    def _new_token(self) -> str:
        claims = {"sub": "stand-in", "jti": next(self._numbers), "exp": int(time.time() + self.token_lifetime)}
        parts = [json.dumps({"alg": "none"}).encode(), json.dumps(claims).encode(), b"signature"]
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _scopes(model: NgcModel) -> Sequence[str]:
    return [f"group/ngc:{model.org}", f"group/ngc:{model.org}/{model.team}"]


def _basic(request: Request) -> tuple[str, str] | None:
    scheme, _, value = (request.header("Authorization") or "").partition(" ")
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if scheme == "Basic" else None
