"""
Parse command lines with vLLM's own parser, without starting an engine.

Command lines come on stdin as JSON, beginning with ``serve``; for each, None or what the parser says against it goes
to stdout.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from vllm.entrypoints.cli import serve  # noqa: TID253
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: TID253


def complaint(parser: FlexibleArgumentParser, words: list[str]) -> str | None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parser.parse_args(words)
    except SystemExit:
        return said.getvalue().splitlines()[-1]
    except (TypeError, ValueError) as exc:
        return repr(exc)
    return None


def main() -> None:
    parser = FlexibleArgumentParser(prog="vllm")
    commands = parser.add_subparsers(dest="subparser")
    for command in serve.cmd_init():
        command.subparser_init(commands)
    print(json.dumps([complaint(parser, words) for words in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
