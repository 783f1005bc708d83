"""Where the time of ours goes: py-spy's samples as two lists, functions by themselves and with what they call."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from attrs import evolve

from transfer_bench.cases import CASES, amount
from transfer_bench.contestants import CONTESTANTS, OURS
from transfer_bench.measure import measure
from transfer_bench.records import Command, Failed, Mode, Skipped, Task
from transfer_bench.rounds import Arena, Ground
from transfer_bench.source import empty, warm
from transfer_bench.stats import show_bytes

__all__ = ["profile", "top_lists"]

_RATE: Final = 200
_LINES: Final = 25
_SECONDS: Final = 600
_UNEMPLOYED: Final = ("Workers._run", "Batcher._run", "Condition.wait")
"""Where threads are that have nothing to do."""

_FOLDER: Final = re.compile(r"\((?:[^()]*/)?([^/()]+/[^/()]+)\)")


def profile(name: str, arena: Arena) -> str:
    """Return the lists for one case. Raises Skipped without py-spy, Failed when the run failed."""
    if "py-spy" not in arena.tools.found:
        raise Skipped(f"py-spy is {arena.tools.missing['py-spy']}")
    case = CASES[name]
    contents = arena.contents(case.files)
    with arena.endpoint(case.server, contents) as endpoint:
        ground = Ground(arena=arena, endpoint=endpoint, contents=contents, mode=case.mode)
        stacks = [_sample(ground.task(OURS), idle=idle) for idle in (False, True)]
    count, size = amount(case.files, arena.sizes)
    head = f"{case.title}: {count:,} x {show_bytes(size)}, {_RATE} samples a second of each thread"
    parts = ("threads that run", "threads that wait, too: where the time of each goes")
    lists = [f"== {what} ==\n\n{top_lists(text, _RATE)}" for what, text in zip(parts, stacks, strict=True)]
    return "\n\n".join([head, *lists])


def _sample(task: Task, *, idle: bool) -> str:
    """Run ours below py-spy and return its samples, one stack a line."""
    empty(task.folder)
    warm(task.files)
    if task.mode is Mode.WARM:
        measure(CONTESTANTS[OURS].command(evolve(task, mode=Mode.FRESH)), task, _SECONDS)
    command = CONTESTANTS[OURS].command(task)
    output = task.scratch / "stacks"
    options = ["record", "--format", "raw", "--rate", str(_RATE), "--threads", "--output", str(output), "--nonblocking"]
    arguments = (str(task.tools["py-spy"]), *options, *(["--idle"] if idle else []), "--", *command.arguments)
    measure(Command(arguments=arguments, variables=command.variables), task, _SECONDS)
    if not output.exists():
        raise Failed("py-spy wrote nothing")
    return output.read_text(encoding="utf-8", errors="replace")


def top_lists(stacks: str, rate: int) -> str:
    """
    Return seconds by thread, by function of a thread, and by function with what it calls.

    Args:
        stacks: Lines of frames separated by semicolons, the thread first, with a count at the end.
        rate: Samples per second.
    """
    threads: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = [_short(frame) for frame in stack.split(";")]
        if not frames or not count.isdigit() or frames[-1].startswith(_UNEMPLOYED):
            continue
        threads[thread] += int(count)
        alone[f"{thread}: {frames[-1]}"] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    tables = (("thread", threads), ("function alone", alone), ("with what it calls", within))
    return "\n\n".join(_table(title, counter, rate) for title, counter in tables)


def _short(frame: str) -> str:
    """Return a frame without folders and without the thread's number."""
    if frame.startswith("thread"):
        return re.sub(r"^thread \(\S+?\):? ?", "", frame) or "main"
    return _FOLDER.sub(r"(\1)", frame)


def _table(title: str, counter: Counter[str], rate: int) -> str:
    lines = [f"{'seconds':>8}  {title}"]
    lines += [f"{count / rate:8.2f}  {name}" for name, count in counter.most_common(_LINES)]
    return "\n".join(lines)
