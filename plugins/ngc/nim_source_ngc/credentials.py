"""Where keys and endpoints are found."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from nim_core.errors import AuthenticationError, ConfigError
from nim_core.types import Anonymous, BearerToken, EnvVar, Secret, Variables

_KEYS = (
    EnvVar(name="NGC_CLI_API_KEY", summary="NGC API key; wins over NGC_API_KEY", secret=True),
    EnvVar(name="NGC_API_KEY", summary="NGC API key", secret=True),
)
ENVIRONMENT = (
    *_KEYS,
    EnvVar(
        name="NGC_CLI_HOME", summary="folder with .ngc/config, used when no key is set (default: home)", kind="path"
    ),
    EnvVar(
        name="NGC_API_ENDPOINT",
        summary="API, as host[/path] or URL",
        kind="url",
        default="https://api.ngc.nvidia.com",
    ),
    EnvVar(
        name="NGC_AUTH_ENDPOINT",
        summary="token service for keys that are not nvapi-, as host[/path] or URL",
        kind="url",
        default="https://authn.nvidia.com",
    ),
    EnvVar(name="NGC_API_SCHEME", summary="http or https, for endpoints and proxies given without", default="https"),
)

_ADDRESS = re.compile(r"https?://(\[[\da-fA-F:.]+\]|[^/@?#:\[\]\s]+)(:\d+)?(/[^?#\s]*)?")


def find_credential(variables: Variables) -> BearerToken | Anonymous:
    """
    Return the key of the first variable that is set, else of the NGC CLI's configuration, else Anonymous.

    Raises:
        AuthenticationError: The configuration is there but cannot be read.
    """
    for variable in _KEYS:
        key = variables.secret(variable.name)
        if key is not None:
            return BearerToken(token=key, origin=variable.name)
    file = _config_file(variables)
    try:
        key_text = _configured_key(file.read_text(encoding="utf-8")) if file else None
    except (FileNotFoundError, NotADirectoryError):
        return Anonymous()
    except (OSError, ValueError, AttributeError, configparser.Error):  # their texts may quote the key
        raise AuthenticationError(f"cannot be read: {file}", hint="set NGC_API_KEY, or mend the file") from None
    return BearerToken(token=key_text, origin=str(file)) if key_text else Anonymous()


def endpoint(variables: Variables, name: str) -> str:
    """Return an endpoint as a URL without trailing slash. Raises ConfigError for a scheme other than http and https."""
    return _address(variables.text(name) or "", name, variables)


def proxy_endpoint(variables: Variables, proxy: str) -> str:
    """Return the API and token service of a proxy, ``host[:port][/path]``, as a URL. Raises as :func:`endpoint`."""
    return _address(proxy, "NIM_REPOSITORY_OVERRIDE", variables)


def _address(text: str, name: str, variables: Variables) -> str:
    text = text.strip().rstrip("/")
    url = text if "://" in text else f"{(variables.text('NGC_API_SCHEME') or '').strip().lower()}://{text}"
    if not _ADDRESS.fullmatch(url):
        hint = f"set {name} to host[/path] with NGC_API_SCHEME http or https, or to a URL without user and password"
        raise ConfigError(f"no http or https address in {name}", hint=hint)
    return url


@frozen(kw_only=True)
class Pass:
    """
    What requests are signed with.

    Attributes:
        headers: To the API and nowhere else.
        origin: Where the key came from. None for a guest.
        secrets: What must not be quoted from an answer.
        expires_at: Unix time in seconds. None when it does not expire.
        renewable: Whether a refusal may mean that it has to be traded anew.
    """

    headers: Mapping[str, Secret]
    origin: str | None = None
    secrets: tuple[Secret, ...] = ()
    expires_at: float | None = None
    renewable: bool = False


def _config_file(variables: Variables) -> Path | None:
    try:
        return Path(variables.text("NGC_CLI_HOME") or "~").expanduser() / ".ngc" / "config"
    except RuntimeError:  # a user id without a home, as containers have
        return None


def _configured_key(text: str) -> str | None:
    if text.lstrip().startswith("{"):
        body = json.loads(text)
        key = body.get("apikey") or (body.get("CURRENT") or {}).get("apikey")
    else:
        parser = configparser.RawConfigParser()
        parser.read_string(text)
        key = parser.get("CURRENT", "apikey", fallback=None)
    return None if key is None or key.strip() in {"", "no-apikey"} else str(key).strip()
