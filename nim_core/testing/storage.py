"""
Storage that fails or forgets, for programs that know nothing of it.

strace stands between a real program and the kernel; nothing in the program is replaced.

- :func:`failing` lets one system call fail: the third ``fsync`` with EIO, all ``pwrite64`` from the fortieth on with
  ENOSPC.
- :func:`killing` kills the program as it enters one: in the middle of publishing, as often as it takes.
- :func:`recorded` runs a program and returns everything it did to a folder;
  :func:`~nim_core.testing.power_loss.after_power_loss` then draws what may be left of it when the power fails at any
  point, which a test writes to a folder and looks at.
- :func:`small_disk` is a file system of so many bytes, so that the disk is full at exactly that byte; it needs root.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from nim_core.testing.power_loss import Operation, Tree
from nim_core.testing.traces import CALLS, read_trace

__all__ = ["Recording", "failing", "killing", "recorded", "small_disk", "why_not"]

_LONGEST_STRING = 1 << 26
_FOLLOW = ("strace", "-f", "-qq", "-e", "signal=none")


def why_not() -> str | None:
    """Return why no program can be run under strace here. None when one can."""
    if shutil.which("strace") is None:
        return "strace is not installed: apt-get install strace"
    done = subprocess.run([*_FOLLOW, "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)  # noqa: S603 - constant
    return f"strace does not work here: {done.stderr.strip()}" if done.returncode else None


def failing(call: str, error: str, *, first: int = 1, last: int | None = None) -> Sequence[str]:
    """
    Return what runs a program so that a system call fails.

    Args:
        call: Its name, as strace has it.
        error: Such as ``ENOSPC``.
        first: Number of the first call that fails, counted from 1 in each thread.
        last: Number of the last. None: all from ``first`` on.
    """
    when = f"{first}+" if last is None else f"{first}..{last}"
    inject = f"inject={call}:error={error}:when={when}"
    return (*_FOLLOW, "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)


def killing(call: str, number: int, signal: str = "KILL") -> Sequence[str]:
    """Return what runs a program so that a signal gets it as it enters a system call, the ``number``-th of a thread."""
    inject = f"inject={call}:signal={signal}:when={number}"
    return (*_FOLLOW, "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)


@frozen(kw_only=True)
class Recording:
    """
    What a program did to a folder.

    Attributes:
        operations: In the order in which they ended, after those that make what was there before.
        already: How many operations made what was there before.
        code: What it ended with; negative for a signal.
        stderr: What it said.
    """

    operations: Sequence[Operation]
    already: int
    code: int
    stderr: str


def recorded(command: Sequence[str], folder: Path, *, environment: Mapping[str, str], cwd: Path) -> Recording:
    """
    Run a program and record what it does beneath ``folder``, which has no link in its path.

    Raises:
        ValueError, KeyError: As :func:`~nim_core.testing.traces.read_trace`.
    """
    before = Tree.of(folder)
    with tempfile.TemporaryDirectory() as name:
        log = Path(name, "log")
        calls = "trace=" + ",".join(f"?{call}" for call in sorted(CALLS))
        strace = (*_FOLLOW, "--seccomp-bpf", "-xx", "-s", str(_LONGEST_STRING), "-e", calls, "-o", str(log))
        done = subprocess.run(  # noqa: S603 - what is run is the test's own choice
            [*strace, *command], env=environment, cwd=cwd, capture_output=True, text=True, check=False
        )
        with log.open(encoding="ascii", errors="replace") as lines:
            operations = read_trace(lines, folder, cwd=cwd, before=before)
    already = len(read_trace((), folder, cwd=cwd, before=before))
    return Recording(operations=operations, already=already, code=done.returncode, stderr=done.stderr)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """
    Mount a file system of ``size`` bytes, in memory, at ``folder``.

    Raises:
        PermissionError: This user, or this machine, cannot mount one.
    """
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        raise PermissionError(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607 - no shell
