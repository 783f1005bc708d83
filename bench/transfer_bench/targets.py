"""The targets of the transfer engine, and by how much each is met or missed; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from transfer_bench.contestants import OURS, OURS_SHA256
from transfer_bench.records import MIB, Sample
from transfer_bench.rounds import CaseResult
from transfer_bench.stats import ratios, summarize

__all__ = ["Verdict", "judge"]

PART: Final = 128 * MIB
"""The most that one request of ours asks for."""
_REFERENCES: Final = frozenset({OURS, OURS_SHA256, "curl, sha256sum", "curl, fsync", "python -c pass"})
"""Not peers: ours, or more than a peer does."""

_LARGE: Final = ("one", "shards", "s3-one", "s3-shards")


@frozen(kw_only=True)
class Verdict:
    """
    One target in one case.

    Attributes:
        found: The figure. None when it was not measured.
        limit: The target.
        at_least: Whether the figure has to be at least the limit instead of at most.
        what: What was compared, and why nothing was found.
    """

    case: str
    target: str
    limit: float
    found: float | None
    at_least: bool = False
    what: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is met. None when it was not measured."""
        if self.found is None:
            return None
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def show(self) -> str:
        """Return ``met`` or ``missed`` and by how much."""
        if self.found is None:
            return f"not measured: {self.what}"
        if self.met:
            return "met"
        off = self.limit / self.found if self.at_least else self.found / self.limit
        return f"missed by {(off - 1) * 100:.0f} %"


Results = Mapping[str, CaseResult]


def judge(results: Results) -> list[Verdict]:
    """Return every target for which a case was run."""
    return [*_large(results), *_cpu(results), *_small(results), *_special(results), *_memory(results)]


def fastest_peer(result: CaseResult) -> str | None:
    """Return the peer with the smallest median time."""
    peers = {name: runs for name, runs in result.samples.items() if name not in _REFERENCES}
    if not peers:
        return None
    return min(peers, key=lambda name: summarize(sample.wall for sample in peers[name]).median)


def wall_ratio(result: CaseResult, ours: str, theirs: str | None) -> float | None:
    """Return the median over the rounds of our time by theirs."""
    if theirs is None or ours not in result.samples or theirs not in result.samples:
        return None
    walls = [[sample.wall for sample in result.samples[name]] for name in (ours, theirs)]
    return summarize(ratios(*walls)).median


def _large(results: Results) -> Iterator[Verdict]:
    for name in _LARGE:
        if name not in results:
            continue
        result = results[name]
        peer = fastest_peer(result)
        for ours, limit in ((OURS, 1.0), (OURS_SHA256, 1.2)):
            if ours in result.case.contestants:
                yield _compare(result, f"time of {ours} / fastest peer", ours, peer, limit)
        if "curl, sha256sum" in result.case.contestants:
            yield _compare(result, "time of ours / curl then sha256sum", OURS, "curl, sha256sum", 0.75)


def _compare(result: CaseResult, target: str, ours: str, theirs: str | None, limit: float) -> Verdict:
    found = wall_ratio(result, ours, theirs)
    what = f"against {theirs}" if found is not None else _why(result, ours, theirs)
    return Verdict(case=result.case.name, target=target, limit=limit, found=found, what=what)


def _why(result: CaseResult, *names: str | None) -> str:
    if result.skipped:
        return result.skipped
    reasons = [
        f"{name}: {result.missing.get(name, 'not asked for')}" for name in names if name and name not in result.samples
    ]
    return "; ".join(reasons) or "no peer was measured"


def _cpu(results: Results) -> Iterator[Verdict]:
    for name, limit in (("one", 2.0), ("shards", 2.0), ("tls", 1.6)):
        if name not in results:
            continue
        result = results[name]
        found = None
        if OURS in result.samples and "curl" in result.samples:
            pairs = [[sample.cpu for sample in result.samples[key]] for key in (OURS, "curl")]
            found = summarize(ratios(*pairs)).median
        what = "against curl" if found is not None else _why(result, OURS, "curl")
        yield Verdict(case=name, target="CPU seconds per GiB / curl", limit=limit, found=found, what=what)


def _small(results: Results) -> Iterator[Verdict]:
    wanted = (
        ("small", "aria2c", 1.0, "files per second / aria2c"),
        ("small", "curl --parallel", 1 / 3, "files per second / curl --parallel"),
        ("s3-small", "s5cmd", 1.0, "files per second / s5cmd"),
    )
    for name, peer, limit, target in wanted:
        if name in results:
            ratio = wall_ratio(results[name], OURS, peer)
            found = None if ratio is None else 1 / ratio
            what = f"against {peer}" if found is not None else _why(results[name], OURS, peer)
            yield Verdict(case=name, target=target, limit=limit, found=found, at_least=True, what=what)


def _special(results: Results) -> Iterator[Verdict]:
    if "cap" in results:
        yield _figure(results["cap"], "share of connections x cap", 0.95, "of_cap", at_least=True)
        yield _of_possible(results)
    if "resume" in results:
        result = results["resume"]
        runs = result.samples.get(OURS, [])
        found = max((_parts_again(run) for run in runs), default=None)
        what = _why(result, OURS) if found is None else "bytes sent twice / (connections x part), the worst run"
        yield Verdict(case="resume", target="parts per connection again", limit=1.0, found=found, what=what)
    if "warm" in results:
        yield _figure(results["warm"], "seconds, interpreter start included", 0.3, "")


def _of_possible(results: Results) -> Verdict:
    """Compare with the time that the same file takes at the least: through so many connections, and without a cap."""
    runs, uncapped = results["cap"].samples.get(OURS, []), results.get("one")
    found, what = None, "needs the case one, of the same size"
    if runs and uncapped is not None and OURS in uncapped.samples:
        fastest = summarize(run.wall for run in uncapped.samples[OURS]).median
        found = summarize(max(run.extra["of_cap"] * run.wall, fastest) / run.wall for run in runs).median
        what = "the smaller of connections x cap and of what ours reaches without a cap"
    target = "share of what connections and machine allow"
    return Verdict(case="cap", target=target, limit=0.95, found=found, at_least=True, what=what)


def _parts_again(run: Sample) -> float:
    part = min(PART, run.extra["part"] or PART)
    return run.extra["twice"] / (max(1.0, run.extra["connections"]) * part)


def _figure(result: CaseResult, target: str, limit: float, key: str, *, at_least: bool = False) -> Verdict:
    runs = result.samples.get(OURS, [])
    found = summarize(run.extra[key] if key else run.wall for run in runs).median if runs else None
    what = "" if runs else _why(result, OURS)
    return Verdict(case=result.case.name, target=target, limit=limit, found=found, at_least=at_least, what=what)


def _memory(results: Results) -> Iterator[Verdict]:
    peaks = {
        name: max(run.rss for key in (OURS, OURS_SHA256) for run in result.samples.get(key, []))
        for name, result in results.items()
        if OURS in result.samples
    }
    if peaks:
        worst = max(peaks, key=lambda name: peaks[name])
        yield Verdict(
            case="all", target="peak memory in MiB", limit=150, found=peaks[worst] / MIB, what=f"the most, in {worst}"
        )
