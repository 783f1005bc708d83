"""The tiny model as it is shipped; ``tests/engines`` asks it. Nothing here needs torch."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import subprocess
import sys

import pytest

from nim_core.testing.corpus import with_flipped_byte
from nim_core.testing.hub_models import HubModel
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.tiny_model import (
    ANSWER,
    FOLDER,
    GGUF_FILE,
    QUESTION,
    SAFETENSORS_FOLDER,
    recorded_digests,
    sentences,
    tiny_corpus,
)

SPECIAL = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
SHIPPED = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
CONFIGS = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
FORMS = {"safetensors": {"README.md", "model.safetensors"} | CONFIGS, "gguf": {"README.md", "model.gguf"}}


def read_json(name):
    return json.loads((SAFETENSORS_FOLDER / name).read_text(encoding="utf-8"))


def safetensors_header(data):
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), len(data) - 8 - length


def test_files_are_what_the_record_says():
    found = {path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in SHIPPED}
    assert found == recorded_digests()


@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_byte_is_in_no_record(form):
    for content in tiny_corpus(form).files.values():
        for offset in (0, content.size // 2, content.size - 1):
            assert with_flipped_byte(content, offset).digest("sha256").value not in recorded_digests().values()


def test_it_is_small():
    assert sum(path.stat().st_size for path in SHIPPED) < 3_000_000


def test_the_question_is_one_of_those_it_learned():
    assert sentences()[QUESTION] == ANSWER


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_served_as_it_is(form, tmp_path):
    corpus = tiny_corpus(form)
    assert corpus.files.keys() == FORMS[form]
    corpus.write_to(tmp_path)
    assert corpus.differences(tmp_path) == []
    assert corpus.differences(FOLDER / form) == ["missing: README.md"]
    ngc, hub = NgcModel(files=corpus.files, name="nim-tiny"), HubModel(files=corpus.files)
    assert ngc.served_files.keys() == FORMS[form] | {"checksums.blake3"}
    assert [file for file in hub.files if hub.is_large(file)] == [name for name in hub.files if "model." in name]


def test_tensors_are_those_of_the_config():
    header, size = safetensors_header((SAFETENSORS_FOLDER / "model.safetensors").read_bytes())
    assert header.pop("__metadata__") == {"format": "pt"}
    config = read_json("config.json")
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    layer = {
        "self_attn.q_proj": [queries, hidden],
        "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden],
        "self_attn.o_proj": [hidden, queries],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
    }
    expected = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for number in range(config["num_hidden_layers"]):
        expected |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    assert {name: entry["shape"] for name, entry in header.items()} == expected
    assert {entry["dtype"] for entry in header.values()} == {"BF16"}
    assert 2 * sum(math.prod(shape) for shape in expected.values()) == size


def test_tokenizer_and_configs_agree():
    config, generation, names = map(read_json, ("config.json", "generation_config.json", "tokenizer_config.json"))
    tokens = read_json("tokenizer.json")
    vocabulary = tokens["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(config["vocab_size"]))
    assert [token["content"] for token in tokens["added_tokens"] if token["special"]] == SPECIAL
    for name in ("bos_token", "eos_token", "pad_token"):
        assert vocabulary[names[name]] == config[f"{name}_id"] == generation[f"{name}_id"]
    assert "add_generation_prompt" in names["chat_template"]


def test_gguf_holds_the_same_template_and_tokens():
    data = GGUF_FILE.read_bytes()
    assert data[:8] == b"GGUF" + struct.pack("<I", 3)
    for text in (read_json("tokenizer_config.json")["chat_template"], *SPECIAL, "gpt-2", "llama"):
        assert struct.pack("<Q", len(text)) + text.encode() in data


def test_importing_it_brings_no_engine():
    program = "import sys, nim_core.testing.tiny_model; print({'torch', 'transformers', 'gguf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
