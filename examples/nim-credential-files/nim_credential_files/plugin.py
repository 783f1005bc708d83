"""What this distribution brings: answers for every source, from files. Plain, so that built-in answers come later."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import Credential, CredentialRequest, EnvVar

_FOLDER = EnvVar(
    name="NIM_CREDENTIALS_DIR",
    kind="path",
    default="/run/secrets/nim",
    summary="folder of credentials: a folder per source, or per host, with files such as token",
)


@hookimpl
def nim_register_environment() -> list[EnvVar]:
    """Declare where the files are."""
    return [_FOLDER]


@hookimpl
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    """Answer from the files for the endpoint's host, else for the source. None where there are none."""
    from nim_credential_files.files import find_credential

    return find_credential(request, request.variables.text(_FOLDER.name) or "")
