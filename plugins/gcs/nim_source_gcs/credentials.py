"""Application Default Credentials: where they are found, as Google documents it, and what is made of them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from nim_core.errors import AuthenticationError, ConfigError
from nim_core.types import Ambient, Anonymous, Credential, EnvVar, Variables

ENVIRONMENT: Final = (
    EnvVar(
        name="GOOGLE_APPLICATION_CREDENTIALS",
        kind="path",
        summary="credentials file: service account key, user, workload identity federation or impersonation",
    ),
    EnvVar(
        name="CLOUDSDK_CONFIG",
        kind="path",
        default="~/.config/gcloud",
        summary="folder of the gcloud CLI, whose application_default_credentials.json is used next",
    ),
    EnvVar(
        name="GCE_METADATA_HOST",
        summary="host[:port] of the metadata server, which is asked last; it is reached without any proxy",
    ),
    EnvVar(name="NO_GCE_CHECK", summary="true: do not look for a metadata server"),
    EnvVar(
        name="GOOGLE_CLOUD_QUOTA_PROJECT",
        summary="project that is billed, as buckets whose requester pays demand; wins over the credentials' own",
    ),
    EnvVar(
        name="STORAGE_EMULATOR_HOST",
        kind="url",
        summary="stand-in for Google Cloud Storage, as URL or host[:port]; asked without credentials",
    ),
    EnvVar(
        name="API_ENDPOINT_OVERRIDE",
        kind="url",
        default="https://storage.googleapis.com",
        summary="where Google Cloud Storage is reached, such as a Private Service Connect endpoint",
    ),
)

_ADDRESS = re.compile(r"https?://(\[[\da-fA-F:.]+\]|[^/@?#:\[\]\s]+)(:\d+)?")
_MEND: Final[Mapping[str, str]] = {
    "service_account": "check that the key is not deleted or disabled and that this machine's clock is right",
    "authorized_user": "sign in again: gcloud auth application-default login",
}
_READERS: Final[Mapping[str, tuple[str, str]]] = {
    "service_account": ("google.oauth2.service_account", "from_service_account_info"),
    "authorized_user": ("google.oauth2.credentials", "from_authorized_user_info"),
    "external_account": ("google.auth.identity_pool", "from_info"),
    "external_account_authorized_user": ("google.auth.external_account_authorized_user", "from_info"),
    "impersonated_service_account": ("google.auth.impersonated_credentials", "from_impersonated_service_account_info"),
}
"""
Type of a credentials file to the module and the function that reads it.

