"""The forms of answers that the front gives itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import JSONResponse

from nim_core.serving.state import ServingState

__all__ = ["RETRY_SECONDS", "no_such_model", "no_such_path", "not_ready", "openai_error", "unauthorized"]

RETRY_SECONDS: Final = 5
"""What clients are told to wait for an engine that does not serve yet."""


def openai_error(
    status: int,
    message: str,
    *,
    code: str,
    param: str | None = None,
    more: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """
    Return an error as OpenAI's API words it, which its clients show.

    Source: the error objects of OpenAI's API reference.

    Args:
        status: Of HTTP.
        message: For people.
        code: For programs.
        param: The field of the request that is wrong. None: none.
        more: Beside ``error`` in the answer.
        headers: On top.
    """
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error, **(more or {})}, status_code=status, headers=dict(headers or {}))


def not_ready(state: ServingState, *, what: str = "the model is not ready") -> JSONResponse:
    """Return 503 with the phase, and when to come again."""
    record = state.as_record()
    headers = {"retry-after": str(RETRY_SECONDS)}
    return openai_error(503, f"{what}: {record['phase']}", code="not_ready", more=record, headers=headers)


def unauthorized() -> JSONResponse:
    """Return 401."""
    message = "a valid API key is needed, as Authorization: Bearer KEY"
    return openai_error(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def no_such_model(name: str) -> JSONResponse:
    """Return 404 for a model that is not served."""
    return openai_error(404, f"the model does not exist: {name}", code="model_not_found", param="model")


def no_such_path(path: str) -> JSONResponse:
    """Return 404 for a path that leads nowhere."""
    return openai_error(404, f"not found: {path}", code="not_found")
