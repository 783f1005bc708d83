"""
Transfers, ours against other tools: in one run, on the same server and disk, in rounds.

    python bench/transfer.py [--quick] [--cases NAME ...] [--peers NAME ...] [--runs N] [--install DIR] [--record]

What is not installed is named in the report. ``--install DIR`` brings it: pip packages into environments below DIR,
Debian's packages where this user may. ``--dest DIR`` is where contestants write, such as a folder in memory to see what
is left without the disk. ``--profile`` writes where the time of ours goes. The modules are in ``transfer_bench``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from attrs import evolve
from transfer_bench.cases import CASES, Case
from transfer_bench.contestants import CONTESTANTS, OURS, OURS_SHA256
from transfer_bench.plot import bars, draw
from transfer_bench.profiling import profile
from transfer_bench.records import MIB, Failed, Sizes, Skipped
from transfer_bench.report import Facts, as_json, as_markdown, case_section, file_system, machine, target_table
from transfer_bench.rounds import Arena, CaseResult, run_case
from transfer_bench.stats import parse_size
from transfer_bench.targets import judge
from transfer_bench.tools import find_tools, install_tools

RESULTS: Final = Path(__file__).parent / "results"
QUICK: Final = Sizes(one=512 * MIB, shards=6, shard=64 * MIB, small=1000, far=128 * MIB, far_small=100)
_PROBE_BYTES: Final = 512 * MIB


def main() -> None:
    """Measure, print, and keep it when asked to."""
    arguments = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends servers and children, too
    tools = install_tools(arguments.install) if arguments.install else find_tools(None)
    for name, reason in tools.missing.items():
        print(f"missing: {name}: {reason}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="nim-bench-", dir=arguments.work) as folder:
        destination = Path(tempfile.mkdtemp(prefix="nim-bench-", dir=arguments.dest or folder))
        try:
            with Arena(folder=Path(folder), destination=destination, tools=tools, sizes=sizes(arguments)) as arena:
                work(arguments, arena)
        finally:
            shutil.rmtree(destination, ignore_errors=True)


def parser() -> argparse.ArgumentParser:
    """Return what the command line may have."""
    made = argparse.ArgumentParser(description="transfers, ours against other tools")
    made.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES], metavar="NAME", help=", ".join(CASES))
    peers = [slug(name) for name in CONTESTANTS]
    made.add_argument("--peers", nargs="+", choices=peers, default=peers, metavar="NAME", help=", ".join(peers))
    made.add_argument("--runs", type=int, help="rounds; 5, or 2 with --quick")
    made.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast it is")
    made.add_argument("--size", type=parse_size, help="of the large file, such as 1G")
    made.add_argument("--shards", type=int, help="number of shards of 128 MiB")
    made.add_argument("--files", type=int, help="number of small files")
    made.add_argument("--work", type=Path, help="folder for everything that is needed meanwhile")
    made.add_argument("--dest", type=Path, help="folder that contestants write below, when it is to be another")
    made.add_argument("--install", type=Path, metavar="DIR", help="install what is missing")
    made.add_argument("--record", action="store_true", help="write the figures to bench/results/")
    made.add_argument("--profile", action="store_true", help="write profiles of ours instead of measuring")
    return made


def slug(name: str) -> str:
    """Return a contestant's name as it is written on the command line."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def sizes(arguments: argparse.Namespace) -> Sizes:
    """Return how much is transferred."""
    chosen = {"one": arguments.size, "shards": arguments.shards, "small": arguments.files}
    return evolve(QUICK if arguments.quick else Sizes(), **{key: value for key, value in chosen.items() if value})


def work(arguments: argparse.Namespace, arena: Arena) -> None:
    """Do what the command line asks for."""
    if arguments.profile:
        write_profiles(arguments.cases, arena)
        return
    rounds = arguments.runs or (2 if arguments.quick else 5)
    facts = gather(arena, rounds, arguments)
    results = []
    for case in (CASES[name] for name in CASES if name in arguments.cases):
        result = run_case(case, arena, names_for(case, arguments.peers), rounds)
        print(case_section(result), end="\n\n", flush=True)
        results.append(result)
    verdicts = judge({result.case.name: result for result in results})
    print(target_table(verdicts))
    if arguments.record:
        record(results, facts)


def names_for(case: Case, peers: list[str]) -> list[str]:
    """Return who takes part in a case: ours always."""
    return [name for name in case.contestants if name in {OURS, OURS_SHA256} or slug(name) in peers]


def gather(arena: Arena, rounds: int, arguments: argparse.Namespace) -> Facts:
    """Return what the report says about this machine and this run."""
    words = [word for word in sys.argv[1:] if not word.startswith(("--install", "--work", "--dest", "/"))]
    return Facts(
        machine=machine(),
        file_system=file_system(arena.destination) + (" (--dest)" if arguments.dest else ""),
        disk=disk_speed(arena.destination),
        rounds=rounds,
        versions=arena.tools.versions(),
        missing=arena.tools.missing,
        repeat=" ".join(["python bench/transfer.py", *words]),
    )


def disk_speed(folder: Path) -> str:
    """Return how fast the destination takes bytes, and how fast it makes them durable."""
    block, path = os.urandom(8 * MIB), folder / "probe"
    began = time.monotonic()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for _ in range(_PROBE_BYTES // len(block)):
        os.write(handle, block)
    written = time.monotonic()
    os.fsync(handle)
    durable = time.monotonic()
    os.close(handle)
    path.unlink()
    speeds = [_PROBE_BYTES / MIB / (end - began) for end in (written, durable)]
    return f"which took {speeds[0]:,.0f} MiB/s, {speeds[1]:,.0f} MiB/s with fsync, before the first round"


def record(results: list[CaseResult], facts: Facts) -> None:
    """Write report, figures and plot."""
    RESULTS.mkdir(exist_ok=True)
    verdicts = judge({result.case.name: result for result in results})
    (RESULTS / "transfer.svg").write_text(draw(bars(results)), encoding="utf-8")
    (RESULTS / "transfer.md").write_text(as_markdown(results, verdicts, facts, "transfer.svg"), encoding="utf-8")
    figures = json.dumps(as_json(results, verdicts, facts), indent=1, default=str)
    (RESULTS / "transfer.json").write_text(figures + "\n", encoding="utf-8")


def write_profiles(cases: list[str], arena: Arena) -> None:
    """Write ``transfer-profile-CASE.txt`` for each case."""
    RESULTS.mkdir(exist_ok=True)
    for name in cases:
        try:
            text = profile(name, arena)
        except (Skipped, Failed) as exc:
            print(f"{name}: not profiled: {exc}")
            continue
        (RESULTS / f"transfer-profile-{name}.txt").write_text(text + "\n", encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