google-auth would choose by itself, but then also asks an API for the project's name, which nobody needs here.
"""


@frozen(kw_only=True)
class Access:
    """
    What is to be done with a bucket.

    Attributes:
        scope: What tokens are asked for; a machine or file may have been given less.
        role: Role that allows it, by the name that Google shows.
    """

    scope: str
    role: str


READ: Final = Access(scope="https://www.googleapis.com/auth/devstorage.read_only", role="Storage Object Viewer")
WRITE: Final = Access(scope="https://www.googleapis.com/auth/devstorage.read_write", role="Storage Object User")


@frozen(kw_only=True)
class Found:
    """
    Credentials, and what to say about them.

    Attributes:
        credentials: google-auth's object; renews its token by ``refresh(request)``.
        origin: Where they came from.
        mend: What a user can do when they are refused.
    """

    credentials: Any
    origin: str
    mend: str


def default_credential(variables: Variables) -> Credential:
    """Return what signs in when no other plugin says: Application Default Credentials, to an emulator nothing."""
    if variables.is_set("STORAGE_EMULATOR_HOST"):
        return Anonymous(origin="STORAGE_EMULATOR_HOST")
    return Ambient(origin="Application Default Credentials")


def endpoint(variables: Variables) -> str:
    """Return the URL of the API without a slash at the end. Raises ConfigError when a variable names no such URL."""
    name, scheme = "API_ENDPOINT_OVERRIDE", "https"
    if variables.is_set("STORAGE_EMULATOR_HOST"):
        name, scheme = "STORAGE_EMULATOR_HOST", "http"
    text = (variables.text(name) or "").strip().rstrip("/")
    url = text if "://" in text else f"{scheme}://{text}"
    if not _ADDRESS.fullmatch(url):
        raise ConfigError(f"no http or https address in {name}", hint=f"set {name} to http[s]://HOST[:PORT]")
    return url


def find_credentials(variables: Variables, request: Callable[..., Any], scope: str) -> Found | None:
    """
    Find Application Default Credentials: the file that is named, gcloud's file, the metadata server. None: none.

    Args:
        variables: Those of :data:`ENVIRONMENT`.
        request: What google-auth makes its requests with.
        scope: What tokens are to allow, where the kind of credentials leaves the choice.

    Raises:
        AuthenticationError: A file is there, or is named, and cannot be used.
    """
    named = variables.text("GOOGLE_APPLICATION_CREDENTIALS")
    well_known = Path(variables.text("CLOUDSDK_CONFIG") or "") / "application_default_credentials.json"
    if named:
        found = _from_file(Path(named), f"GOOGLE_APPLICATION_CREDENTIALS ({named})")
    elif _expanded(well_known).is_file():
        found = _from_file(_expanded(well_known), f"gcloud ({_expanded(well_known)})")
    else:
        return _from_metadata(variables, request, scope)
    project = variables.text("GOOGLE_CLOUD_QUOTA_PROJECT")
    scoped = import_module("google.auth.credentials").with_scopes_if_required(found.credentials, [scope])
    return Found(
        credentials=scoped.with_quota_project(project) if project else scoped, origin=found.origin, mend=found.mend
    )


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # a user id without a home, as containers have
        return path


def _from_file(file: Path, origin: str) -> Found:
    hint = "name a key file, or make gcloud's: gcloud auth application-default login"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise AuthenticationError(f"cannot read the credentials of {origin}: {exc.strerror}", hint=hint) from exc
    except ValueError:  # its text may quote the key
        raise AuthenticationError(f"not a credentials file in JSON form: {origin}", hint=hint) from None
    kind = str(info.get("type")) if isinstance(info, dict) else ""
    if kind not in _READERS:
        raise AuthenticationError(f"not a kind of credentials that can be used: {origin}: {kind!r}", hint=hint)
    mend = _MEND.get(kind, "check the file and what it refers to")
    try:
        return Found(credentials=_read(kind, info), origin=origin, mend=mend)
    except (ValueError, KeyError, TypeError, AttributeError):  # google-auth's errors about files are ValueErrors, too
        raise AuthenticationError(f"the credentials are incomplete or damaged: {origin}", hint=mend) from None


def _read(kind: str, info: dict[str, Any]) -> Any:
    module, reader = _READERS[kind]
    if kind == "external_account":
        if info.get("subject_token_type") == "urn:ietf:params:aws:token-type:aws4_request":
            module = "google.auth.aws"
        elif "executable" in info["credential_source"]:
            module = "google.auth.pluggable"
    credentials = getattr(import_module(module).Credentials, reader)(info)
    if kind == "authorized_user" and info.get("token_uri"):  # Google's Python library alone passes it over
        return credentials.with_token_uri(info["token_uri"])
    return credentials


def _from_metadata(variables: Variables, request: Callable[..., Any], scope: str) -> Found | None:
    """Ask whether there is a metadata server; one that is named is taken for granted."""
    mend = "give this machine or workload a service account that may use the bucket"
    project = variables.text("GOOGLE_CLOUD_QUOTA_PROJECT")
    if variables.is_set("GCE_METADATA_HOST"):
        credentials = import_module("google.auth.compute_engine").Credentials(scopes=[scope], quota_project_id=project)
        return Found(credentials=credentials, origin="the metadata server", mend=mend)
    if variables.text("NO_GCE_CHECK") == "true":
        return None
    logging.getLogger("google.auth").setLevel(logging.ERROR)  # it warns of every machine that is not Google's
    try:
        credentials, _ = import_module("google.auth").default([scope], request, project)
    except import_module("google.auth.exceptions").DefaultCredentialsError:
        return None
    return Found(credentials=credentials, origin="the metadata server", mend=mend)
