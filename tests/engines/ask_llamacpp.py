"""
Answer questions with llama.cpp, greedily, through the model's own chat template.

Argument: the file of a model. Questions come on stdin and answers go to stdout, both as JSON.
"""

from __future__ import annotations

import json
import sys

import xllamacpp  # noqa: TID253


def main(file: str) -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.n_ctx = 512
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    server = xllamacpp.Server(parameters)
    answers = []
    for question in json.load(sys.stdin):
        messages = [{"role": "user", "content": question}]
        answer = server.handle_chat_completions({"messages": messages, "temperature": 0, "max_tokens": 100})
        choice = answer["choices"][0]
        answers.append([choice["message"]["content"], choice["finish_reason"]])
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
