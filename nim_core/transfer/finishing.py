"""
From bytes to a visible file: digests follow what has come, are compared with what was promised, and good files are
published, all that have gathered at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.errors import NimError
from nim_core.transfer.frontier import Frontier, HashPool
from nim_core.transfer.jobs import FileTask, Part, Verified
from nim_core.transfer.journal import Scratch
from nim_core.transfer.landing import Landing, written
from nim_core.transfer.storage import storage_error
from nim_core.transfer.streams import digest_file
from nim_core.transfer.workers import Batcher
from nim_core.types import Digest

__all__ = ["Finishing", "Outcomes"]

_PUBLISH_BATCH: Final = 512
_HELD_BYTES: Final = 32 << 20
"""Bytes of small files that may wait in memory to be published."""

_SETTLING_FILES: Final = 64
"""Large files that may wait for their digest, each with two open files, before another is begun."""


@frozen(kw_only=True)
class Outcomes:
    """
    What is done on the deciding thread about files whose bytes are here.

    Attributes:
        damaged: Given a part that an earlier process left and that is not as it was.
        wrong: Given a file whose content or size is not as promised, and whether a new fetch could change that.
        published: Given a file that is visible now, and its size in bytes.
        failed: Given what went wrong on a thread.
    """

    damaged: Callable[[FileTask, Part], None]
    wrong: Callable[[FileTask, NimError, bool], None]
    published: Callable[[FileTask, int], None]
    failed: Callable[[BaseException], None]


class Finishing:
    """
    Digests, comparison and publication of the files of a run.

    Args:
        folder: Where small files are written before they are published.
        threads: Threads that compute digests.
        verify: Whether expected digests are compared.
        publish: Makes verified files visible; called on one thread, with all that have gathered.
        post: Has something done on the deciding thread, the one that calls every method here.
        outcomes: What is done then.

    Raises:
        CacheError: In its most fitting subclass: nothing can be written to ``folder``.
    """

    def __init__(
        self,
        *,
        folder: Path,
        threads: int,
        verify: bool,
        publish: Callable[[Sequence[Verified]], None],
        post: Callable[[Callable[[], None]], None],
        outcomes: Outcomes,
    ) -> None:
        self._verify = verify
        self._publish = publish
        self._post = post
        self._outcomes = outcomes
        self._stopping = False
        self._held = 0
        self._frontiers: dict[FileTask, Frontier] = {}
        self._settling: set[FileTask] = set()
        self._early: dict[FileTask, tuple[Frontier, tuple[Digest, ...]]] = {}
        try:
            self._scratch = Scratch(folder)
        except OSError as exc:
            raise storage_error(exc, folder) from exc
        self._hashing = HashPool(threads, outcomes.failed)
        self._publisher: Batcher[Landing] = Batcher("nim-publish", _PUBLISH_BATCH, self._handle, outcomes.failed)

    @property
    def crowded(self) -> bool:
        """Whether so much waits in memory that nothing more should be asked for."""
        return self._held >= _HELD_BYTES

    @property
    def backlog(self) -> bool:
        """Whether so many large files wait for their digest that none should be begun."""
        return len(self._settling) >= _SETTLING_FILES

    @property
    def settling(self) -> Sequence[FileTask]:
        """The files of which all bytes are here and that wait for their digest."""
        return tuple(self._settling)

    def stop(self, seconds: float) -> bool:
        """
        End the threads, waiting for each kind up to ``seconds``, and remove what is not published.

        Returns:
            Whether nothing is being published any more.
        """
        self._stopping = True
        self._hashing.stop(seconds)
        ended = self._publisher.stop(seconds)
        self._scratch.remove()
        return ended

    # ----------------------------------------------------------------------------------------- files that are on disk
    def follow(self, task: FileTask) -> None:
        """Have a new digest follow the bytes of a file with a partial, from its beginning."""
        frontier = Frontier(
            task,
            damaged=lambda part: self._post(lambda: self._damaged(task, frontier, part)),
            finished=lambda digests: self._post(lambda: self._hashed(task, frontier, digests)),
        )
        self._frontiers[task] = frontier
        self._hashing.poke(frontier)

    def position(self, task: FileTask) -> int:
        """Return how many bytes of a file the digest has seen."""
        frontier = self._frontiers.get(task)
        return 0 if frontier is None else frontier.position

    def poke(self, task: FileTask) -> None:
        """Have the digest go on; from any thread."""
        frontier = self._frontiers.get(task)
        if frontier is not None:
            self._hashing.poke(frontier)

    def part_ended(self, task: FileTask) -> None:
        """Learn that a part is complete and its request has ended."""
        if task in self._early and not task.in_flight:
            self._hashed(task, *self._early.pop(task))
        self.poke(task)
        if task.complete and not task.in_flight:
            self._settling.add(task)

    def recall(self, task: FileTask) -> None:
        """Learn that a file is fetched again from its beginning, and have no digest follow its bytes any more."""
        self._settling.discard(task)
        self._early.pop(task, None)
        frontier = self._frontiers.pop(task, None)
        if frontier is not None:
            frontier.abandoned = True

    def _damaged(self, task: FileTask, frontier: Frontier, part: Part) -> None:
        if self._frontiers.get(task) is frontier:
            self._settling.discard(task)
            self._outcomes.damaged(task, part)

    def _hashed(self, task: FileTask, frontier: Frontier, digests: tuple[Digest, ...]) -> None:
        if self._frontiers.get(task) is not frontier or task.partial is None:
            return
        if task.in_flight:  # the last byte is here, but its request has not ended
            self._early[task] = (frontier, digests)
            return
        self._publisher.put(Landing(task=task, path=task.partial.path, digests=digests))

    # -------------------------------------------------------------------------------- files that came in another way
    def take(self, task: FileTask, data: bytearray) -> None:
        """Take a whole small file."""
        self._held += len(data)
        self._publisher.put(Landing(task=task, path=self._scratch.folder / task.job.id, data=data))

    def take_local(self, task: FileTask, path: Path) -> None:
        """Take a file that is on this machine already; it is read only where there is something to check it against."""
        self._hashing.submit(lambda: self._check_local(task, path))

    def _check_local(self, task: FileTask, path: Path) -> None:
        expected = task.job.file.digests if self._verify else ()
        size = path.stat().st_size
        digests: tuple[Digest, ...] = ()
        if expected:
            size, digests = digest_file(path, expected, lambda: self._stopping)
        task.size = size
        self._publisher.put(Landing(task=task, path=path, digests=digests, outside=True))

    # -------------------------------------------------------------------------- comparison, on the publisher's thread
    def _handle(self, batch: list[Landing]) -> None:
        good: list[tuple[Landing, Verified]] = []
        for landing in map(written, batch):
            error = landing.task.mismatch(landing.digests, verify=self._verify)
            if error is not None:
                self._post(partial(self._wrong, landing, error))
            else:
                good.append((landing, landing.verified()))
        if good:
            self._publish([verified for _, verified in good])
            self._post(partial(self._published, good))

    def _wrong(self, landing: Landing, error: NimError) -> None:
        if landing.data is not None:
            self._held -= len(landing.data)
            landing.path.unlink(missing_ok=True)
        self._outcomes.wrong(landing.task, error, not landing.outside)

    def _published(self, batch: Sequence[tuple[Landing, Verified]]) -> None:
        for landing, verified in batch:
            task = landing.task
            self._held -= len(landing.data or b"")
            self._frontiers.pop(task, None)
            self._early.pop(task, None)
            self._settling.discard(task)
            self._outcomes.published(task, verified.size)
