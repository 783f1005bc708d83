from __future__ import annotations

from pathlib import Path

import pytest
from nim_backend_llamacpp.models import choose, damage, models_among

from nim_core.testing.tiny_model import GGUF_FILE
from nim_core.types import Verdict

SHARDS = tuple(f"q4/big-{number:05}-of-00003.gguf" for number in (1, 2, 3))


def test_the_only_model_is_taken() -> None:
    assert choose(["README.md", "model.Q4_K_M.gguf"], None) == "model.Q4_K_M.gguf"


def test_shards_are_one_model() -> None:
    assert models_among(SHARDS) == [SHARDS[0]]
    assert choose(SHARDS, None) == SHARDS[0]


def test_a_projector_is_no_model() -> None:
    assert choose(["mmproj-model-f16.gguf", "model.gguf"], None) == "model.gguf"


@pytest.mark.parametrize("missing", SHARDS[1:])
def test_a_missing_shard_is_named(missing: str) -> None:
    verdict = choose([shard for shard in SHARDS if shard != missing], None)
    assert isinstance(verdict, Verdict)
    assert missing in verdict.reason


def test_without_a_model_another_backend_is_advised() -> None:
    verdict = choose(["model.safetensors", "mmproj-x.gguf"], None)
    assert isinstance(verdict, Verdict)
    assert "GGUF" in verdict.reason
    assert verdict.hint
    assert "another backend" in verdict.hint


def test_of_several_models_one_has_to_be_named() -> None:
    verdict = choose(["a.gguf", "b.gguf", *SHARDS], None)
    assert isinstance(verdict, Verdict)
    assert "3 GGUF models" in verdict.reason
    assert verdict.hint == f"name one by --model: a.gguf, b.gguf, {SHARDS[0]}"


@pytest.mark.parametrize("wanted", [SHARDS[0], "big-00001-of-00003.gguf"])
def test_a_named_model_is_taken(wanted: str) -> None:
    assert choose(["a.gguf", *SHARDS], wanted) == SHARDS[0]


@pytest.mark.parametrize("wanted", ["c.gguf", SHARDS[1], "same.gguf"])
def test_a_name_that_fits_none_or_several_is_refused(wanted: str) -> None:
    verdict = choose(["a.gguf", "x/same.gguf", "y/same.gguf", *SHARDS], wanted)
    assert isinstance(verdict, Verdict)
    assert wanted in verdict.reason


def test_a_file_is_judged_by_how_it_begins(tmp_path: Path) -> None:
    assert damage(GGUF_FILE) is None
    assert damage(tmp_path / "not there yet.gguf") is None
    pointer = tmp_path / "model.gguf"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert damage(pointer) == "is not a GGUF file: it does not begin with GGUF"
    assert damage(tmp_path) == "cannot be read: Is a directory"
