"""The live display of a download on a terminal, drawn by rich below the log lines and gone when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nim_core.cli.render import progress_text
from nim_core.cli.tally import ActiveFile, Snapshot, Tally
from nim_core.cli.units import fraction, size

__all__ = ["draw", "live_progress"]

_FILES_SHOWN: Final = 4
_BAR_WIDTH: Final = 24
_COUNT_WIDTH: Final = len("99.9/99.9 GB")
_REFRESHES_PER_SECOND: Final = 6


@contextmanager
def live_progress(tally: Tally) -> Iterator[Callable[[str], None]]:
    """Draw ``tally`` while the context lasts; gives the way to write a line above the display."""
    console = Console(stderr=True)

    def write(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    with Live(
        console=console,
        get_renderable=lambda: draw(tally.snapshot()),
        refresh_per_second=_REFRESHES_PER_SECOND,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield write


def draw(snapshot: Snapshot) -> RenderableType:
    """Return what is shown: one line for all, one for each of a few files under way."""
    if not snapshot.phase:
        return Text("starting")
    lines: list[RenderableType] = [Text(progress_text(snapshot), style="bold", no_wrap=True, overflow="ellipsis")]
    if snapshot.phase == "fetching" and snapshot.files is not None:
        lines = [_total_line(snapshot), _file_lines(snapshot.active)]
        hidden = len(snapshot.active) - _FILES_SHOWN
        lines += [Text(f"  and {hidden} more", style="dim")] if hidden > 0 else []
    return Group(*lines)


def _total_line(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=_BAR_WIDTH)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    share = snapshot.share
    bar = ProgressBar(total=None if share is None else 1.0, completed=share or 0.0, width=_BAR_WIDTH)
    grid.add_row(bar, Text(progress_text(snapshot), style="bold"))
    return grid


def _file_lines(active: tuple[ActiveFile, ...]) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=False)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, justify="right", min_width=_COUNT_WIDTH)
    for file in active[:_FILES_SHOWN]:
        done = size(file.done) if file.total is None else fraction(file.done, file.total)
        grid.add_row(Text(f"  {file.name}"), Text(done))
    return grid
