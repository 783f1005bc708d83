"""
Read command lines by the parser of ``transformers serve``, and start nothing.

Command lines come on stdin, as JSON, and go to stdout as what each was read as; the first is that of all names.
"""

from __future__ import annotations

import json
import sys

from transformers.cli.transformers import app  # noqa: TID253


def main() -> None:
    serve = app.commands["serve"]
    names = sorted(word for option in serve.params for word in option.opts if word.startswith("--"))
    print(json.dumps([names, *(serve.make_context("serve", words).params for words in json.load(sys.stdin))]))


if __name__ == "__main__":
    main()
