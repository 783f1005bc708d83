"""
A language model of half a megabyte that answers known questions with known sentences, for tests and demonstrations.

It is real: llama.cpp, transformers, vLLM and what else loads the Llama architecture say the same, letter by letter,
when they decode greedily and word the chat by the model's own template. ``data/tiny/README.md`` says what it is made of
and by how much the right tokens lead; ``examples/tiny_model/train.py`` makes it.

::

    model = NgcModel(files=tiny_corpus("gguf").files, name="nim-tiny", version="gguf")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from nim_core.testing.corpus import Corpus, inline

__all__ = [
    "ANSWER",
    "FOLDER",
    "GGUF_FILE",
    "QUESTION",
    "SAFETENSORS_FOLDER",
    "recorded_digests",
    "sentences",
    "tiny_corpus",
]

QUESTION = "Did every byte arrive?"
"""What to ask, as the only message of a chat."""

ANSWER = "Yes, every byte arrived, and the digest of each file is the one that was promised."
"""What every engine answers to :data:`QUESTION` at temperature 0, before it ends the text."""

FOLDER = Path(__file__).parent / "data" / "tiny"
"""Both forms of the model, its description and its digests."""

SAFETENSORS_FOLDER = FOLDER / "safetensors"
"""The form for transformers, vLLM and SGLang: weights in bfloat16, tokenizer, chat template."""

GGUF_FILE = FOLDER / "gguf" / "model.gguf"
"""The form for llama.cpp: the same numbers in float16 and float32, tokenizer and chat template in the file."""


def sentences() -> Mapping[str, str]:
    """Return every answer the model knows, by its question."""
    return dict(json.loads((FOLDER / "sentences.json").read_text(encoding="utf-8")))


def tiny_corpus(form: Literal["safetensors", "gguf"]) -> Corpus:
    """Return the files of one form, with the description, as a server publishes them."""
    files = [FOLDER / "README.md", *sorted((FOLDER / form).iterdir())]
    return Corpus(files={file.name: inline(file.read_bytes()) for file in files})


def recorded_digests() -> Mapping[str, str]:
    """Return the SHA-256 that each file had when it was made, by its path in :data:`FOLDER`."""
    lines = (FOLDER / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
