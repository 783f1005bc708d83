"""Data to stdout."""

from __future__ import annotations

import os
import select
import sys

from nim_core.errors import NimError

__all__ = ["forget_stdout", "reader_is_gone", "write_data"]


def write_data(text: str) -> None:
    """
    Write ``text`` and a line break to stdout, at once; to nobody where stdout is closed.

    Raises:
        BrokenPipeError: Nobody reads it any more.
        NimError: It cannot be written for another reason.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_stdout()
        raise NimError(f"cannot write to standard output: {error.strerror}") from error


def reader_is_gone() -> bool:
    """Say whether stdout is a pipe that nobody reads any more, as after ``| head -1``."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    return any(event & select.POLLERR for _descriptor, event in poll.poll(0))


def forget_stdout() -> None:
    """Let what is still buffered for stdout go nowhere, so that it cannot fail a second time at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
