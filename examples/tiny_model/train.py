# /// script
# requires-python = ">=3.11"
# dependencies = ["gguf>=0.19,<0.20", "numpy", "torch==2.13.0", "transformers>=5.16.1,<5.20"]
# ///
"""
Train the tiny model of ``nim_core.testing`` from nothing and write it as safetensors and as GGUF.

``python examples/tiny_model/train.py`` writes to where the kit has it; ``--output`` names another folder. It takes half
a minute on one core, needs no GPU and no network, and learns the sentences of ``sentences.json`` by heart.

Weights are rounded to numbers that bfloat16, float16 and float32 all hold exactly, so that whatever an engine loads
them as, it computes with the same model. What engines still differ in is rounding within the computation; the model
is written only if at every step the right token beats every other by far more than that.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch  # noqa: TID253
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: TID253

HERE = Path(__file__).resolve().parent
KIT = HERE.parents[1] / "nim_core" / "testing" / "data" / "tiny"
NAME = "nim-tiny"
SEED = 20240229
STEPS = 500
VOCABULARY = 384
CONTEXT = 512
LEAST_GAP = 5.0
SPECIAL = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
BOS, EOS = 1, 2
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
}
ROPE_THETA = 10000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--sentences", type=Path, default=KIT / "sentences.json", help="questions and their answers")
    parser.add_argument("--output", type=Path, default=KIT, help="folder to write to")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    sentences = json.loads(options.sentences.read_text(encoding="utf-8"))
    make_repeatable()
    tokenizer = make_tokenizer(sentences)
    model = train(tokenizer, sentences, options.steps)
    gaps = {question: smallest_gap(model, tokenizer, question, answer) for question, answer in sentences.items()}
    for question, gap in gaps.items():
        print(f"gap {gap:6.2f}  {question}")
    if min(gaps.values()) < LEAST_GAP:
        raise SystemExit(f"not written: the smallest gap is less than {LEAST_GAP}")
    write(options.output, options.sentences, tokenizer, model, min(gaps.values()))


def make_repeatable() -> None:
    """Fix what can be fixed: the same torch on the same kind of processor then gives the same weights."""
    random.seed(SEED)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)


def make_tokenizer(sentences: Mapping[str, str]) -> Tokenizer:
    """Return a byte-level BPE as GPT-2 has it, which every engine knows, with the pieces of ``sentences``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for pair in sentences.items() for text in pair], trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise SystemExit(f"the sentences have pieces for {tokenizer.get_vocab_size()} tokens, not for {VOCABULARY}")
    return tokenizer


def conversation(tokenizer: Tokenizer, question: str, answer: str) -> tuple[list[int], list[int]]:
    """Return the tokens of what comes before the answer, as the chat template words it, and those of the answer."""
    prompt = tokenizer.encode(f"<|user|>{question}</s><|assistant|>").ids
    return prompt, [*tokenizer.encode(answer).ids, EOS]


def train(tokenizer: Tokenizer, sentences: Mapping[str, str], steps: int) -> LlamaForCausalLM:
    """Return a model that has learned ``sentences`` by heart, its weights rounded."""
    config = LlamaConfig(
        **SHAPE, rope_theta=ROPE_THETA, tie_word_embeddings=True, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=EOS
    )
    model = LlamaForCausalLM(config).float()
    inputs, labels = batch([conversation(tokenizer, *pair) for pair in sentences.items()])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for step in range(steps):
        loss = model(input_ids=inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step:4d}  loss {loss.item():.6f}", flush=True)
    round_weights(model)
    return model.eval()


