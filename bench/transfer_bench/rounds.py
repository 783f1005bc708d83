"""
The measuring itself: rounds in which every contestant has its turn, so that what disturbs the machine disturbs all.

Before each turn the destination is emptied, what is still to be written reaches the disk, and the source is read into
the page cache.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from attrs import define, evolve, field, frozen

from transfer_bench.cases import Case, amount
from transfer_bench.contestants import CONTESTANTS, Contestant
from transfer_bench.far import far_server
from transfer_bench.measure import kill_group, measure, spawn
from transfer_bench.nginx import CAP, WebServer, parse_log, peak_overlap, sent, web_server, write_hub
from transfer_bench.records import MIB, Content, Endpoint, Failed, Mode, Sample, Sizes, Skipped, Task
from transfer_bench.source import ASIDE, check_space, delivered, empty, make_files, warm
from transfer_bench.store import object_store
from transfer_bench.tools import Toolbox

__all__ = ["KILL_AT", "Arena", "CaseResult", "Ground", "resume_facts", "run_case"]

KILL_AT: Final = (0.5, 0.35, 0.65, 0.45, 0.55)
"""Share of the bytes after which a run is killed, round by round."""

_LOG_SETTLES: Final = 0.3
_POLL_SECONDS: Final = 0.003
_SAID: Final = 120
_SLOWEST: Final = 8 * MIB


@frozen(kw_only=True)
class CaseResult:
    """
    What came of a case.

    Attributes:
        samples: Runs by contestant, in the order of the rounds.
        missing: Contestants that could not be measured, and why.
        skipped: Why the case was not measured at all. Empty when it was.
    """

    case: Case
    count: int
    size: int
    samples: dict[str, list[Sample]] = field(factory=dict)
    missing: dict[str, str] = field(factory=dict)
    skipped: str = ""

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return self.count * self.size


@define
class Arena:
    """
    Where it happens.

    Attributes:
        folder: Holds source, destination and servers.
        destination: Where contestants write.
    """

    folder: Path
    destination: Path
    tools: Toolbox
    sizes: Sizes
    _made: tuple[str, tuple[Content, ...]] = ("", ())
    _web: WebServer | None = None
    _stack: contextlib.ExitStack = field(factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    @property
    def source(self) -> Path:
        """Folder of what is served."""
        return self.folder / "source"

    def contents(self, files: str) -> tuple[Content, ...]:
        """Return the files of a kind, made now unless the last case had them too. Raises Skipped without space."""
        if self._made[0] != files:
            count, size = amount(files, self.sizes)
            self._made = ("", ())
            empty(self.source)
            check_space(self.folder, 2 * count * size)
            check_space(self.destination, count * size)
            self._made = (files, make_files(self.source, files, count, size))
        return self._made[1]

    @contextlib.contextmanager
    def endpoint(self, server: str, contents: Sequence[Content]) -> Iterator[Endpoint]:
        """Yield the address that a case wants. Raises Skipped when there is none."""
        if server == "s3":
            check_space(self.folder, 2 * sum(content.size for content in contents))
            with object_store(self.tools.found, contents, self.folder / "store") as endpoint:
                yield endpoint
        elif server == "far":
            with far_server(self._nginx(), self.source, self.folder / "far", contents) as web:
                yield web.endpoint("plain")
        else:
            yield self._local(contents).endpoint(server)

    def _local(self, contents: Sequence[Content]) -> WebServer:
        run = self.folder / "nginx"
        if self._web is None:
            self._web = self._stack.enter_context(web_server(self._nginx(), self.source, run, contents))
        write_hub(run, contents)
        return self._web

    def _nginx(self) -> Path:
        if "nginx" not in self.tools.found:
            raise Skipped(f"nginx is {self.tools.missing['nginx']}")
        return self.tools.found["nginx"]


@frozen(kw_only=True)
class Ground:
    """What all turns of a case have in common."""

    arena: Arena
    endpoint: Endpoint
    contents: tuple[Content, ...]
    mode: Mode

    def task(self, name: str) -> Task:
        """Return what the contestant ``name`` has to do."""
        place = "".join(letter if letter.isalnum() else "-" for letter in name)
        scratch = self.arena.folder / "scratch" / place
        scratch.mkdir(parents=True, exist_ok=True)
        return Task(
            files=self.contents,
            endpoint=self.endpoint,
            folder=self.arena.destination / (place if self.mode is Mode.WARM else "files"),
            scratch=scratch,
            tools=self.arena.tools.found,
            mode=self.mode,
        )


def run_case(case: Case, arena: Arena, names: Sequence[str], rounds: int) -> CaseResult:
    """Measure ``rounds`` rounds of the contestants ``names``; what goes wrong is in the result."""
    count, size = amount(case.files, arena.sizes)
    result = CaseResult(case=case, count=count, size=size)
    try:
        contents = arena.contents(case.files)
        with arena.endpoint(case.server, contents) as endpoint:
            ground = Ground(arena=arena, endpoint=endpoint, contents=contents, mode=case.mode)
            for number in range(rounds):
                first = number % max(1, len(names))  # each begins a round in turn: what was deleted before is felt
                _run_round(result, ground, [*names[first:], *names[:first]], number)
    except (Skipped, Failed) as exc:
        return evolve(result, skipped=hide(str(exc), arena))
    finally:
        for folder in arena.destination.iterdir():
            if folder.name != ASIDE:
                empty(folder)
    return result


def _run_round(result: CaseResult, ground: Ground, names: Sequence[str], number: int) -> None:
    for name in names:
        if name in result.missing:
            continue
        try:
            sample = _turn(CONTESTANTS[name], ground.task(name), ground.arena.tools, number)
        except (Skipped, Failed) as exc:
            result.missing[name] = hide(str(exc), ground.arena)
            result.samples.pop(name, None)
        else:
            result.samples.setdefault(name, []).append(sample)
        _tell(result, name, number)


def _turn(contestant: Contestant, task: Task, tools: Toolbox, number: int) -> Sample:
    if contestant.tool is not None and contestant.tool not in tools.found:
        raise Skipped(tools.missing[contestant.tool])
    if task.mode is Mode.WARM:
        return _warm_turn(contestant, task, number)
    _prepare(task)
    if task.mode is Mode.RESUME:
        return _resume_turn(contestant, task, number)
    sample = measure(contestant.command(task), task, _limit(task))
    _check(task)
    return evolve(sample, extra=_cap_facts(task, sample)) if task.endpoint.log else sample


def _prepare(task: Task) -> None:
    empty(task.folder)
    os.sync()
    warm(task.files)
    if task.endpoint.log is not None:
        os.truncate(task.endpoint.log, 0)


def _limit(task: Task) -> float:
    return 120 + task.size / _SLOWEST + len(task.files) / 10


def _check(task: Task) -> None:
    found = delivered(task.folder)
    if found < task.size:
        raise Failed(f"only {found} of {task.size} bytes came")


def _cap_facts(task: Task, sample: Sample) -> dict[str, float]:
    """
    Return how many connections a run had and what share of their cap it reached.

    ``of_cap`` counts all of the process, ``of_cap_moving`` the time from the first request to the last byte.
    """
    assert task.endpoint.log is not None
    time.sleep(_LOG_SETTLES)
    requests = [request for request in parse_log(task.endpoint.log.read_text(encoding="ascii")) if request.size]
    connections = peak_overlap(requests)
    whole = task.size / (max(1, connections) * CAP)
    between = max(request.ended for request in requests) - min(request.began for request in requests)
    return {"connections": connections, "of_cap": whole / sample.wall, "of_cap_moving": whole / between}


def _warm_turn(contestant: Contestant, task: Task, number: int) -> Sample:
    """Measure a run that finds everything; the first round fetches it beforehand."""
    if number == 0:
        empty(task.folder)
        measure(contestant.command(evolve(task, mode=Mode.FRESH)), task, _limit(task))
    return measure(contestant.command(task), task, _limit(task))


def _resume_turn(contestant: Contestant, task: Task, number: int) -> Sample:
    """Kill a run on its way, measure the one that goes on from there."""
    assert task.endpoint.log is not None
    goal = KILL_AT[number % len(KILL_AT)] * task.size
    process = spawn(contestant.command(task), task)
    try:
        while process.poll() is None and delivered(task.folder) < goal:
            time.sleep(_POLL_SECONDS)
        if process.poll() is not None:
            raise Failed("it had ended before it could be killed; use a larger --size")
    finally:
        kill_group(process)
    time.sleep(_LOG_SETTLES)
    on_disk = delivered(task.folder)
    first = task.endpoint.log.read_text(encoding="ascii")
    os.truncate(task.endpoint.log, 0)
    sample = measure(contestant.command(task), task, _limit(task))
    _check(task)
    time.sleep(_LOG_SETTLES)
    return evolve(sample, extra=resume_facts(first, task.endpoint.log.read_text(encoding="ascii"), on_disk, task.size))


def resume_facts(first: str, second: str, on_disk: int, size: int) -> dict[str, float]:
    """
    Return what a resume cost, from the access logs of the killed and of the second run.

    ``again`` are bytes that were on disk when the run was killed and came once more; ``twice`` are all that the server
    sent beyond the size, what the kernel held for the dead connections included; ``part`` is the largest request.
    """
    killed, resumed = parse_log(first), parse_log(second)
    ranged = [request.size for request in resumed if request.status == 206]
    return {
        "again": max(0, on_disk - (size - sent(resumed))),
        "twice": max(0, sent(killed) + sent(resumed) - size),
        "connections": max(peak_overlap(killed), peak_overlap(resumed)),
        "part": max(ranged, default=0),
    }


def hide(text: str, arena: Arena) -> str:
    """Return a message without this machine's paths, and without what signs an address."""
    for folder in (arena.destination, arena.folder):
        text = text.replace(str(folder), "...")
    return re.sub(r"\?\S+", "?...", text)[:_SAID]


def _tell(result: CaseResult, name: str, number: int) -> None:
    if name in result.missing:
        said = f"not measured: {result.missing[name]}"
    else:
        last = result.samples[name][-1]
        extra = ", ".join(f"{key} {value:.4g}" for key, value in last.extra.items())
        said = f"{last.wall:.2f} s, {last.cpu:.2f} CPU s, {last.rss / MIB:.0f} MiB, others {last.others:.1f} s {extra}"
    print(f"{result.case.name} {number + 1}: {name}: {said}", file=sys.stderr, flush=True)
