"""
Stands between nim-serve and an engine, so that nothing of the engine outlives either of them.

It is started as ``python -I -S guardian.py PROGRAM ARGUMENT ...`` with a socket as standard input, uses the standard
library alone and imports little of it: it has to start in milliseconds and to be small. It

- is the reaper of all that the engine starts, however deep, so that what loses its parent lands here and not at init;
- starts the engine in a session of its own, where keys typed at a terminal do not reach it, and has the kernel kill the
  engine when this process is killed;
- passes on what it is told over the socket: ``T`` asks the engine to end, ``K`` kills all there is;
- takes the end of the socket for the death of nim-serve: the engine is asked to end, and killed soon after;
- ends when nothing of the engine is left, with its exit status as a shell has it.

It tells, a line each: ``pid N``, or ``error ERRNO WHAT``, and ``ended STATUS`` as soon as the engine itself has ended.
"""

import ctypes
import os
import select
import signal
import sys
import time

_TERM_SECONDS = 5.0
"""How long processes may take to end by themselves when nobody needs them any more."""

_KILL_SECONDS = 10.0
"""How long killed processes may stay; one that waits for a device cannot be killed, and is left to init."""

_LOOK_SECONDS = 5.0
"""How often it is looked whether nim-serve is there, besides the socket that says so at once."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SOCKET = 0


def main(argv: list[str]) -> int:
    """Run ``argv`` and return its status once nothing of it is left."""
    parent = os.getppid()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    woken = _wake_on_signals()
    os.set_inheritable(_SOCKET, False)  # noqa: FBT003
    pid = _start(argv)
    if pid is None:
        return 127
    return Guard(pid, parent, woken).run()


class Guard:
    """Watches one engine."""

    def __init__(self, pid: int, parent: int, woken: int) -> None:
        self._pid = pid
        self._parent = parent
        self._woken = woken
        self._status: int | None = None
        self._childless = False
        self._kill_at: float | None = None
        self._leave_at: float | None = None
        self._watched = [woken, _SOCKET]

    def run(self) -> int:
        """Return the engine's status once nothing of it is left."""
        while not self._childless:
            ready, _, _ = select.select(self._watched, [], [], self._seconds_to_wait())
            if self._woken in ready:
                self._pass_on(os.read(self._woken, 512))
            if _SOCKET in ready:
                self._obey()
            self._reap()
            if os.getppid() != self._parent:
                self._part()
            if self._leave_at is not None and time.monotonic() > self._leave_at:
                break
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                self._kill()
        return 128 + signal.SIGKILL if self._status is None else self._status

    def _seconds_to_wait(self) -> float:
        return _LOOK_SECONDS if self._kill_at is None else 0.05

    def _pass_on(self, numbers: bytes) -> None:
        if self._status is None and any(number in _PASSED_ON for number in numbers):
            _send(self._pid, signal.SIGTERM)

    def _obey(self) -> None:
        try:
            told = os.read(_SOCKET, 64)
        except OSError:
            told = b""
        if b"K" in told:
            self._kill()
        elif b"T" in told and self._status is None:
            _send(self._pid, signal.SIGTERM)
        if not told:
            self._part()

    def _part(self) -> None:
        """Act on the death of nim-serve."""
        if _SOCKET in self._watched:
            self._watched.remove(_SOCKET)
        self._end_all()

    def _end_all(self) -> None:
        """Ask all there is to end, and kill it soon after."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + _TERM_SECONDS
            for pid in descendants(os.getpid()):
                _send(pid, signal.SIGTERM)

    def _kill(self) -> None:
        now = time.monotonic()
        self._kill_at = now
        self._leave_at = self._leave_at or now + _KILL_SECONDS
        for pid in descendants(os.getpid()):
            _send(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, state = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if not pid:
                return
            if pid == self._pid:
                self._engine_ended(os.waitstatus_to_exitcode(state))

    def _engine_ended(self, code: int) -> None:
        self._status = 128 - code if code < 0 else code
        tell(f"ended {self._status}")
        self._end_all()


def _start(argv: list[str]) -> int | None:
    """Start the engine and return its pid. None when it cannot be started, which has been told by then."""
    me = os.getpid()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(argv, me, writing)
    os.close(writing)
    failure = os.read(reading, 4096).decode("utf-8", "replace")
    os.close(reading)
    if failure:
        os.waitpid(pid, 0)
        tell(f"error {failure}")
        return None
    tell(f"pid {pid}")
    return pid


def _become(argv: list[str], guardian: int, failures: int) -> None:
    """Turn this process, just forked, into the engine."""
    try:
        os.setsid()
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:
            os._exit(128 + signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (*_PASSED_ON, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(argv[0], argv)  # noqa: S606 -- no shell is wanted
    except OSError as error:
        os.write(failures, f"{error.errno} {error.strerror}".encode())
    finally:
        os._exit(127)


def _wake_on_signals() -> int:
    """Return what becomes readable when a signal came; its bytes are the signals' numbers."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (*_PASSED_ON, signal.SIGCHLD):
        signal.signal(number, lambda *_arguments: None)
    return reading


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:  # gone, or another user's
        return


def tell(line: str) -> None:
    """Tell nim-serve; where it is gone, nobody wants to know."""
    try:
        os.write(_SOCKET, line.encode() + b"\n")
    except OSError:
        return


def prctl(option: int, value: int) -> None:
    """Call prctl(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def descendants(root: int) -> list[int]:
    """Return the pids of all processes beneath ``root``, parents before their children."""
    children: dict[int, list[int]] = {}
    for pid, parent, _session in processes():
        children.setdefault(parent, []).append(pid)
    found = [*children.get(root, ())]
    for pid in found:
        found += children.get(pid, ())
    return found


def processes() -> list[tuple[int, int, int]]:
    """Return pid, parent and session of every process that can be seen."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 -- pathlib would cost more than the rest of the start
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                    fields = stat.read().rpartition(b")")[2].split()
            except OSError:  # ended meanwhile
                continue
            found.append((int(name), int(fields[1]), int(fields[3])))
    return found


if __name__ == "__main__":
    status = main(sys.argv[1:])
    os._exit(status)
