"""The command ``install-commands``: files that start commands by their own names."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from nim_core.cli.output import write_data
from nim_core.errors import ConfigError

__all__ = ["NAME", "Folder", "install_commands"]

NAME = "install-commands"

Folder = typer.Argument(metavar="DIR", show_default=False, help="Folder to write into; made where it is missing.")

_MARK: Final = "# Made by nim-llm install-commands; made anew, not edited."
_START: Final = "from nim_core.cli.app import by_name; by_name()"


def install_commands(folder: Path, names: Sequence[str]) -> None:
    """
    Write a file for each command, and print their paths.

    Args:
        folder: Where.
        names: The commands.

    Raises:
        ConfigError: Some names are taken by files that were not made here, or the folder cannot be written; nothing
            has been changed then.
    """
    folder = folder.absolute()
    foreign = [name for name in names if _is_foreign(folder / name)]
    if foreign:
        listed = "".join(f"\n  {name}" for name in foreign)
        raise ConfigError(
            f"{len(foreign)} of the commands' names are taken by other files in {folder}{listed}",
            hint="name a folder of its own, and put it first on PATH",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            _write(folder / name, script(name))
    except OSError as exc:
        raise ConfigError(f"cannot write {exc.filename or folder}: {(exc.strerror or str(exc)).lower()}") from exc
    write_data("\n".join(str(folder / name) for name in names))


def script(name: str) -> str:
    """
    Return the file for a command.

    The interpreter is started by the shell, as the first line of a file may be no longer than the kernel reads, and
    without the working folder on its path (``-P``).
    """
    start = shlex.join([sys.executable, "-P", "-c", _START, name])
    return f'#!/bin/sh\n{_MARK}\nexec {start} "$@"\n'


def _is_foreign(path: Path) -> bool:
    try:
        return path.is_symlink() or (path.exists() and _MARK.encode() not in path.read_bytes()[:4096].splitlines())
    except OSError:
        return True


def _write(path: Path, text: str) -> None:
    """Put a file at ``path`` in one step; one that is the same already stays."""
    if path.exists() and path.read_text(encoding="utf-8") == text and os.access(path, os.X_OK):
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
