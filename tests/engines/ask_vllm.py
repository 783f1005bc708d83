"""
Answer questions with vLLM, greedily, through the model's own chat template.

Arguments: the folder of a model, a data type. Questions come on stdin and answers go to stdout, both as JSON.
"""

from __future__ import annotations

import json
import sys

import vllm  # noqa: TID253


def main(folder: str, dtype: str) -> None:
    engine = vllm.LLM(model=folder, dtype=dtype, enforce_eager=True, max_model_len=256, kv_cache_memory_bytes=64 << 20)
    chats = [[{"role": "user", "content": question}] for question in json.load(sys.stdin)]
    outputs = engine.chat(chats, vllm.SamplingParams(temperature=0, max_tokens=100), use_tqdm=False)
    print(json.dumps([[output.outputs[0].text, output.outputs[0].finish_reason] for output in outputs]))


if __name__ == "__main__":
    main(*sys.argv[1:])
