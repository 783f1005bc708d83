"""
Data to stdout, and nothing else.

In an executable, from the moment that plugins are loaded, stdout is kept for :func:`write_data`: what a plugin, its
library or a program that it starts prints goes to stderr, so that it can neither precede nor follow the data.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Final, TextIO

from nim_core.errors import NimError

__all__ = ["forget_stdout", "keep_stdout", "reader_is_gone", "write_data"]


class _Stdout:
    """The process's stdout: where data goes, and the descriptor that leads there."""

    def __init__(self) -> None:
        self._own: TextIO | None = None
        self.descriptor = 1

    @property
    def data(self) -> TextIO | None:
        """Where data is written. None where stdout is closed."""
        return self._own or sys.stdout

    def keep(self) -> None:
        stream = sys.stdout
        if stream is None or self._own is not None:
            return
        stream.flush()
        self.descriptor = os.dup(1)
        self._own = os.fdopen(self.descriptor, "w", encoding=stream.encoding, errors=stream.errors, closefd=False)
        _lead_to(2, 1)
        sys.stdout = sys.stderr


_STDOUT: Final = _Stdout()


def keep_stdout() -> None:
    """Let nothing but :func:`write_data` reach stdout until the process ends; all else goes to stderr."""
    _STDOUT.keep()


def _lead_to(target: int, descriptor: int) -> None:
    """Let ``descriptor`` lead where ``target`` does, or nowhere where that is closed."""
    try:
        os.dup2(target, descriptor)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def write_data(text: str) -> None:
    """
    Write ``text`` and a line break to stdout, at once; to nobody where stdout is closed.

    Raises:
        BrokenPipeError: Nobody reads it any more.
        NimError: It cannot be written for another reason.
    """
    stream = _STDOUT.data
    if stream is None:
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_stdout()
        raise NimError(f"cannot write to standard output: {error.strerror}") from error


def reader_is_gone() -> bool:
    """Say whether stdout is a pipe that nobody reads any more, as after ``| head -1``."""
    poll = select.poll()
    poll.register(_STDOUT.descriptor, select.POLLOUT)
    return any(event & select.POLLERR for _descriptor, event in poll.poll(0))


def forget_stdout() -> None:
    """Let what is still buffered for stdout go nowhere, so that it cannot fail a second time at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT.descriptor)
