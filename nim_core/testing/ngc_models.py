"""Models as the NGC stand-in serves them, and its answers' common parts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from attrs import frozen

from nim_core.testing.corpus import Content, inline
from nim_core.testing.http_server import Response, json_response

__all__ = ["STATUS_CODES", "NgcModel", "refusal", "soft_refusal", "success"]

STATUS_CODES: Mapping[int, str] = {
    400: "INVALID_REQUEST",
    401: "UNAUTHORIZED",
    402: "PAYMENT_REQUIRED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    412: "PRECONDITION_FAILED",
    422: "UNPROCESSABLE_ENTITY",
    429: "TOO_MANY_REQUESTS",
    451: "UNAVAILABLE_FOR_LEGAL_REASONS",
    500: "INTERNAL_ERROR",
    503: "SERVICE_UNAVAILABLE",
    504: "TIMEOUT",
    507: "INSUFFICIENT_STORAGE",
}
"""``requestStatus.statusCode`` by HTTP status."""


@frozen(kw_only=True)
class NgcModel:
    """
    One version of one model.

    Attributes:
        files: What was uploaded; a ``checksums.blake3`` is added to what is served.
        org: Organisation.
        team: None when the model belongs to the organisation itself.
        name: Name of the model.
        version: Name of the version.
        status: ``UPLOAD_COMPLETE``, or what it is before that.
        guest: Whether it may be read without a key.
        lists_sha256: Whether the listing has digests; old versions have none.
        licence: Terms that must be accepted before the files are given out. None: none.
    """

    files: Mapping[str, Content]
    org: str = "nim"
    team: str | None = "meta"
    name: str = "sample-llm"
    version: str = "hf-1.0+chk1"
    status: str = "UPLOAD_COMPLETE"
    guest: bool = False
    lists_sha256: bool = True
    licence: str | None = None

    def uri(self, file: str | None = None) -> str:
        """Return the ``ngc://`` URI of the version or of one of its files."""
        owner = "/".join(part for part in (self.org, self.team, self.name) if part)
        return f"ngc://{owner}:{self.version}" + ("" if file is None else f"?file={file}")

    @cached_property
    def served_files(self) -> Mapping[str, Content]:
        """The files and their ``checksums.blake3``."""
        lines = [f"{content.digest('blake3').value}  {path}\n" for path, content in self.files.items()]
        return {**self.files, "checksums.blake3": inline("".join(lines))}

    def storage_path(self, file: str) -> str:
        """Return where the bytes of a file are in the store."""
        return "/".join(["", self.org, self.team or "no-team", self.name, self.version, file])


def success(**fields: object) -> Response:
    """Return a 200 as the API words it."""
    return json_response({"requestStatus": {"statusCode": "SUCCESS", "requestId": "r-1"}, **fields})


def refusal(status: int, description: str = "refused", *, retry_after: str | None = None) -> Response:
    """
    Return an error as the API words it.

    Args:
        status: HTTP status; the code in the body follows from it.
        description: Text for people.
        retry_after: Value of a Retry-After header, either form.
    """
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    body = _request_status(STATUS_CODES.get(status, "UNKNOWN"), description)
    return json_response(body, status=status, headers=headers)


def soft_refusal(code: str, description: str = "refused") -> Response:
    """Return a 200 whose body says otherwise; ``code`` is one of the values of :data:`STATUS_CODES` or ``UNKNOWN``."""
    return json_response(_request_status(code, description))


def _request_status(code: str, description: str) -> Mapping[str, object]:
    status = {"statusCode": code, "statusDescription": description, "requestId": "r-1", "serverId": "stand-in"}
    return {"requestStatus": status}
