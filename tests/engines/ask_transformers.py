"""
Answer questions with transformers, greedily, through the model's own chat template.

Arguments: the folder of a model, a data type of torch. Questions come on stdin and answers go to stdout, both as JSON.
"""

from __future__ import annotations

import json
import sys

import torch  # noqa: TID253
import transformers  # noqa: TID253


def main(folder: str, dtype: str) -> None:
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    answers = []
    for question in json.load(sys.stdin):
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        tokens = model.generate(**prompt, max_new_tokens=100, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        answers.append([text, "stop" if tokens[-1] == tokenizer.eos_token_id else "length"])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
