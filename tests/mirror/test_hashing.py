from __future__ import annotations

import os

import google_crc32c
import pytest
from blake3 import blake3

from nim_core.errors import CacheError, DigestMismatchError
from nim_core.mirror.hashing import hash_file, hash_part
from nim_core.types import Digest

DATA = os.urandom(5_000_001)


def never():
    return False


def crc(data):
    return Digest("crc32c", f"{google_crc32c.value(data):08x}")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 5_000_001])
@pytest.mark.parametrize("step", [None, 1 << 20, 1_500_000, 5_000_001])
def test_digests_of_the_whole_and_of_every_part(tmp_path, size, step):
    path = tmp_path / "f"
    path.write_bytes(DATA[:size])

    found = hash_file(path, [], lambda _: step, never)

    assert found.size == size
    assert found.digests == (Digest("blake3", blake3(DATA[:size]).hexdigest()), crc(DATA[:size]))
    if found.data is None:
        step = step or size
        assert found.parts == tuple(crc(DATA[:size][place : place + step]) for place in range(0, size, step))
    else:
        assert found.data == DATA[:size]


def test_expected_ones_are_compared(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x")

    with pytest.raises(DigestMismatchError, match=r"damaged .*: .*f has sha256:2d71.*, not sha256:aaaa"):
        hash_file(path, [Digest("sha256", "a" * 64)], lambda _: None, never)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CacheError):
        hash_file(tmp_path / "none", [], lambda _: None, never)


def test_giving_up(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(DATA)

    with pytest.raises(InterruptedError):
        hash_file(path, [], lambda _: None, lambda: True)


def test_a_part_alone(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(DATA)

    assert hash_part(path, 1234, 3_000_000, "crc32c") == crc(DATA[1234:3_001_234])
