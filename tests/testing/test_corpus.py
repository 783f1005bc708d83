"""The corpus and its contents."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nim_core.testing.corpus import Corpus, PatternContent, inline, part_of, sample_corpus, with_flipped_byte
from nim_core.types import Digest, RemoteFile

LENGTH = 200_003
WHOLE = PatternContent(length=LENGTH, seed=7).data()


@given(st.integers(0, LENGTH), st.integers(0, LENGTH))
def test_a_pattern_is_the_same_however_it_is_read(one, other):
    start, stop = sorted((one, other))
    assert PatternContent(length=LENGTH, seed=7).read(start, stop) == WHOLE[start:stop]


def test_a_pattern_has_no_two_equal_blocks():
    content = PatternContent(length=64 << 16)
    blocks = {content.read(start, start + (1 << 16)) for start in range(0, content.size, 1 << 16)}
    assert len(blocks) == 64


def test_seed_changes_a_pattern_and_nothing_else_does():
    assert PatternContent(length=9000, seed=1).data() != PatternContent(length=9000, seed=2).data()
    assert sample_corpus() == sample_corpus()
    assert sample_corpus(seed=1) != sample_corpus()


def test_pieces_are_a_mebibyte_and_join_to_the_content():
    content = PatternContent(length=(2 << 20) + 5)
    pieces = list(content.pieces())
    assert [len(piece) for piece in pieces] == [1 << 20, 1 << 20, 5]
    assert b"".join(pieces) == content.data()
    assert b"".join(content.pieces(3, 9)) == content.data()[3:9]


def test_a_huge_pattern_costs_nothing_until_read():
    content = PatternContent(length=1 << 50)
    assert len(content.read((1 << 50) - 10, 1 << 50)) == 10


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("blake3", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
        ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("sha1-git", "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"),
        ("md5", "900150983cd24fb0d6963f7d28e17f72"),
        ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("crc32c", "364b3fb7"),
        ("crc32", "352441c2"),
    ],
)
def test_digests_of_a_known_text(algorithm, value):
    assert inline("abc").digest(algorithm) == Digest(algorithm, value)


def test_all_digests_strongest_first():
    names = [digest.algorithm for digest in inline(b"").digests()]
    assert names == ["blake3", "sha256", "sha1-git", "sha1", "md5", "crc32c", "crc32"]


def test_digest_of_a_pattern_is_of_all_its_pieces():
    content = PatternContent(length=(1 << 20) + 1)
    assert content.digest("sha256").value == hashlib.sha256(content.data()).hexdigest()


@given(st.binary(min_size=1, max_size=50), st.data())
def test_one_flipped_byte_is_the_only_difference(data, draw):
    offset = draw.draw(st.integers(0, len(data) - 1))
    flipped = with_flipped_byte(inline(data), offset)
    assert [at for at in range(len(data)) if data[at] != flipped.data()[at]] == [offset]
    assert flipped.read(0, offset) == data[:offset]


def test_part_of_a_content():
    content = inline("0123456789")
    assert part_of(content, 2, 5).data() == b"234"
    assert part_of(part_of(content, 2, 9), 1, 3).data() == b"34"
    assert part_of(content, 0, 10) is content


def test_sample_has_every_awkward_kind_of_file_and_legal_names():
    files = sample_corpus().files
    assert any("/" in path for path in files)
    assert any(content.size == 0 for content in files.values())
    assert all(any(character in path for path in files) for character in " &+#ü")
    assert [RemoteFile(path=path).path for path in files] == list(files)
    assert not any(character in path for path in files for character in '<>:;,?"*%|')


def test_written_corpus_has_no_differences_and_each_damage_is_one(tmp_path):
    corpus = sample_corpus()
    corpus.write_to(tmp_path)
    assert corpus.differences(tmp_path) == []
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) == corpus.size
    (tmp_path / "LICENSE").unlink()
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "more").write_bytes(b"")
    shard = tmp_path / "model-00001-of-00002.safetensors"
    shard.write_bytes(with_flipped_byte(inline(shard.read_bytes()), 100_000).data())
    assert corpus.differences(tmp_path) == [
        "missing: LICENSE",
        "not in the corpus: more",
        "wrong bytes: config.json",
        "wrong bytes: model-00001-of-00002.safetensors",
    ]


def test_an_empty_corpus_differs_from_nothing(tmp_path):
    assert Corpus(files={}).differences(tmp_path) == []
