"""An engine's process: how it starts and ends, and that nothing of it is ever left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nim_core.errors import BackendError, BackendMissingError
from nim_core.serving.process import EngineProcess, engine_environment
from nim_core.types import LaunchPlan, Secret
from tests.serving.conftest import engine_command, free_port, runs, until, written_pids

CHILDREN = ("plain", "session", "deeper", "session,deeper", "stubborn", "stubborn,session,deeper")
SPAWN = tuple(word for words in CHILDREN for word in ("--spawn", words))
QUICK = ("--spawn", "plain", "--spawn", "session", "--spawn", "deeper")
"""Children that end when they are asked to."""

PARENT = """
import os, sys, time
from nim_core.serving.process import EngineProcess
from nim_core.types import LaunchPlan
process = EngineProcess(LaunchPlan(argv=tuple(sys.argv[1:])), os.environ, lambda line: print(line, flush=True))
print("starting", flush=True)
process.start()
print("started", flush=True)
print("ended", process.wait(60), flush=True)
"""


class Running:
    """An engine's process and what it wrote."""

    def __init__(self, *argv: str, **plan: object) -> None:
        self.lines: list[str] = []
        self.process = EngineProcess(LaunchPlan(argv=argv, **plan), os.environ, self.lines.append)
        self.process.start()


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """Where an engine and its children write their pids; whatever is left of them in the end is killed."""
    file = tmp_path / "pids"
    yield file
    for pid in written_pids(file):
        if runs(pid):
            os.kill(pid, signal.SIGKILL)


def family(pids: Path, *flags: str) -> Running:
    """Start an engine with children of every kind, and wait for them."""
    running = Running(*engine_command(free_port(), "--pids", str(pids), *SPAWN, *flags))
    until(lambda: len(written_pids(pids)) == 1 + len(CHILDREN))
    assert all(map(runs, written_pids(pids)))
    return running


def all_gone(pids: Path) -> bool:
    return not any(map(runs, written_pids(pids)))


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)],
)
def test_the_status_is_as_a_shell_has_it(script: str, status: int) -> None:
    process = Running("sh", "-c", script).process
    assert process.wait(20) == status
    assert process.status == status
    assert process.ended.is_set()


def test_both_outputs_come_as_lines_to_the_end() -> None:
    running = Running("sh", "-c", "echo out; echo err >&2; printf last")
    assert running.process.wait(20) == 0
    assert sorted(running.lines) == ["err", "last", "out"]
    assert sorted(running.process.last_lines) == ["err", "last", "out"]


def test_much_output_is_complete_and_in_order() -> None:
    running = Running("seq", "1", "8000")
    assert running.process.wait(20) == 0
    assert running.lines == [str(number) for number in range(1, 8001)]


def test_a_slow_reader_does_not_hold_the_engine_up() -> None:
    process = EngineProcess(LaunchPlan(argv=("seq", "1", "300000")), os.environ, lambda _line: time.sleep(0.01))
    process.start()
    assert process.ended.wait(10)
    assert process.wait(30) == 0


def test_waiting_has_an_end() -> None:
    process = Running("sleep", "60").process
    assert process.wait(0.05) is None
    process.kill()
    assert process.wait(20) == 137
    process.terminate()  # to nobody


def test_an_end_is_told_at_once() -> None:
    told: list[int | None] = []
    process = EngineProcess(LaunchPlan(argv=("sh", "-c", "exit 5")), os.environ, print)
    process.on_end(lambda: told.append(process.status))
    process.start()
    process.wait(20)
    assert told == [5]


def test_no_such_program() -> None:
    with pytest.raises(BackendMissingError, match="no program to serve with: no-such-engine"):
        Running("no-such-engine")


