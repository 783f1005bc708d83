"""Files that only Xet storage can serve, through its own client."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast

from nim_core.errors import TransientError, UnsupportedError
from nim_core.types import RemoteFile, Secret, StreamObject


def xet_object(name: str, file: RemoteFile, *, refresh: str, headers: Mapping[str, Secret]) -> StreamObject:
    """
    Return a file of Xet storage as a stream.

    Args:
        name: What the storage calls it.
        file: The file.
        refresh: URL where the endpoint gives out tokens for the storage.
        headers: What signs in to the endpoint.

    Raises:
        UnsupportedError: The storage's client is not installed, or too old to stream.
    """
    try:
        from hf_xet import XetFileInfo, XetSession
    except ImportError as exc:
        hint = "pip install 'nim-source-hf[xet]'"
        raise UnsupportedError(f"only Xet storage has {file.path}, and its client is missing", hint=hint) from exc

    def pieces() -> Iterator[bytes]:
        signed = {key: value.reveal() for key, value in headers.items()}
        group = XetSession().new_download_stream_group(token_refresh_url=refresh, token_refresh_headers=signed)
        yield from group.download_stream(XetFileInfo(name, file.size))

    return StreamObject(open=lambda: cast(BinaryIO, io.BufferedReader(_Pieces(file, pieces()))))


class _Pieces(io.RawIOBase):
    """A stream made of pieces; whatever stops them is the storage's failure, be it told or be it an early end."""

    def __init__(self, file: RemoteFile, pieces: Iterator[bytes]) -> None:
        self._file = file
        self._pieces = pieces
        self._given = 0
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            while not self._rest:
                self._rest = memoryview(next(self._pieces))
        except StopIteration:
            if self._given < (self._file.size or 0):
                raise TransientError(f"Xet storage failed for {self._file.path}: ended early") from None
            return 0
        except Exception as exc:  # its client is a foreign library with errors of its own
            raise TransientError(f"Xet storage failed for {self._file.path}: {type(exc).__name__}") from exc
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._given += count
        return count
