"""Where token, endpoint and cache folder are found, and what a token is sent as."""

from __future__ import annotations

import re
from pathlib import Path

from nim_core.errors import AuthenticationError, ConfigError
from nim_core.types import Anonymous, BearerToken, Credential, EnvVar, Secret, Variables

TOKEN = "MODELSCOPE_API_TOKEN"  # noqa: S105 - the name of the variable
_CACHE = "MODELSCOPE_CACHE"
_ENDPOINTS = ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN")

ENVIRONMENT = (
    EnvVar(name=TOKEN, summary="ModelScope access token; without one only public models", secret=True),
    EnvVar(
        name=_ENDPOINTS[0],
        summary="ModelScope or a proxy that speaks its API, as URL or host",
        kind="url",
        default="https://modelscope.cn",
    ),
    EnvVar(name=_ENDPOINTS[1], summary="older name of MODELSCOPE_ENDPOINT, which wins", kind="url"),
    EnvVar(
        name=_CACHE,
        summary="cache folder of the ModelScope client (default: modelscope beneath NIM_CACHE_PATH)",
        kind="path",
    ),
)

_ADDRESS = re.compile(r"https?://(\[[\da-f:.]+\]|[^/@?#:\[\]\s\\]+)(:\d+)?(/[^?#\s\\]*)?", re.IGNORECASE)
_TOKEN = re.compile(r'(?:(?![",;\\])[!-~])+')


def find_credential(variables: Variables) -> BearerToken | Anonymous:
    """
    Return the token of MODELSCOPE_API_TOKEN, else Anonymous.

    A login that ModelScope's own client has stored is not looked at: it is a pickle, and to load one is to run it.
    """
    token = variables.secret(TOKEN)
    return Anonymous() if token is None else BearerToken(token=token, origin=TOKEN)


def endpoint(variables: Variables) -> str:
    """
    Return the API's URL without trailing slash; a bare host is asked by https, as ModelScope's own client does.

    Raises:
        ConfigError: The variable holds something else than an address.
    """
    from modelscope_hub.config import HubConfig

    name = next((name for name in _ENDPOINTS if variables.is_set(name)), _ENDPOINTS[0])
    url = HubConfig.normalize_endpoint(variables.text(name))
    if not _ADDRESS.fullmatch(url):
        hint = f"set {name} to a URL without user, password and query, such as https://modelscope.cn"
        raise ConfigError(f"no http or https address in {name}", hint=hint)
    return url


def cache_root(variables: Variables) -> str:
    """Return the folder of all models: in that of ModelScope's client when MODELSCOPE_CACHE names it, else in ours."""
    folder = variables.text(_CACHE)
    if folder is None:
        return "modelscope/models"
    try:
        return str(Path(folder).expanduser().absolute() / "models")
    except RuntimeError as exc:
        raise ConfigError(f"no home folder for {_CACHE}: {folder}", hint=f"set {_CACHE} to an absolute path") from exc


def carriers(credential: Credential) -> dict[str, Secret]:
    """
    Return the headers that sign in: parts of ModelScope read the bearer token, others the session cookie.

    Raises:
        AuthenticationError: The credential is no token, or has characters that neither header can carry.
    """
    if isinstance(credential, Anonymous):
        return {}
    if not isinstance(credential, BearerToken):
        raise AuthenticationError(f"ModelScope wants a token, not what {credential.origin} gives", hint=f"set {TOKEN}")
    token = credential.token.reveal()
    if not _TOKEN.fullmatch(token):
        origin = credential.origin
        raise AuthenticationError(f"the token from {origin} has characters no token has", hint=f"set {origin} again")
    return {"Authorization": Secret(f"Bearer {token}"), "Cookie": Secret(f"m_session_id={token}")}
