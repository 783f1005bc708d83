"""``local://`` URIs as paths."""

from __future__ import annotations

from pathlib import Path

from nim_core.errors import InvalidUriError
from nim_core.types import ModelUri


def path_of(uri: ModelUri) -> Path:
    """
    Return the folder or file that ``uri`` names, literally: nothing is decoded, expanded or resolved.

    Raises:
        InvalidUriError: The path is not absolute.
    """
    if not uri.location.startswith("/"):
        raise InvalidUriError(f"path is not absolute: {uri}", hint=f"write three slashes: local:///{uri.location}")
    return Path(uri.location)
