"""Bytes that do not come over HTTP: streams of a source without URLs, and files that are on this machine already."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Final

from nim_core.errors import NimError, PluginError, TransientError
from nim_core.transfer.digests import StreamDigest, algorithms_to_check
from nim_core.transfer.exchange import Ended, Response
from nim_core.transfer.sinks import FileSink, MemorySink
from nim_core.types import Digest, StreamObject

__all__ = ["copy_stream", "digest_file"]

_READ_BYTES: Final = 1 << 20


def copy_stream(stream: StreamObject, sink: FileSink | MemorySink, stopped: Callable[[], bool]) -> Ended:
    """Copy a stream into ``sink`` and report as a request would have ended; what went wrong is in ``error``."""
    error: BaseException | None = None
    try:
        with closing(_pieces(stream)) as pieces:
            for data in pieces:
                if stopped():
                    raise InterruptedError("interrupted while reading a stream")
                sink.write(data)
        sink.finish()
    except BaseException as exc:  # noqa: BLE001 - judged by the engine like any other end
        error = exc
    return Ended(
        response=Response(status=200),
        accepted=True,
        code=0,
        message="",
        error=error,
        address="",
        connected=True,
        seconds=0.0,
    )


def _pieces(stream: StreamObject) -> Generator[bytes, None, None]:
    """Yield what a stream has. What it raises is its source's failure, even where it is an OSError."""
    try:
        with stream.open() as source:
            while data := source.read(_READ_BYTES):
                yield data
    except NimError:
        raise
    except OSError as exc:
        raise TransientError(f"stream broke: {exc.strerror or type(exc).__name__}") from exc
    except Exception as exc:
        raise PluginError(f"stream failed: {type(exc).__name__}", hint="report this to the plugin's authors") from exc


def digest_file(
    path: Path, expected: tuple[Digest, ...], stopped: Callable[[], bool]
) -> tuple[int, tuple[Digest, ...]]:
    """
    Return size and digests of a file, as :func:`~nim_core.transfer.digests.algorithms_to_check` chooses them.

    Raises:
        OSError: The file cannot be read.
        InterruptedError: ``stopped`` said so.
    """
    size = path.stat().st_size
    digest = StreamDigest(algorithms_to_check(expected, size), size)
    buffer = memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as source:
        while count := source.readinto(buffer):
            if stopped():
                raise InterruptedError(f"interrupted while reading: {path}")
            digest.update(buffer[:count])
    return size, digest.digests()
