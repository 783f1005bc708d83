"""
An engine's process: started, listened to, and gone when it is to be gone, with everything it started.

Between this process and the engine stands ``guardian.py``, see there. Three things may die:

- the engine: the guardian ends what it left behind, then itself;
- this process: the guardian sees its socket end, and ends the engine;
- the guardian: the kernel kills the engine, and what that left behind lands at this process, which kills it.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from nim_core.errors import BackendError, BackendMissingError
from nim_core.serving import guardian
from nim_core.serving.output import Lines, Patient
from nim_core.types import LaunchPlan, Secret

__all__ = ["EngineProcess", "engine_environment"]

_START_SECONDS: Final = 30.0
_DRAIN_SECONDS: Final = 5.0
_LAST_LINES: Final = 20
_PR_SET_CHILD_SUBREAPER: Final = 36
_GUARDIAN: Final = str(Path(guardian.__file__))

_guardians: Final[set[int]] = set()
"""Those that run."""


def engine_environment(plan: LaunchPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a plan's process, where ``environ`` are core's own."""
    kept = {name: value for name, value in environ.items() if name not in plan.without}
    own = {name: value.reveal() if isinstance(value, Secret) else value for name, value in plan.environ.items()}
    return kept | own


class EngineProcess:
    """
    An engine as a process.

    Args:
        plan: What is started.
        environ: Core's own environment.
        line: Gets each line that it writes, on a thread of its own.

    Attributes:
        ended: Set as soon as the engine's main process has ended.
    """

    def __init__(self, plan: LaunchPlan, environ: Mapping[str, str], line: Callable[[str], None]) -> None:
        self._plan = plan
        self._environ = engine_environment(plan, environ)
        self._line = line
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._told = b""
        self._started = threading.Event()
        self._gone = threading.Event()
        self._failure: str | None = None
        self._pid: int | None = None
        self._status: int | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
        self._watchers: list[Callable[[], None]] = []
        self.ended = threading.Event()

    @property
    def pid(self) -> int | None:
        """Of the engine's main process. None before it was started."""
        return self._pid

    @property
    def status(self) -> int | None:
        """What the main process ended with, as a shell has it: 128 + n for signal n. None while it runs."""
        return self._status

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines it wrote."""
        return tuple(self._last)

    def on_end(self, act: Callable[[], None]) -> None:
        """Have ``act`` called, on another thread, when the main process has ended; to be said before the start."""
        self._watchers.append(act)

    def start(self) -> None:
        """
        Start it.

        Raises:
            BackendMissingError: There is no such program.
            BackendError: It cannot be started for another reason.
        """
        guardian.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._guardian = self._spawn(theirs)
        _guardians.add(self._guardian.pid)
        threading.Thread(target=self._listen, name="engine-output", daemon=True).start()
        if not self._started.wait(_START_SECONDS):
            self.kill()
            raise BackendError(f"the engine's program did not start within {_START_SECONDS:.0f} s: {self._program}")
        if self._failure is not None:
            self._gone.wait(_START_SECONDS)
            raise self._refusal(self._failure)

    def wait(self, timeout: float | None = None) -> int | None:
        """
        Wait until it and all that it started are gone; return its status. None when that took too long.

        Args:
            timeout: Seconds. None: as long as it takes.
        """
        return self._status if self._gone.wait(timeout) else None

    def terminate(self) -> None:
        """Ask the main process to end, by SIGTERM. Nothing happens when it is gone."""
        self._tell(b"T")

    def kill(self) -> None:
        """Kill it and all that it started. Nothing happens when it is gone."""
        self._tell(b"K")

    @property
    def _program(self) -> str:
        return self._plan.argv[0]

    def _spawn(self, control: socket.socket) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603 -- the program a backend described
                [sys.executable, "-I", "-S", _GUARDIAN, *self._plan.argv],
                stdin=control.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._plan.folder,
                env=self._environ,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._socket.close()
            raise BackendError(f"cannot start the engine in {self._plan.folder or Path.cwd()}: {error}") from error

    def _refusal(self, told: str) -> BackendError:
        number, _, reason = told.partition(" ")
        if number == "2":
            return BackendMissingError(f"there is no program to serve with: {self._program}")
        return BackendError(f"cannot start the engine's program {self._program}: {reason}")

    def _tell(self, order: bytes) -> None:
        try:
            self._socket.send(order)
        except OSError:  # the guardian is gone, and so is the engine or will be
            return

    def _listen(self) -> None:
        """Read all that comes, to the end of all three; runs on a thread of its own."""
        process = self._guardian
        assert process is not None
        assert process.stdout is not None
        assert process.stderr is not None
        patient = Patient(self._line)
        out, err = process.stdout.fileno(), process.stderr.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ, self._hear)
            for descriptor in (out, err):
                lines = Lines(lambda text: self._keep(text, patient))
                selector.register(descriptor, selectors.EVENT_READ, lines.read)
            self._until_ended(selector, process)
        patient.close(_DRAIN_SECONDS)
        for file in (self._socket, process.stdout, process.stderr):
            file.close()
        self._note_start()
        self._gone.set()

    def _until_ended(self, selector: selectors.BaseSelector, process: subprocess.Popen[bytes]) -> None:
        deadline = None
        while selector.get_map() and (deadline is None or time.monotonic() < deadline):
            for key, _ in selector.select(None if deadline is None else 0.1):
                if not key.data(key.fd):
                    selector.unregister(key.fileobj)
                    if key.fileobj is self._socket:
                        deadline = time.monotonic() + _DRAIN_SECONDS
                        self._guardian_ended(process.wait())

    def _hear(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, 4096)
        except OSError:
            data = b""
        *lines, self._told = (self._told + data).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "pid":
                self._pid = int(rest)
                self._note_start()
            elif word == "error":
                self._failure = rest
            elif word == "ended":
                self._note_end(int(rest))
        return bool(data)

    def _guardian_ended(self, code: int) -> None:
        """Note the end; where the guardian was killed, kill what it watched over."""
        if self._guardian is not None:
            _guardians.discard(self._guardian.pid)
        if self._status is None and self._pid is not None:
            _kill_strays(self._pid)
            self._note_end(128 - code if code < 0 else code)

    def _note_start(self) -> None:
        self._started.set()

    def _note_end(self, status: int) -> None:
        self._status = status
        self.ended.set()
        for act in self._watchers:
            act()

    def _keep(self, text: str, patient: Patient) -> None:
        if text.strip():
            self._last.append(text)
        patient.put(text)


def _kill_strays(engine: int) -> None:
    """Kill what an engine's guardian, itself killed, had no time to: its session, and what has landed here since."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < deadline:
        strays = _strays(engine)
        if not strays:
            return
        for pid in strays:
            _kill_and_reap(pid)
        time.sleep(0.01)


def _strays(engine: int) -> list[int]:
    me, session = os.getpid(), os.getsid(0)
    seen = guardian.processes()
    landed = [pid for pid, parent, group in seen if parent == me and group != session and pid not in _guardians]
    own = [pid for pid, _parent, group in seen if group == engine]
    beneath = [pid for root in {*landed, *own} for pid in guardian.descendants(root)]
    return list(dict.fromkeys([*own, *landed, *beneath]))


def _kill_and_reap(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
