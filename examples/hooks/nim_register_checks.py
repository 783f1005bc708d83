"""A check of what users of Acme's store forget most often."""

from nim_core import hookimpl
from nim_core.types import CheckResult, CheckSpec, EnvVar, Variables


def check_address(variables: Variables) -> CheckResult:
    address = variables.text("ACME_URL")
    if address is None:
        return CheckResult(status="not-applicable", message="ACME_URL is not set")
    if not address.startswith("https://"):
        return CheckResult(status="warning", message="ACME_URL is not encrypted", hint="set it to https://...")
    return CheckResult(status="ok", message=f"Acme's store is {address}")


@hookimpl
def nim_register_environment() -> list[EnvVar]:
    return [EnvVar(name="ACME_URL", summary="address of the store", kind="url")]


@hookimpl
def nim_register_checks() -> list[CheckSpec]:
    return [CheckSpec(name="acme-address", summary="the store's address is encrypted", run=check_address)]
