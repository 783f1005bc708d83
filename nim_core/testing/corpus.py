"""
A small model as a value: paths, contents and their digests, the same in every run.

Contents are read piece by piece, so a file of many gigabytes costs no memory.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import blake3
import google_crc32c
from attrs import field, frozen

from nim_core.types import DIGEST_HEX_LENGTHS, Digest

__all__ = [
    "Content",
    "Corpus",
    "FlippedContent",
    "InlineContent",
    "PartContent",
    "PatternContent",
    "inline",
    "part_of",
    "sample_corpus",
    "with_flipped_byte",
]

_PIECE = 1 << 20
_BLOCK = 1 << 16


class Content(ABC):
    """The bytes of one file; two of one class and the same fields are equal."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Length in bytes."""

    @abstractmethod
    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` up to, not including, ``stop``; both lie within the content."""

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from ``start`` to ``stop`` (None: the end) in order, at most a mebibyte at a time."""
        end = self.size if stop is None else stop
        for position in range(start, end, _PIECE):
            yield self.read(position, min(position + _PIECE, end))

    def data(self) -> bytes:
        """Return all bytes at once."""
        return self.read(0, self.size)

    def digest(self, algorithm: str) -> Digest:
        """Return the digest by one of ``DIGEST_HEX_LENGTHS``, worked out once per content."""
        return _digest(self, algorithm)

    def digests(self) -> tuple[Digest, ...]:
        """Return the digests by every algorithm core knows, strongest first."""
        return tuple(self.digest(algorithm) for algorithm in DIGEST_HEX_LENGTHS)


@frozen(kw_only=True)
class InlineContent(Content):
    """Bytes kept in memory."""

    bytes_: bytes = field(repr=lambda value: f"<{len(value)} bytes>")

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.bytes_)

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` up to ``stop``."""
        return self.bytes_[start:stop]


@frozen(kw_only=True)
class PatternContent(Content):
    """Bytes made on demand; no two places hold the same 64 KiB, so a misplaced part changes every digest."""

    length: int
    seed: int = 0

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.length

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` up to ``stop``."""
        noise = _noise(self.seed)
        first = start // _BLOCK
        blocks = range(first, -(-stop // _BLOCK))
        joined = b"".join(part for block in blocks for part in (block.to_bytes(8, "big"), noise))
        return joined[start - first * _BLOCK : stop - first * _BLOCK]


@frozen(kw_only=True)
class PartContent(Content):
    """Bytes ``start`` up to ``stop`` of another content."""

    whole: Content
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.stop - self.start

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` up to ``stop`` of the part."""
        return self.whole.read(self.start + start, self.start + stop)


@frozen(kw_only=True)
class FlippedContent(Content):
    """Another content with every bit of the byte at ``offset`` inverted: what a failing disk serves."""

    whole: Content
    offset: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.whole.size

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` up to ``stop``."""
        data = self.whole.read(start, stop)
        if not start <= self.offset < stop:
            return data
        at = self.offset - start
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@frozen(kw_only=True)
class Corpus:
    """A model: contents by path, ``/`` between components."""

    files: Mapping[str, Content]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(content.size for content in self.files.values())

    def write_to(self, folder: Path) -> None:
        """Write every file beneath ``folder``, which is made when absent."""
        for path, content in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                file.writelines(content.pieces())

    def differences(self, folder: Path) -> list[str]:
        """Compare with the files beneath ``folder``, links followed; one line per difference, none when equal."""
        found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
        missing = [f"missing: {path}" for path in sorted(self.files.keys() - found)]
        extra = [f"not in the corpus: {path}" for path in sorted(found - self.files.keys())]
        both = sorted(found & self.files.keys())
        wrong = [f"wrong bytes: {path}" for path in both if not _same(self.files[path], folder / path)]
        return missing + extra + wrong


def with_flipped_byte(content: Content, offset: int) -> Content:
    """Return ``content`` with the byte at ``offset`` inverted."""
    return FlippedContent(whole=content, offset=offset)


def part_of(content: Content, start: int, stop: int) -> Content:
    """Return bytes ``start`` up to ``stop`` of ``content`` as a content."""
    return content if (start, stop) == (0, content.size) else PartContent(whole=content, start=start, stop=stop)


def inline(data: bytes | str) -> Content:
    """Return ``data`` as a content; text becomes UTF-8."""
    return InlineContent(bytes_=data.encode() if isinstance(data, str) else data)


def sample_corpus(*, shard_size: int = 200_000, seed: int = 0) -> Corpus:
    """
    Return a model with every kind of file that has caused trouble: nested, empty, and with awkward but legal names.

    Args:
        shard_size: Bytes of the first weight shard; the second is one third shorter.
        seed: Changes all contents that are not text.
    """
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    return Corpus(
        files={
            "LICENSE": inline("Sample licence. Do as you like.\n" * 20),
            "config.json": _json({"architectures": ["SampleForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2}),
            "tokenizer.json": _json({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ü": 2}}}),
            "tokenizer_config.json": _json({"tokenizer_class": "SampleTokenizer", "seed": seed}),
            shards[0]: PatternContent(length=shard_size, seed=seed),
            shards[1]: PatternContent(length=shard_size - shard_size // 3, seed=seed + 1),
            "model.safetensors.index.json": _json({"weight_map": {"first": shards[0], "second": shards[1]}}),
            "trtllm_engine/rank0.engine": PatternContent(length=70_001, seed=seed + 2),
            "empty.txt": inline(b""),
            "notes & plans #1 + more.txt": inline("a = b + c & d # e\n"),
            "données/日本語 ü.txt": inline("größer\n"),
        }
    )


def _json(value: object) -> Content:
    return inline(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@cache
def _noise(seed: int) -> bytes:
    return hashlib.shake_256(f"nim corpus {seed}".encode()).digest(_BLOCK - 8)


def _same(content: Content, file: Path) -> bool:
    if file.stat().st_size != content.size:
        return False
    with file.open("rb") as stream:
        return all(stream.read(len(piece)) == piece for piece in content.pieces())


class _Crc32:
    """CRC-32 with the interface of hashlib's objects."""

    value = 0

    def update(self, data: bytes) -> None:
        self.value = zlib.crc32(data, self.value)

    def digest(self) -> bytes:
        return self.value.to_bytes(4, "big")


def _hasher(algorithm: str, size: int) -> Any:
    match algorithm:
        case "blake3":
            return blake3.blake3()
        case "crc32c":
            return google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        case "crc32":
            return _Crc32()
        case "sha1-git":
            return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        case _:
            return hashlib.new(algorithm, usedforsecurity=False)


@lru_cache(maxsize=4096)
def _digest(content: Content, algorithm: str) -> Digest:
    hasher = _hasher(algorithm, content.size)
    for piece in content.pieces():
        hasher.update(piece)
    return Digest(algorithm, hasher.digest().hex())
