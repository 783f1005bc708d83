"""The token of one host, from a file that Kubernetes or a vault's agent keeps fresh."""

import time
from pathlib import Path

from nim_core import hookimpl
from nim_core.errors import AuthenticationError
from nim_core.types import BearerToken, Credential, CredentialRequest, EnvVar


@hookimpl
def nim_register_environment() -> list[EnvVar]:
    return [EnvVar(name="ACME_TOKEN_FILE", summary="file with the token", kind="path")]


@hookimpl
def nim_provide_credential(request: CredentialRequest) -> Credential | None:
    name = request.variables.text("ACME_TOKEN_FILE")
    if name is None or request.endpoint != "https://models.acme.example":
        return None  # the next plugin is asked
    try:
        token = Path(name).read_text(encoding="utf-8").strip()
    except OSError as error:  # it is ours to answer, so nobody else is asked
        raise AuthenticationError(f"cannot read the token: {error}", hint="see ACME_TOKEN_FILE") from error
    return BearerToken(token=token, origin="ACME_TOKEN_FILE", expires_at=time.time() + 300)
