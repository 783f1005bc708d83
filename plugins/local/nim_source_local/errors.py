"""What the operating system says, in core's words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nim_core.errors import NotFoundError, PermissionDeniedError, SourceError
from nim_core.types import ModelUri


@contextmanager
def explained(uri: ModelUri, path: Path) -> Iterator[None]:
    """Turn an OSError from the block, which works on ``path`` or below, into the fitting error."""
    try:
        yield
    except PermissionError as exc:
        raise unreadable(uri, exc.filename or path) from exc
    except FileNotFoundError as exc:
        raise missing(uri, exc.filename or path) from exc
    except OSError as exc:
        raise SourceError(f"cannot read {exc.filename or path}: {exc.strerror}", uri=str(uri)) from exc


def missing(uri: ModelUri, path: object) -> NotFoundError:
    """Return the error for a path that is not there."""
    return NotFoundError(
        f"no such file or folder: {path}",
        hint="in a container, check that the folder is mounted under this very path",
        uri=str(uri),
    )


def unreadable(uri: ModelUri, path: object) -> PermissionDeniedError:
    """Return the error for a path that this user may not read."""
    return PermissionDeniedError(
        f"not readable for user {os.geteuid()} (group {os.getegid()}): {path}",
        hint="run as its owner, or let others read it: chmod -R a+rX FOLDER",
        uri=str(uri),
    )


def broken_links(uri: ModelUri, links: Sequence[Path]) -> NotFoundError:
    """Return the error for links that lead nowhere."""
    shown = ", ".join(str(link) for link in links[:5])
    more = f" and {len(links) - 5} more" if len(links) > 5 else ""
    return NotFoundError(
        f"broken links: {shown}{more}",
        hint="in a container, mount the folder the links lead to as well; a copy needs cp -rL",
        uri=str(uri),
    )
