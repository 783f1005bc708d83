"""What this distribution brings: one serving backend."""

from __future__ import annotations

from nim_backend_transformers.backend import TransformersBackend
from nim_core.hookspecs import hookimpl
from nim_core.types import BackendSpec, EnvVar

VARIABLES = (EnvVar(name="NIM_LOG_LEVEL", summary="DEBUG, INFO, WARNING, ERROR or CRITICAL"),)


@hookimpl
def nim_register_backends() -> list[BackendSpec]:
    """Declare transformers."""
    return [
        BackendSpec(
            name="transformers",
            summary="transformers serve: models in safetensors files, wherever torch runs",
            factory=TransformersBackend,
            without_gpu=True,
            environment=VARIABLES,
        )
    ]
