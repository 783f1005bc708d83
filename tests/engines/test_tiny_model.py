"""
The tiny model says the same in every engine, as whatever data type, and something else when it is damaged.

The session ``engines`` installs llama.cpp and transformers, each in an environment apart, and names their Pythons.
vLLM is asked where NIM_TEST_VLLM_PYTHON names a Python that has it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from nim_core.testing.corpus import with_flipped_byte
from nim_core.testing.tiny_model import ANSWER, GGUF_FILE, QUESTION, SAFETENSORS_FOLDER, sentences, tiny_corpus

HERE = Path(__file__).parent
TRAIN = HERE.parents[1] / "examples" / "tiny_model" / "train.py"
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
KNOWN = [[answer, "stop"] for answer in sentences().values()]

pytestmark = pytest.mark.timeout(300)


def needs(engine: str) -> pytest.MarkDecorator:
    variable = f"NIM_TEST_{engine.upper()}_PYTHON"
    return pytest.mark.skipif(not os.environ.get(variable), reason=f"{variable} names no Python that has {engine}")


def run(engine: str, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [os.environ[f"NIM_TEST_{engine.upper()}_PYTHON"], *map(str, arguments)]
    environment = {**os.environ, **QUIET}
    return subprocess.run(
        command, input=stdin, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def ask(engine: str, model: Path, *options: str, questions: Sequence[str] = tuple(sentences())) -> list[list[str]]:
    """Return what an engine says to each question, and why it stopped."""
    done = run(engine, HERE / f"ask_{engine}.py", model, *options, stdin=json.dumps(list(questions)))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs("llamacpp")
def test_llamacpp_knows_the_sentences() -> None:
    assert ask("llamacpp", GGUF_FILE) == KNOWN


@needs("transformers")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_transformers_knows_the_sentences(dtype: str) -> None:
    assert ask("transformers", SAFETENSORS_FOLDER, dtype) == KNOWN


@needs("vllm")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vllm_knows_the_sentences(dtype: str) -> None:
    assert ask("vllm", SAFETENSORS_FOLDER, dtype) == KNOWN


@needs("transformers")
def test_a_flipped_byte_is_heard_in_transformers(tmp_path: Path) -> None:
    """One byte, sign and most of the exponent of a weight that every token's state is multiplied with."""
    content = tiny_corpus("safetensors").files["model.safetensors"]
    (length,) = struct.unpack("<Q", content.read(0, 8))
    start, _ = json.loads(content.read(8, 8 + length))["model.layers.1.mlp.down_proj.weight"]["data_offsets"]
    shutil.copytree(SAFETENSORS_FOLDER, tmp_path / "model")
    damaged = with_flipped_byte(content, 8 + length + start + 1)
    (tmp_path / "model" / "model.safetensors").write_bytes(damaged.data())
    ((said, _),) = ask("transformers", tmp_path / "model", "float32", questions=[QUESTION])
    assert said != ANSWER


@needs("llamacpp")
def test_many_flipped_exponents_are_heard_in_llamacpp(tmp_path: Path) -> None:
    """Digests notice every byte; the text notices many of those that make a weight of a matrix another one."""
    content = tiny_corpus("gguf").files["model.gguf"]
    places = random.Random(0).sample(range((content.size - 500_000) | 1, content.size, 2), 20)
    heard = 0
    for place in places:
        file = tmp_path / "model.gguf"
        file.write_bytes(with_flipped_byte(content, place).data())
        heard += ask("llamacpp", file, questions=[QUESTION]) != [[ANSWER, "stop"]]
    print(f"heard {heard} of {len(places)}")
    assert heard >= len(places) // 2


@needs("transformers")
@needs("llamacpp")
def test_trained_again_it_says_the_same(tmp_path: Path) -> None:
    done = run("transformers", TRAIN, f"--output={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ask("llamacpp", tmp_path / "gguf" / "model.gguf") == KNOWN
    assert ask("transformers", tmp_path / "safetensors", "float32") == KNOWN
