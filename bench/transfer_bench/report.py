"""What is printed and kept: Markdown and JSON; pure but for looking at this machine."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import asdict, frozen

from transfer_bench.cases import CASES
from transfer_bench.contestants import CONTESTANTS, OURS
from transfer_bench.records import GIB, MIB, Mode, Sample
from transfer_bench.rounds import CaseResult
from transfer_bench.stats import ratios, show_bytes, summarize
from transfer_bench.targets import Verdict

__all__ = ["Facts", "as_json", "as_markdown", "case_table", "file_system", "machine", "target_table"]

_SMALL_BYTES: Final = 1 * MIB
_EXTRA: Final = {
    "of_cap": "share of connections x cap",
    "of_cap_moving": "same, first request to last byte",
    "connections": "connections",
    "again": "MiB on disk fetched again",
    "twice": "MiB sent twice",
}


@frozen(kw_only=True)
class Facts:
    """Where and how it was measured."""

    machine: str
    file_system: str
    disk: str
    rounds: int
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    repeat: str


def machine() -> str:
    """Return what this machine is, without its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    python = ".".join(platform.python_version_tuple()[:2])
    kernel = platform.release().split(".")[0]
    return f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, Python {python}, Linux {kernel}"


def file_system(folder: Path) -> str:
    """Return the type of the file system that ``folder`` is on."""
    best, kind = "", "?"
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _device, where, name, *_ = line.split()
        if folder.resolve().is_relative_to(where) and len(where) >= len(best):
            best, kind = where, name
    return kind


def as_markdown(results: Sequence[CaseResult], verdicts: Sequence[Verdict], facts: Facts, plot: str | None) -> str:
    """Return the whole report."""
    sections = [
        "# Transfers, against other tools",
        _how(facts),
        "## Targets",
        target_table(verdicts),
        *([f"![time of each tool as a multiple of ours]({plot})"] if plot else []),
        "## Cases",
        *(case_section(result) for result in results),
        "## Contestants",
        _contestants(facts),
        _where(facts, results),
    ]
    return "\n\n".join(sections) + "\n"


def _how(facts: Facts) -> str:
    return f"""\
Whole processes from start to end, in rounds in which every tool has its turn; servers, source and destination are on
this machine. Ours checks digests and makes data durable before a file becomes visible; the others do neither where it
is not said. Figures are medians of {facts.rounds} rounds with lowest and highest; `ours / it` is the median of the
ratios within the rounds: below 1, ours takes less time."""


def _where(facts: Facts, results: Iterable[CaseResult]) -> str:
    today = datetime.datetime.now(datetime.UTC).date()
    return f"""\
{facts.machine}; destination on {facts.file_system}, {facts.disk}; {today}; {facts.rounds} rounds.
{_disturbance(results)} Repeat with `{facts.repeat}`."""


def _disturbance(results: Iterable[CaseResult]) -> str:
    """Return how many cores were busy with neither a contestant nor its server."""
    every = [run for result in results for runs in result.samples.values() for run in runs]
    if not every:
        return ""
    busy = summarize(run.others / run.wall for run in every)
    return f"Other work kept {busy.show(1)} cores busy meanwhile."


def target_table(verdicts: Sequence[Verdict]) -> str:
    """Return every target with what was found."""
    lines = ["| case | target | limit | found | | |", "|---|---|---|---|---|---|"]
    for verdict in verdicts:
        found = "" if verdict.found is None else f"{verdict.found:.2f}"
        limit = f"{'≥' if verdict.at_least else '≤'} {verdict.limit:.3g}"
        what = verdict.what if verdict.found is not None else ""
        lines.append(f"| {verdict.case} | {verdict.target} | {limit} | {found} | {verdict.show()} | {what} |")
    return "\n".join(lines)


def case_section(result: CaseResult) -> str:
    """Return heading, table and what is missing of a case."""
    files = show_bytes(result.size) if result.count == 1 else f"{result.count:,} x {show_bytes(result.size)}"
    lines = [f"### {result.case.title}: {files} (`{result.case.name}`)", ""]
    if result.skipped:
        return "\n".join([*lines, f"Not measured: {result.skipped}."])
    lines.append(case_table(result))
    if result.missing:
        lines += ["", *(f"- {name} not measured: {reason}" for name, reason in result.missing.items())]
    return "\n".join(lines)


def case_table(result: CaseResult) -> str:
    """Return the figures of a case."""
    extras = [key for key in _EXTRA if any(key in runs[0].extra for runs in result.samples.values())]
    warm = result.case.mode is Mode.WARM
    speed = [] if warm else ["speed"]
    head = ["", "seconds", "ours / it", *speed, "CPU s" if warm else "CPU s per GiB", "peak MiB"]
    if _many(result):
        head[-2] = "CPU s"
    rows = [head + [_EXTRA[key] for key in extras], ["---"] * (len(head) + len(extras))]
    rows += [_row(result, name, extras) for name in result.samples]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _many(result: CaseResult) -> bool:
    return result.size <= _SMALL_BYTES


def _row(result: CaseResult, name: str, extras: Sequence[str]) -> list[str]:
    runs = result.samples[name]
    warm = result.case.mode is Mode.WARM
    wall = summarize(run.wall for run in runs)
    cpu = summarize(run.cpu for run in runs).median
    shown = f"{cpu:.2f}" if warm or _many(result) else f"{cpu / (result.total / GIB):.2f}"
    row = [name, wall.show(), _ratio(result, name)]
    row += [] if warm else [_speed(result, wall.median)]
    row += [shown, f"{max(run.rss for run in runs) / MIB:.0f}"]
    return row + [_extra(runs, key) for key in extras]


def _ratio(result: CaseResult, name: str) -> str:
    if name == OURS or OURS not in result.samples:
        return ""
    walls = [[run.wall for run in result.samples[key]] for key in (OURS, name)]
    return summarize(ratios(*walls)).show()


def _speed(result: CaseResult, seconds: float) -> str:
    if result.case.mode is not Mode.FRESH:
        return ""
    if _many(result):
        return f"{result.count / seconds:,.0f} files/s"
    return f"{result.total / seconds / MIB:,.0f} MiB/s"


def _extra(runs: Sequence[Sample], key: str) -> str:
    values = [run.extra[key] / (MIB if key in {"again", "twice"} else 1) for run in runs if key in run.extra]
    if not values:
        return ""
    return summarize(values).show(3 if key.startswith("of_cap") else 0)


def _contestants(facts: Facts) -> str:
    lines = []
    for contestant in CONTESTANTS.values():
        version = facts.versions.get(contestant.tool or "", "")
        reason = facts.missing.get(contestant.tool or "")
        missing = f" (missing: {reason})" if reason else ""
        lines.append(f"- **{contestant.name}** {version}: {contestant.note}{missing}")
    servers = [f"{name} {facts.versions[name]}" for name in ("nginx", "weed") if name in facts.versions]
    return "\n".join([*lines, f"- servers: {', '.join(servers)}"]).replace("** :", "**:")


def as_json(results: Iterable[CaseResult], verdicts: Iterable[Verdict], facts: Facts) -> dict[str, Any]:
    """Return all figures, to be compared with later ones."""
    cases = {}
    for result in results:
        cases[result.case.name] = {
            "files": result.count,
            "bytes": result.size,
            "skipped": result.skipped,
            "missing": result.missing,
            "samples": {name: [asdict(run) for run in runs] for name, runs in result.samples.items()},
        }
    judged = [asdict(verdict) | {"met": verdict.met} for verdict in verdicts]
    return {"facts": asdict(facts), "cases": {name: cases[name] for name in CASES if name in cases}, "targets": judged}
