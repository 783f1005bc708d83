"""Where credentials are found: this plugin's variables, else the file of ``docker login`` and ``oras login``."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nim_core.errors import AuthenticationError
from nim_core.types import Anonymous, BasicPair, Credential, CredentialRequest, Variables
from nim_source_oci.refs import registry_of


def find_credential(request: CredentialRequest) -> Credential:
    """
    Return user and password for the registry that is asked about, else Anonymous.

    Raises:
        AuthenticationError: Variables are set in part, or the file cannot be read or has a token of another kind. A
            password without its registry is refused, as it would go to any host that a manifest happens to name.
    """
    host = registry_of(urlsplit(request.endpoint).netloc)
    return _from_variables(host, request.variables) or _from_docker(host, request.variables) or Anonymous()


def _from_variables(host: str, variables: Variables) -> BasicPair | None:
    registry, username = (variables.text(name) for name in ("OCI_REGISTRY", "OCI_USERNAME"))
    password = variables.secret("OCI_PASSWORD")
    if username is None and password is None:
        return None
    if username is None or password is None or registry is None:
        raise AuthenticationError(
            "OCI_USERNAME and OCI_PASSWORD are not enough or not complete",
            hint="set OCI_REGISTRY to the registry they are for, as host[:port], and both of them",
        )
    if registry_of(registry.strip()) != host:
        return None
    return BasicPair(username=username.strip(), password=password, origin="OCI_USERNAME and OCI_PASSWORD")


def _from_docker(host: str, variables: Variables) -> BasicPair | None:
    """Return what the ``auths`` of the file have for a registry, whose key may be a URL. None: nothing."""
    try:
        file = Path(variables.text("DOCKER_CONFIG") or "").expanduser() / "config.json"
        auths = json.loads(file.read_text(encoding="utf-8")).get("auths", {})
        entries = {registry_of(key.partition("://")[2].partition("/")[0] or key): auths[key] for key in auths}
        return _pair(entries.get(host, {}), str(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, AttributeError, TypeError, RuntimeError):  # their texts may quote the password
        raise AuthenticationError("config.json in DOCKER_CONFIG cannot be read", hint="run docker login anew") from None


def _pair(entry: Mapping[str, Any], origin: str) -> BasicPair | None:
    if "identitytoken" in entry:
        hint = "set OCI_REGISTRY, OCI_USERNAME and OCI_PASSWORD"
        raise AuthenticationError(f"identity tokens cannot be used, and {origin} has one", hint=hint)
    username, colon, password = base64.b64decode(entry.get("auth", ""), validate=True).decode().partition(":")
    return BasicPair(username=username, password=password.rstrip("\0"), origin=origin) if colon else None
