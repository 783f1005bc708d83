"""What this distribution brings: one serving backend."""

from __future__ import annotations

from nim_backend_llamacpp.backend import LlamaCppBackend
from nim_core.hookspecs import hookimpl
from nim_core.types import BackendSpec, EnvVar

VARIABLES = (
    EnvVar(name="NIM_MAX_MODEL_LEN", kind="integer", summary="tokens of the longest context"),
    EnvVar(name="NIM_LOG_LEVEL", summary="DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    EnvVar(
        name="LLAMA_API_KEY", secret=True, summary="key that requests to llama.cpp have to bring; --api-key is stronger"
    ),
)


@hookimpl
def nim_register_backends() -> list[BackendSpec]:
    """Declare llama.cpp."""
    return [
        BackendSpec(
            name="llamacpp",
            summary="llama.cpp: GGUF models, without a GPU too",
            factory=LlamaCppBackend,
            engines=("llama.cpp", "llama_cpp", "gguf"),
            without_gpu=True,
            environment=VARIABLES,
        )
    ]