@pytest.mark.parametrize(
    ("argv", "folder", "message"),
    [(("/etc/passwd",), None, "Permission denied"), (("true",), Path("/no/such/folder"), "/no/such/folder")],
)
def test_what_cannot_be_started(argv: tuple[str, ...], folder: Path | None, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Running(*argv, folder=folder)


def test_environment_and_folder(tmp_path: Path) -> None:
    plan = LaunchPlan(argv=("x",), environ={"KEY": Secret("s3cret"), "A": "own"}, without=("B",))
    environ = engine_environment(plan, {"A": "core", "B": "core", "C": "core"})
    assert environ == {"KEY": "s3cret", "A": "own", "C": "core"}
    running = Running("sh", "-c", "pwd; echo $KEY", folder=tmp_path, environ={"KEY": Secret("s3cret")})
    running.process.wait(20)
    assert running.lines == [str(tmp_path), "s3cret"]


def test_secrets_are_in_no_command_line() -> None:
    running = Running("sleep", "60", environ={"KEY": Secret("s3cret")})
    shown = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    running.process.kill()
    running.process.wait(20)
    assert "guardian.py sleep 60" in shown
    assert "s3cret" not in shown


OF_THE_C_LIBRARY = 0b11 << 31
"""Signals 32 and 33, which glibc lets nobody set; some machines' supervisors leave them ignored for all."""


def test_an_engine_has_default_signals_and_no_terminal() -> None:
    script = "import os, signal; print(signal.getsignal(signal.SIGPIPE), os.getsid(0) == os.getpid(), os.read(0, 1))"
    running = Running(sys.executable, "-S", "-c", f"import signal;{script}")
    running.process.wait(20)
    assert running.lines[0].endswith("True b''")
    blocked = Running("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")
    blocked.process.wait(20)
    assert {int(line.split()[1], 16) & ~OF_THE_C_LIBRARY for line in blocked.lines} == {0}


def test_terminating_reaches_the_main_process_alone(pids: Path) -> None:
    running = family(pids)
    until(lambda: "loading the model" in running.lines)
    running.process.terminate()
    assert running.process.wait(30) in {0, 143}
    assert all_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_workers_do_not_outlive_the_main_process(pids: Path, number: int) -> None:
    running = family(pids)
    assert running.process.pid == written_pids(pids)[0]
    os.kill(running.process.pid, number)
    assert running.process.ended.wait(2)  # known at once, though stubborn children take until they are killed
    assert running.process.wait(30) == 128 + number
    assert all_gone(pids)


def test_killing_takes_no_time_however_stubborn(pids: Path) -> None:
    running = family(pids, "--ignore-term")
    begun = time.monotonic()
    running.process.kill()
    assert running.process.wait(30) == 137
    assert time.monotonic() - begun < 4
    assert all_gone(pids)


def test_nothing_outlives_the_guardian(pids: Path) -> None:
    running = family(pids)
    guardian = int(Path(f"/proc/{running.process.pid}/status").read_text().split("PPid:")[1].split()[0])
    os.kill(guardian, signal.SIGKILL)
    assert running.process.wait(30) == 137
    assert all_gone(pids)


def test_a_signal_to_the_guardian_asks_the_engine_to_end(pids: Path) -> None:
    running = family(pids)
    guardian = int(Path(f"/proc/{running.process.pid}/status").read_text().split("PPid:")[1].split()[0])
    os.kill(guardian, signal.SIGTERM)
    assert running.process.wait(30) in {0, 143}
    assert all_gone(pids)


def parent(pids: Path, *flags: str) -> subprocess.Popen[str]:
    """Start a process that starts an engine with children."""
    argv = engine_command(free_port(), "--pids", str(pids), *flags)
    return subprocess.Popen([sys.executable, "-c", PARENT, *argv], stdout=subprocess.PIPE, text=True)


def test_nothing_outlives_this_process_while_the_engine_loads(pids: Path) -> None:
    with parent(pids, *SPAWN, "--load", "600", "--ignore-term") as process:
        until(lambda: len(written_pids(pids)) == 1 + len(CHILDREN))
        process.kill()
    until(lambda: all_gone(pids))


def test_the_kernel_ends_an_engine_that_nobody_is_left_to_end(pids: Path) -> None:
    with parent(pids, "--load", "600", "--ignore-term") as process:
        until(lambda: written_pids(pids))
        process.send_signal(signal.SIGSTOP)
        guardian = int(Path(f"/proc/{written_pids(pids)[0]}/status").read_text().split("PPid:")[1].split()[0])
        os.kill(guardian, signal.SIGKILL)
        process.kill()
    until(lambda: all_gone(pids), 3)


def test_keys_typed_at_a_terminal_do_not_reach_the_engine(pids: Path) -> None:
    with parent(pids, *QUICK) as process:
        until(lambda: len(written_pids(pids)) == 4)
        groups = {os.getpgid(pid) for pid in written_pids(pids)}
        assert os.getpgid(process.pid) not in groups
        sessions = {os.getsid(pid) for pid in written_pids(pids)}
        assert os.getsid(process.pid) not in sessions
        process.kill()
    until(lambda: all_gone(pids))


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_left_whoever_is_killed_whenever(pids: Path, seed: int) -> None:
    chance = random.Random(seed)
    with parent(pids, *QUICK) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "starting\n"
        time.sleep(chance.uniform(0, 0.6))
        victims = [process.pid, *_beneath(process.pid)[: chance.choice([0, 1, 2])]]
        victim = victims[-1]
        if runs(victim):
            os.kill(victim, signal.SIGKILL)
        if victim != process.pid:
            until(lambda: process.poll() is not None)
    until(lambda: all_gone(pids))
    time.sleep(0.2)
    assert all_gone(pids)


def _beneath(pid: int) -> list[int]:
    from nim_core.serving.guardian import descendants

    return descendants(pid)
