"""Downloads of a shelf's model that are killed, and what has to hold afterwards."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import define, field

from nim_core.testing.corpus import Content
from tests.crash.commands import PART_BYTES, command, environment
from tests.crash.metering import PIECE, Meter
from tests.faults.invariants import Digests, violations
from tests.faults.shelf import snapshot_of

__all__ = ["HEAD", "SECONDS", "SIGNALS", "Killings", "dangling", "leftovers"]

SIGNALS = {signal.SIGKILL: 8, signal.SIGTERM: 1, signal.SIGINT: 1}
"""How often each is sent, relative to the others."""

GRACEFUL = {signal.SIGTERM: 143, signal.SIGINT: 130}
SECONDS = 60
CHECKPOINT = 8 << 20
UNWRITTEN = 256 << 10
BUFFERS = 2 << 20
"""What may have been sent and not been received yet."""

_NEXT_TO_NOTHING = 4096
REAL_PART = 32 << 20


HEAD = (
    "what is killed",
    "SIGKILL",
    "SIGTERM",
    "SIGINT",
    "downloads",
    "MB each",
    "MB again per kill",
    "MB allowed per kill",
    "sent / wanted",
    "requests at once",
)
"""Of :meth:`Killings.row`."""


@define
class Killings:
    """
    Downloads into one cache after another, each killed and resumed until it is complete.

    Attributes:
        name: What the table calls it.
        meter: Counts what the origin sends.
        url: The origin.
        installed: Where the shelf's plugin is installed.
        folder: Where caches are made.
        small: Whether parts are small.
        chance: Draws signals and moments.
        connections: How many requests there may be at once.
        usual: Seconds that an undisturbed download takes.
        idle: Seconds that the command takes when all is there.
        sent: How often each signal ended a process.
        complete: How many downloads have been completed.
        allowed: Bytes that may have been sent more often than once, in all.
        largest: The most requests for files that were answered at once.
    """

    name: str
    meter: Meter
    url: str
    installed: Path
    folder: Path
    chance: random.Random
    connections: int
    small: bool = False
    usual: float = 0.0
    idle: float = 0.0
    sent: Counter[signal.Signals] = field(factory=Counter)
    complete: int = 0
    allowed: int = 0
    largest: int = 0
    _in_a_row: int = 0
    _digests: Digests = field(factory=Digests)

    @property
    def cache(self) -> Path:
        """The cache of the download that is going on."""
        return self.folder / f"cache-{self.complete}"

    @property
    def log(self) -> Path:
        """What the last processes said."""
        return self.folder / "log"

    @property
    def cost(self) -> int:
        """Bytes of files that were sent more often than once, of downloads that are complete."""
        return self.meter.served - self.complete * self.meter.total

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command on the cache."""
        variables = environment(self.url, self.cache, self.installed)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command(f"--max-connections={self.connections}", small=self.small),
                env=variables,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def measure(self) -> None:
        """Download once without a kill, which sends every byte once and tells how long it takes."""
        self.usual = self._seconds()
        self.idle = self._seconds()
        assert self.meter.served == self.meter.total
        self.finish()

    def _seconds(self) -> float:
        began = time.monotonic()
        assert self.start().wait(SECONDS) == 0, self.said
        return time.monotonic() - began

    def left(self) -> float:
        """Return about how many seconds the next run takes."""
        there = _bytes_on_disk(self.cache, "tmp/*/data") + _bytes_on_disk(self.cache, "*/hub/*/blobs/*")
        missing = max(0.0, 1 - there / self.meter.total)
        return self.idle + missing * max(0.0, self.usual - self.idle)

    @property
    def said(self) -> str:
        """The end of what processes said."""
        return self.log.read_text(errors="replace")[-3000:]

    def run(self) -> bool:
        """Run the command, killed at a random moment or not; return whether it completed."""
        (number,) = self.chance.choices(list(SIGNALS), SIGNALS.values())
        self.meter.begin()
        self.log.write_bytes(b"")
        process = self.start()
        delay = self.chance.uniform(0, self.left() * (1 + self._in_a_row / 5))
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        code = process.wait(SECONDS)
        self.check_end(code, number)
        self.count(number if code else None)
        return code == 0

    def check_end(self, code: int, number: signal.Signals) -> None:
        """Check that a process ended as it was told to, or had completed before."""
        said = self.said
        handled = "Downloading model" in said and "complete:" not in said  # else Python itself begins or ends
        allowed = {GRACEFUL.get(number, -number)} if handled else {GRACEFUL.get(number), -number, 1}
        assert code in {0, *allowed}, (number, code, said)

    def count(self, number: signal.Signals | None) -> None:
        """Note how a process ended and what that may cost, and look at the cache."""
        self.largest = max(self.largest, self.meter.most)
        if number is not None:
            self.sent[number] += 1
            self._in_a_row += 1
            self.allowed += self.loss(self.meter.most)
        wrong = [*violations(self.cache, self.meter.files, digests=self._digests), *dangling(self.cache)]
        assert not wrong, wrong

    def loss(self, connections: int) -> int:
        """Return how many bytes one kill may cost: what came after the last checkpoint, and small files in memory."""
        part = PART_BYTES if self.small else REAL_PART
        each = min(part, CHECKPOINT + UNWRITTEN + BUFFERS) + PIECE
        return connections * each + sum(file.size for file in self.meter.files.values() if file.size <= 1 << 20)

    def finish(self) -> None:
        """Check a download that is complete, and begin another on a new cache."""
        wrong = violations(self.cache, self.meter.files, complete=True, digests=self._digests)
        wrong += leftovers(self.cache, self.meter.files)
        assert not wrong, wrong
        shutil.rmtree(self.cache)
        self.complete += 1
        self._in_a_row = 0

    def row(self) -> tuple[str, ...]:
        """Return the line of the table."""
        kills = sum(self.sent.values())
        served = self.meter.served
        return (
            self.name,
            *(str(self.sent[number]) for number in SIGNALS),
            str(self.complete),
            _megabytes(self.meter.total),
            _megabytes(self.cost / max(1, kills)),
            _megabytes(self.allowed / max(1, kills)),
            f"{served / (self.complete * self.meter.total):.3f}",
            str(self.largest),
        )


def dangling(cache: Path) -> Iterator[str]:
    """Yield names in the snapshot that lead nowhere: only a loss of power may leave those."""
    for path in snapshot_of(cache).rglob("*"):
        if path.is_symlink() and not path.exists():
            yield str(path.relative_to(cache))


def leftovers(cache: Path, files: Mapping[str, Content]) -> list[str]:
    """
    Return what is in a cache beside the files, their names, refs and receipts.

    What was being made or removed when a process was killed is hidden, next to empty, and left to a later run.
    """
    wanted = {file.digest("blake3").value for file in files.values()}
    places = [*cache.glob("tmp/*"), *cache.glob("*/hub/*/blobs/*"), *cache.rglob(".*")]
    extra = {path for path in places if path.name not in wanted}
    hidden = {path for path in extra if path.name.startswith(".") and _size(path) < _NEXT_TO_NOTHING}
    return sorted(str(path.relative_to(cache)) for path in extra - hidden)


def _size(path: Path) -> int:
    return sum(inside.lstat().st_size for inside in (path, *path.rglob("*")) if not inside.is_dir())


def _bytes_on_disk(cache: Path, pattern: str) -> int:
    return sum(path.stat().st_blocks * 512 for path in cache.glob(pattern))


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f}"
