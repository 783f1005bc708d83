"""A plot of what was measured, as SVG and without a plotting library; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape

from attrs import frozen

from transfer_bench.contestants import OURS
from transfer_bench.records import Mode
from transfer_bench.rounds import CaseResult
from transfer_bench.stats import Summary, ratios, summarize

__all__ = ["Bar", "bars", "draw"]

_LABELS: Final = 190
_WIDTH: Final = 760
_ROW: Final = 20
_HEAD: Final = 34
_MOST: Final = 4.0
_PAPER: Final = '<path fill="#fff" d="M0 0h9999v9999H0z"/>'
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#333}.h{font-weight:bold}.s{fill:#7aa6c2}.f{fill:#d98b5f}"
    ".w{stroke:#333;stroke-width:1}.one{stroke:#555;stroke-dasharray:4 3}"
)


@frozen(kw_only=True)
class Bar:
    """One contestant of one case: its time as a multiple of ours."""

    case: str
    name: str
    times: Summary


def bars(results: Iterable[CaseResult]) -> list[Bar]:
    """Return a bar for everyone who was measured beside ours; a warm start is no race."""
    found = []
    for result in results:
        if OURS not in result.samples or result.case.mode is Mode.WARM:
            continue
        ours = [run.wall for run in result.samples[OURS]]
        for name, runs in result.samples.items():
            if name != OURS:
                times = summarize(ratios([run.wall for run in runs], ours))
                found.append(Bar(case=result.case.name, name=name, times=times))
    return found


def draw(found: Iterable[Bar]) -> str:
    """Return the plot; what is right of the line took longer than ours."""
    lines: list[str] = []
    top, case = 24, ""
    for bar in found:
        if bar.case != case:
            case = bar.case
            top += _HEAD
            lines.append(f'<text class="h" x="4" y="{top - 6}">{escape(case)}</text>')
        lines += _bar(bar, top)
        top += _ROW
    one = _x(1.0)
    lines.append(f'<line class="one" x1="{one:.1f}" x2="{one:.1f}" y1="24" y2="{top}"/>')
    lines.append(f'<text x="{one + 4:.1f}" y="16">1 = ours; longer bars took more time</text>')
    size = f'width="{_WIDTH}" height="{top + 12}" viewBox="0 0 {_WIDTH} {top + 12}"'
    body = "\n".join(lines)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{_STYLE}</style>\n{_PAPER}\n{body}\n</svg>\n'


def _bar(bar: Bar, top: float) -> list[str]:
    times = bar.times
    kind = "s" if times.median >= 1 else "f"
    start, end, middle = _x(0), _x(times.median), top + 9
    more = "+" if times.median > _MOST else ""
    return [
        f'<text x="16" y="{top + 13}">{escape(bar.name)}</text>',
        f'<rect class="{kind}" x="{start:.1f}" y="{top + 2}" width="{end - start:.1f}" height="14"/>',
        f'<line class="w" x1="{_x(times.low):.1f}" x2="{_x(times.high):.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{max(end, _x(times.high)) + 6:.1f}" y="{top + 13}">{times.median:.2f}{more}</text>',
    ]


def _x(times: float) -> float:
    """Return where a multiple of ours is; beyond the end everything is at the end."""
    return _LABELS + min(times, _MOST) / _MOST * (_WIDTH - _LABELS - 60)
