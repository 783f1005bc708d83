"""An engine that serves models whose profile has the tag ``llm_engine: bell``."""

from nim_core import hookimpl
from nim_core.types import Backend, BackendSpec, EnvVar, Variables


def make_backend(variables: Variables) -> Backend:
    from acme_bell.backend import BellBackend

    return BellBackend(variables)


@hookimpl
def nim_register_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="bell",
            summary="Acme's engine",
            factory=make_backend,
            engines=("bell",),
            without_gpu=True,
            environment=(EnvVar(name="BELL_PROGRAM", summary="path of the engine's program", kind="path"),),
        )
    ]
