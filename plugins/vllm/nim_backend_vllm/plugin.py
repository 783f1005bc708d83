"""What this distribution brings: the backend ``vllm``."""

from __future__ import annotations

from nim_backend_vllm.environment import ENVIRONMENT
from nim_core.hookspecs import hookimpl
from nim_core.types import Backend, BackendSpec, Variables


@hookimpl
def nim_register_backends() -> list[BackendSpec]:
    """Declare the backend ``vllm``."""
    return [
        BackendSpec(
            name="vllm",
            summary="vLLM: safetensors on GPUs, or on processors by its CPU build",
            factory=_backend,
            engines=("vllm",),
            without_gpu=True,
            environment=ENVIRONMENT,
        )
    ]


def _backend(variables: Variables) -> Backend:
    from nim_backend_vllm.backend import VllmBackend

    return VllmBackend(variables)
