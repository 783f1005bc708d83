"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes, mode: int, *, durable: bool) -> None:
    """
    Write ``data`` to ``path`` so that a reader sees all of it or what was there before.

    Args:
        path: Replaced when it exists; its folder must exist.
        data: The content.
        mode: Permissions it gets, whatever the umask.
        durable: Whether that must hold after a power cut too.

    Raises:
        OSError: It could not be written; nothing is left behind.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 - an open descriptor, not a path
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
