"""
ModelScope's answers as errors, judged by status and code, never by text.

Whether there is no such model or it may not be seen is told by the code of the answer's envelope, the status being 404
for both. An envelope can hold an error under status 200, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from nim_core.errors import (
    AuthenticationError,
    ConfigError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    SourceError,
    TransientError,
)
from nim_core.types import Secret
from nim_source_modelscope.credentials import TOKEN
from nim_source_modelscope.refs import ModelScopeRef

if TYPE_CHECKING:
    import httpx
    from modelscope_hub.errors import APIError

_CODES: Final[Mapping[object, int]] = {
    10010200001: 403,  # private, or gated and not granted
    10010205001: 404,  # no such model
    10990101004: 404,  # no files at that revision
    10990101007: 404,  # no such file
}


class NoAccessError(PermissionDeniedError):
    """Private, gated, or, now and then, a refusal that means nothing."""


@frozen(kw_only=True)
class Asked:
    """
    Who asks for what.

    Attributes:
        ref: The model.
        page: Where a person finds it.
        headers: Sent to the API, and nowhere else.
        origin: Where the token came from. None without one.
    """

    ref: ModelScopeRef
    page: str
    headers: Mapping[str, Secret]
    origin: str | None

    @property
    def token_hint(self) -> str:
        """How to come by a token that may read the model."""
        site = self.page.partition("/models/")[0]
        return f"set {TOKEN} to a token of an account that may read {self.page} (made at {site}/my/myaccesstoken)"


def checked_data(response: httpx.Response, asked: Asked) -> Any:
    """Return what a successful answer holds. Raises SourceError in the subclass the answer asks for."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    if response.status_code >= 400:
        raise _error(response, body if isinstance(body, dict) else {}, asked)
    with reading(asked.ref):
        if dict(body).get("Code") != 200 or not body.get("Success", True):
            raise _error(response, body, asked)
        return body["Data"]


@contextmanager
def reading(ref: ModelScopeRef) -> Iterator[None]:
    """Turn whatever a malformed answer causes within into a SourceError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, ConfigError) as exc:
        raise SourceError(
            f"ModelScope's answer for {ref} cannot be understood: {_one_line(str(exc))}",
            hint="a proxy or a login page may have answered; check MODELSCOPE_ENDPOINT and HTTPS_PROXY",
        ) from exc


def access_error(refused: NoAccessError, asked: Asked, *, gated: bool) -> SourceError:
    """Return the error for files that are not given out; ``gated``: the model itself is seen, so one can apply."""
    why = f"it is {'gated' if gated else 'private, or not there'} ({refused.message})"
    apply = f"apply for access at {asked.page}"
    if asked.origin is None:
        hint = f"{apply}, then {asked.token_hint}" if gated else asked.token_hint
        return AuthenticationError(f"ModelScope gives {asked.ref} to nobody without a token: {why}", hint=hint)
    hint = f"{apply} with the account of the token" if gated else f"ask its owner for access, or {asked.token_hint}"
    return PermissionDeniedError(f"the token from {asked.origin} may not read {asked.ref}: {why}", hint=hint)


def _error(response: httpx.Response, body: Mapping[str, Any], asked: Asked) -> SourceError:
    error = _vendors_error(response, body)
    status = _CODES.get(body.get("Code")) or _status_of(error)
    said = f": HTTP {response.status_code}{_quoted(body, asked)}"
    if status == 429:
        hint = "try again later" + ("" if asked.origin else f"; with {TOKEN} set, more is allowed")
        wait = getattr(error, "retry_after", None)
        return RateLimitedError(f"ModelScope asks for fewer requests{said}", hint=hint, retry_after=wait)
    passing = status >= 500 or status == 408
    kind, message = _MEANINGS.get(status, _MEANINGS[500 if passing else 400])
    hints = {
        401: asked.token_hint,
        403: asked.token_hint,
        404: f"check it at {asked.page}; private models are seen with a token of their readers only",
    }
    text = message.format(ref=asked.ref, origin=asked.origin or "nowhere")
    return kind(text + said, hint=hints.get(status, "try again later" if passing else None))


_MEANINGS: Final[Mapping[int, tuple[type[SourceError], str]]] = {
    400: (SourceError, "ModelScope does not accept the request for {ref}"),
    401: (AuthenticationError, "ModelScope does not accept the token from {origin} for {ref}"),
    403: (NoAccessError, "ModelScope refuses {ref}"),
    404: (NotFoundError, "ModelScope has no {ref}"),
    500: (TransientError, "ModelScope failed for {ref}"),
}


def _vendors_error(response: httpx.Response, body: Mapping[str, Any]) -> APIError:
    """Return what ModelScope's own client makes of an answer; it knows its codes."""
    import requests
    from modelscope_hub.errors import APIError, raise_for_status

    code = body.get("Code")
    soft = code if isinstance(code, int) and 400 <= code < 600 else 400
    answer = requests.Response()
    answer.status_code = response.status_code if response.status_code >= 400 else soft
    answer.headers.update(response.headers)
    answer.raw = BytesIO(response.content)
    try:
        raise_for_status(answer)
    except APIError as exc:
        return exc
    raise AssertionError("statuses from 400 on are errors")


def _status_of(error: APIError) -> int:
    from modelscope_hub import errors as vendor

    kinds = {
        vendor.AuthenticationError: 401,
        vendor.PermissionDeniedError: 403,
        vendor.NotExistError: 404,
        vendor.RateLimitError: 429,
    }
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), error.status_code or 400)


def _quoted(body: Mapping[str, Any], asked: Asked) -> str:
    text = str(body.get("Message") or "")
    for secret in asked.headers.values():
        text = text.replace(secret.reveal().rpartition(" ")[2].removeprefix("m_session_id="), "***")
    text = _one_line(text)
    return f", {text}" if text else ""


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())[:200]
