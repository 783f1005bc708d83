"""
Runs one command and writes down what it took; in an interpreter of its own for every run, with ``-I -S``.

The kernel counts the memory of the process that a command is forked from as the command's own peak. This one has about
10 MiB, less than anything that is measured; the benchmark itself has several times as much.

    python -I -S launcher.py RESULT STDOUT STDERR COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import json
import os
import sys
import time

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def main() -> None:
    """Run, wait, write the result as JSON."""
    result, output, error, *command = sys.argv[1:]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, _CREATE, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, error, _CREATE, 0o600),
    ]
    began = time.monotonic()
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(process, 0)
    wall = time.monotonic() - began
    facts = {
        "status": os.waitstatus_to_exitcode(status),
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": usage.ru_maxrss * 1024,
    }
    with open(result, "w", encoding="utf-8") as file:  # noqa: PTH123 - importing pathlib would cost memory
        json.dump(facts, file)


if __name__ == "__main__":
    main()
