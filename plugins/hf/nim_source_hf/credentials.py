"""Where tokens, the endpoint and the cache are found: the Hub client's own variables and files."""

from __future__ import annotations

import os
import re

from nim_core.errors import AuthenticationError, ConfigError
from nim_core.types import Anonymous, BearerToken, Credential, EnvVar, Secret, Variables

HUB = "https://huggingface.co"

_TOKENS = (
    EnvVar(name="HF_TOKEN", summary="Hugging Face token; wins over the token that hf auth login stored", secret=True),
    EnvVar(name="HUGGING_FACE_HUB_TOKEN", summary="as HF_TOKEN, which wins", secret=True),
)
_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
ENVIRONMENT = (
    *_TOKENS,
    EnvVar(
        name="HF_TOKEN_PATH",
        kind="path",
        summary="file of the stored token (default: token in HF_HOME, else in ~/.cache/huggingface)",
    ),
    EnvVar(
        name="HF_ENDPOINT",
        kind="url",
        default=HUB,
        summary="URL of the Hub, of a private hub, or of a proxy such as Olah",
    ),
    EnvVar(name="HF_HUB_CACHE", kind="path", summary="folder of the Hub cache (default: hub in HF_HOME)"),
    EnvVar(name="HUGGINGFACE_HUB_CACHE", kind="path", summary="as HF_HUB_CACHE, which wins"),
    EnvVar(
        name="HF_HOME",
        kind="path",
        summary="folder of the Hub client's files (default for the cache: huggingface in NIM_CACHE_PATH)",
    ),
    EnvVar(name="HF_HUB_OFFLINE", kind="flag", default="0", summary="ask no hub; use what is in the cache"),
    EnvVar(name="TRANSFORMERS_OFFLINE", kind="flag", default="0", summary="as HF_HUB_OFFLINE"),
)

_ADDRESS = re.compile(r"https?://(\[[\da-fA-F:.]+\]|[^/@?#:\[\]\s]+)(:\d+)?(/[^?#\s]*)?")


def find_credential(variables: Variables) -> BearerToken | Anonymous:
    """
    Return the token of the first variable that is set, else the one the Hub client has stored, else Anonymous.

    Raises:
        AuthenticationError: The Hub client fails to get what it has stored.
    """
    for variable in _TOKENS:
        token = variables.secret(variable.name)
        if token is not None:
            return BearerToken(token=token, origin=variable.name)
    from huggingface_hub import constants, get_token

    try:
        stored = get_token()
    except Exception as exc:  # a file, a login to refresh, a token service: each in its own way
        raise AuthenticationError(
            f"the stored Hugging Face token cannot be used: {type(exc).__name__}",
            hint=f"set HF_TOKEN, or sign in again with: hf auth login (file: {constants.HF_TOKEN_PATH})",
        ) from exc
    return BearerToken(token=stored, origin=str(constants.HF_TOKEN_PATH)) if stored else Anonymous()


def signed(credential: Credential) -> dict[str, Secret]:
    """Return the headers that sign in. Raises AuthenticationError for what the Hub cannot use."""
    if isinstance(credential, Anonymous):
        return {}
    if not isinstance(credential, BearerToken):
        raise AuthenticationError(f"the Hub wants a token, not what {credential.origin} gives", hint="set HF_TOKEN")
    token = credential.token.reveal()
    if not re.fullmatch(r"[!-~]+", token):
        raise AuthenticationError(
            f"the token from {credential.origin} has characters no token has", hint=f"set {credential.origin} again"
        )
    return {"Authorization": Secret(f"Bearer {token}")}


def endpoint(variables: Variables) -> str:
    """Return the Hub's URL without trailing slash. Raises ConfigError when the variable holds none."""
    url = (variables.text("HF_ENDPOINT") or "").strip().rstrip("/")
    if not _ADDRESS.fullmatch(url):
        hint = "set HF_ENDPOINT to a URL such as http://localhost:8090, without user and password"
        raise ConfigError("no http or https address in HF_ENDPOINT", hint=hint)
    return url


def offline(variables: Variables) -> str | None:
    """Return the variable that forbids to ask any hub. None when none does."""
    return next((name for name in _OFFLINE if variables.flag(name)), None)


def cache_root(variables: Variables) -> str:
    """Return the folder of the Hub cache: where its client has it when told so, else within the model cache."""
    for name in _CACHES:
        if variables.is_set(name):
            return _absolute(variables.text(name) or "")
    if variables.is_set("HF_HOME"):
        return os.path.join(_absolute(variables.text("HF_HOME") or ""), "hub")  # noqa: PTH118 - stays text
    return "huggingface/hub"


def _absolute(text: str) -> str:
    return os.path.abspath(os.path.expandvars(os.path.expanduser(text)))  # noqa: PTH100, PTH111 - the client's own way
