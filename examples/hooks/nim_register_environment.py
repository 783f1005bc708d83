"""Variables of a plugin that brings credentials only; the example of nim_provide_credential reads one of them."""

from nim_core import hookimpl
from nim_core.types import EnvVar


@hookimpl
def nim_register_environment() -> list[EnvVar]:
    return [
        EnvVar(
            name="ACME_TOKEN_FILE",
            kind="path",
            default="/run/secrets/acme/token",
            summary="file with the token for https://models.acme.example",
        )
    ]
