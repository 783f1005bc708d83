"""Digests of streams, each against another way to compute it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess

import blake3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nim_core.transfer.digests import CONTENT_ALGORITHM, StreamDigest, algorithms_to_check, crc32c
from nim_core.types import DIGEST_HEX_LENGTHS, Digest

unhurried = settings(deadline=None)


def crc_bit_by_bit(data, polynomial):
    """A CRC as RFC 3720 (CRC-32C) and RFC 1952 (CRC-32) define it, by its polynomial."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
    return f"{value ^ 0xFFFFFFFF:08x}"


INDEPENDENT = {
    "blake3": lambda data: blake3.blake3(data).hexdigest(),
    "sha256": lambda data: hashlib.sha256(data).hexdigest(),
    "sha1-git": lambda data: hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest(),
    "sha1": lambda data: hashlib.sha1(data).hexdigest(),
    "md5": lambda data: hashlib.md5(data).hexdigest(),
    "crc32c": lambda data: crc_bit_by_bit(data, 0x82F63B78),
    "crc32": lambda data: crc_bit_by_bit(data, 0xEDB88320),
}

KNOWN = {
    "blake3": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "sha1-git": "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f",
    "sha1": "a9993e364706816aba3e25717850c26c9cd0d89d",
    "md5": "900150983cd24fb0d6963f7d28e17f72",
    "crc32c": "364b3fb7",
    "crc32": "352441c2",
}
"""Of the three bytes ``abc``, as published by the authors of each algorithm."""


def digest_of(data, algorithms, pieces=1):
    digest = StreamDigest(algorithms, len(data))
    step = max(1, -(-len(data) // pieces))
    for start in range(0, len(data), step):
        digest.update(memoryview(data)[start : start + step])
    return digest.digests()


def test_every_algorithm_is_tested():
    assert list(INDEPENDENT) == list(KNOWN) == list(DIGEST_HEX_LENGTHS)


@pytest.mark.parametrize("algorithm", DIGEST_HEX_LENGTHS)
def test_published_values(algorithm):
    assert digest_of(b"abc", [algorithm]) == (Digest(algorithm, KNOWN[algorithm]),)


@unhurried
@given(st.binary(max_size=400), st.integers(1, 7))
def test_pieces_make_no_difference(data, pieces):
    expected = tuple(Digest(algorithm, compute(data)) for algorithm, compute in INDEPENDENT.items())
    assert digest_of(data, INDEPENDENT, pieces) == expected


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_git_agrees(size, tmp_path):
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    data = bytes(index * 7 & 0xFF for index in range(size))
    (tmp_path / "file").write_bytes(data)
    command = [git, "hash-object", "--no-filters", "file"]
    found = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()
    assert digest_of(data, ["sha1-git"]) == (Digest("sha1-git", found),)


def test_a_git_blob_id_needs_the_size_before():
    with pytest.raises(ValueError, match="size"):
        StreamDigest(["sha1-git"], None)


def test_a_copy_is_a_state_to_go_back_to():
    digest = StreamDigest(DIGEST_HEX_LENGTHS, 6)
    digest.update(memoryview(b"abc"))
    twin = digest.copy()
    digest.update(memoryview(b"xyz"))
    twin.update(memoryview(b"def"))
    assert digest.digests() == digest_of(b"abcxyz", DIGEST_HEX_LENGTHS)
    assert twin.digests() == digest_of(b"abcdef", DIGEST_HEX_LENGTHS)


def test_a_copy_of_a_copy():
    first = StreamDigest(DIGEST_HEX_LENGTHS, 3)
    second = first.copy()
    third = second.copy()
    third.update(memoryview(b"abc"))
    assert third.digests() == digest_of(b"abc", DIGEST_HEX_LENGTHS)
    assert first.digests() == second.digests()


def test_a_view_of_a_buffer_is_read_at_once():
    buffer = bytearray(b"abc")
    digest = StreamDigest(DIGEST_HEX_LENGTHS, 3)
    digest.update(memoryview(buffer))
    buffer[:] = b"xyz"
    assert digest.digests() == digest_of(b"abc", DIGEST_HEX_LENGTHS)


@unhurried
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_crc_is_continued(first, second):
    assert crc32c(second, crc32c(first)) == int(crc_bit_by_bit(first + second, 0x82F63B78), 16)


def promised(*algorithms):
    return [Digest(algorithm, "0" * DIGEST_HEX_LENGTHS[algorithm]) for algorithm in algorithms]


@pytest.mark.parametrize(
    ("expected", "size", "chosen"),
    [
        ([], 5, ["blake3"]),
        ([], None, ["blake3"]),
        (["blake3"], 5, ["blake3"]),
        (["sha256"], 5, ["blake3", "sha256"]),
        (["md5"], None, ["blake3", "md5"]),
        (["crc32c"], 5, ["blake3", "crc32c"]),
        (["sha256", "md5"], 5, ["blake3", "sha256"]),
        (["md5", "sha256"], 5, ["blake3", "md5", "sha256"]),
        (["sha256", "crc32c"], 5, ["blake3", "sha256", "crc32c"]),
        (["blake3", "sha256", "sha1-git", "md5", "crc32c"], 5, ["blake3", "crc32c"]),
        (["md5", "crc32c"], 5, ["blake3", "md5", "crc32c"]),
        (["sha1-git"], 5, ["blake3", "sha1-git"]),
        (["sha1-git"], 0, ["blake3", "sha1-git"]),
        (["sha1-git"], None, ["blake3"]),
        (["sha1-git", "md5"], None, ["blake3", "md5"]),
        (["sha256", "sha256"], 5, ["blake3", "sha256"]),
    ],
)
def test_what_is_computed(expected, size, chosen):
    assert algorithms_to_check(promised(*expected), size) == tuple(chosen)


@given(st.lists(st.sampled_from(list(DIGEST_HEX_LENGTHS)), max_size=5))
def test_what_a_manifest_promises_is_always_computed(algorithms):
    chosen = algorithms_to_check(promised(*algorithms), 5)
    assert chosen[0] == CONTENT_ALGORITHM
    assert set(algorithms[:1]) <= set(chosen)
    assert len(chosen) == len(set(chosen))
