"""Files of which all bytes are here, on their way to being published."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve, frozen

from nim_core.transfer.digests import StreamDigest, algorithms_to_check
from nim_core.transfer.jobs import FileTask, Verified
from nim_core.transfer.ownership import succeeded
from nim_core.transfer.streams import digest_file
from nim_core.types import Digest

__all__ = ["Landing", "written"]


@frozen(kw_only=True)
class Landing:
    """
    A file of which all bytes are here.

    Attributes:
        path: Where the bytes are, or where ``data`` is to be written.
        data: The bytes of a small file. None for one that is on disk.
        digests: What was computed; empty where ``data`` has yet to be read.
        outside: As in :class:`~nim_core.transfer.jobs.Verified`.
    """

    task: FileTask
    path: Path
    data: bytearray | None = None
    digests: tuple[Digest, ...] = ()
    outside: bool = False

    def verified(self) -> Verified:
        """Return what is published."""
        task = self.task
        return Verified(
            job=task.job,
            path=self.path,
            size=task.size or 0,
            digests=self.digests,
            host=task.host or None,
            outside=self.outside,
        )


def _completed(landing: Landing) -> Landing:
    """Return a file with the digests that could not be computed while its size was unknown; it is read once more."""
    expected = landing.task.job.file.digests
    wanted = set(algorithms_to_check(expected, landing.task.size)) - {digest.algorithm for digest in landing.digests}
    if not landing.digests or not wanted:
        return landing
    return evolve(landing, digests=digest_file(landing.path, expected, lambda: False)[1])


def written(landing: Landing) -> Landing:
    """
    Return a small file as one that is on disk, with its digests.

    Raises:
        CacheBusyError: Another process has taken over what it is written to, or was fetched to.
    """
    data = landing.data
    if landing.task.partial is not None:
        landing.task.partial.check_owned()
    if data is None:
        return _completed(landing)
    digest = StreamDigest(algorithms_to_check(landing.task.job.file.digests, len(data)), len(data))
    digest.update(memoryview(data))
    try:
        landing.path.write_bytes(data)
    except FileNotFoundError as exc:
        raise succeeded(landing.path.parent) from exc
    return evolve(landing, digests=digest.digests())