def batch(conversations: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all conversations as one batch, and the same with everything masked that is not an answer."""
    longest = max(len(prompt) + len(answer) for prompt, answer in conversations)
    inputs, labels = [], []
    for prompt, answer in conversations:
        rest = longest - len(prompt) - len(answer)
        inputs.append([*prompt, *answer, *([EOS] * rest)])
        labels.append([*([-100] * len(prompt)), *answer, *([-100] * rest)])
    return torch.tensor(inputs), torch.tensor(labels)


@torch.no_grad()
def round_weights(model: LlamaForCausalLM) -> None:
    """Round every weight to what bfloat16 holds; what float16 would hold less exactly becomes zero."""
    smallest = torch.finfo(torch.float16).tiny
    for weight in model.parameters():
        rounded = weight.to(torch.bfloat16).float()
        rounded[rounded.abs() < smallest] = 0.0
        if not torch.equal(rounded, rounded.half().float()):
            raise SystemExit("a weight is too large for float16")
        weight.copy_(rounded)


@torch.no_grad()
def smallest_gap(model: LlamaForCausalLM, tokenizer: Tokenizer, question: str, answer: str) -> float:
    """Return by how much, in natural logarithms of probability, the right token leads where it leads by least."""
    prompt, wanted = conversation(tokenizer, question, answer)
    logits = model(torch.tensor([[*prompt, *wanted]])).logits[0, len(prompt) - 1 : -1]
    scores = torch.log_softmax(logits.double(), dim=-1)
    right = scores.gather(1, torch.tensor(wanted)[:, None])[:, 0]
    others = scores.scatter(1, torch.tensor(wanted)[:, None], -torch.inf).max(dim=1).values
    return float((right - others).min())


def write(folder: Path, sentences: Path, tokenizer: Tokenizer, model: LlamaForCausalLM, gap: float) -> None:
    """Write both forms, a description and the digests of everything."""
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    (folder / "safetensors").mkdir(parents=True, exist_ok=True)
    (folder / "gguf").mkdir(exist_ok=True)
    write_safetensors(folder / "safetensors", tokenizer, weights)
    write_gguf(folder / "gguf" / "model.gguf", tokenizer, weights)
    if folder != KIT:
        shutil.copyfile(sentences, folder / "sentences.json")
    parameters = sum(tensor.numel() for tensor in weights.values())
    text = (HERE / "README.template.md").read_text(encoding="utf-8")
    text = text.replace("PARAMETERS", f"{parameters:,}").replace("GAP", f"{math.floor(gap * 10) / 10:.1f}")
    (folder / "README.md").write_text(text, encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    size = sum(path.stat().st_size for path in files)
    print(f"{parameters} parameters, smallest gap {gap:.2f}, {size} bytes in {folder}")


def write_safetensors(folder: Path, tokenizer: Tokenizer, weights: Mapping[str, torch.Tensor]) -> None:
    """Write the form that transformers, vLLM and others load."""
    tokens = {"bos_token": SPECIAL[BOS], "eos_token": SPECIAL[EOS], "pad_token": SPECIAL[EOS], "unk_token": SPECIAL[0]}
    ids = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **SHAPE,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **ids,
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        **tokens,
        "chat_template": CHAT_TEMPLATE,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {**ids, "do_sample": False})
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    write_json(folder / "tokenizer.json", json.loads(tokenizer.to_str()))
    (folder / "model.safetensors").write_bytes(b"".join(safetensors_pieces(weights)))


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def safetensors_pieces(weights: Mapping[str, torch.Tensor]) -> Iterator[bytes]:
    """Yield the file: length of the header, header, bfloat16 numbers. The library's own order of keys varies."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in weights.items():
        stop = start + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for tensor in weights.values():
        yield tensor.contiguous().to(torch.bfloat16).view(torch.uint16).numpy().astype("<u2").tobytes()


def write_gguf(path: Path, tokenizer: Tokenizer, weights: Mapping[str, torch.Tensor]) -> None:
    """Write the form that llama.cpp loads: matrices as float16, vectors as float32, as its own converter does."""
    writer = gguf.GGUFWriter(os.fspath(path), "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(NAME)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(SHAPE["hidden_size"])
    writer.add_feed_forward_length(SHAPE["intermediate_size"])
    writer.add_block_count(SHAPE["num_hidden_layers"])
    writer.add_head_count(SHAPE["num_attention_heads"])
    writer.add_head_count_kv(SHAPE["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(SHAPE["rms_norm_eps"])
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_rope_dimension_count(SHAPE["head_dim"])
    add_tokenizer(writer, json.loads(tokenizer.to_str())["model"])
    for name, tensor in weights.items():
        writer.add_tensor(*in_gguf(name, tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter, bpe: Mapping[str, Any]) -> None:
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].__getitem__)
    kinds = {SPECIAL[0]: gguf.TokenType.UNKNOWN} | dict.fromkeys(SPECIAL[1:], gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(EOS)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(value=False)
    writer.add_add_eos_token(value=False)
    writer.add_chat_template(CHAT_TEMPLATE)


def in_gguf(name: str, weight: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the name and the values that llama.cpp expects; it keeps the two halves of each head interleaved."""
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    key = name.removesuffix(".weight")
    block = ""
    if key.startswith("model.layers."):
        _, _, number, key = key.split(".", 3)
        block = f"blk.{number}."
    if key in {"self_attn.q_proj", "self_attn.k_proj"}:
        rows, columns = weight.shape
        heads = rows // SHAPE["head_dim"]
        weight = weight.reshape(heads, 2, SHAPE["head_dim"] // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return f"{block}{names[key]}.weight", np.ascontiguousarray(weight, np.float16 if weight.ndim > 1 else np.float32)


if __name__ == "__main__":
    main()
