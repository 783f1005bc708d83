"""One run of one command, measured as a whole: wall, CPU seconds of the process tree, peak memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from transfer_bench.records import Command, Failed, Sample, Task

__all__ = ["environment", "kill_group", "last_line", "measure", "spawn"]

LAUNCHER: Final = Path(__file__).with_name("launcher.py")
TICKS: Final = os.sysconf("SC_CLK_TCK")


def environment(command: Command, scratch: Path) -> dict[str, str]:
    """Return an environment that has nothing of the user's in it: no proxy, no key, no settings at home."""
    home = scratch / "home"
    home.mkdir(exist_ok=True)
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8", **command.variables}


def measure(command: Command, task: Task, seconds: float) -> Sample:
    """
    Run a command in the task's folder, in the network that the task's server is in.

    Raises:
        Failed: It ended badly, or not within ``seconds``.
    """
    scratch = task.scratch
    files = [scratch / name for name in ("result.json", "stdout", "stderr")]
    arguments = (*task.endpoint.inside, *command.arguments)
    servers = task.endpoint.pids()
    before, served_before = _busy_seconds(), _cpu_seconds(servers)
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER), *map(str, files), *arguments]
    _run_to_end(launcher, environment(command, scratch), task.folder, seconds)
    facts: dict[str, Any] = json.loads(files[0].read_text(encoding="utf-8"))
    if facts["status"] != 0:
        raise Failed(f"exit {facts['status']}: {last_line(files[2], files[1])}")
    busy = _busy_seconds() - before - (_cpu_seconds(servers) - served_before)
    return Sample(
        wall=facts["wall"], cpu=facts["cpu"], rss=facts["rss"], others=round(max(0.0, busy - facts["cpu"]), 2)
    )


def _run_to_end(arguments: list[str], variables: Mapping[str, str], folder: Path, seconds: float) -> None:
    process = subprocess.Popen(arguments, env=variables, cwd=folder, start_new_session=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {seconds:.0f} s") from None
    finally:
        kill_group(process)


def spawn(command: Command, task: Task) -> subprocess.Popen[bytes]:
    """Start a command that is going to be killed, as :func:`measure` would."""
    with (task.scratch / "stderr").open("wb") as error:
        return subprocess.Popen(
            [*task.endpoint.inside, *command.arguments],
            env=environment(command, task.scratch),
            cwd=task.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=error,
            start_new_session=True,
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started; nothing when it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(*files: Path) -> str:
    """Return the last line with something on it of the first file that has one."""
    for file in files:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.exists() else []
        said = [line.strip() for line in lines if line.strip()]
        if said:
            return said[-1][:200]
    return "it said nothing"


def _busy_seconds() -> float:
    """Return the seconds that the cores of this machine have worked."""
    first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    user, nice, system, _idle, _wait, irq, soft = (int(word) for word in first.split()[1:8])
    return (user + nice + system + irq + soft) / TICKS


def _cpu_seconds(pids: Iterable[int]) -> float:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            total += int(words[11]) + int(words[12])
    return total / TICKS
