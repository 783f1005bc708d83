"""
What the front and the guardian cost: requests and tokens through the front against the engine itself, in turns.

    python bench/serving.py [--quick] [--runs N] [--python PYTHON] [--record]

``--python`` is a Python that can import xllamacpp, which is llama.cpp; without one, the engine is a stand-in that
sends a token a millisecond. Seconds are a client's, one request at a time; CPU seconds are those of the
front's process.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen
from transfer_bench.stats import summarize

from nim_core.serving.process import EngineProcess
from nim_core.testing.tiny_model import GGUF_FILE, QUESTION
from nim_core.types import LaunchPlan

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results" / "serving.md"
PROGRAMS: Final = HERE / "serving_bench"
FRONTS: Final = (("aiohttp", ()), ("aiohttp", ("names",)), ("httpcore", ()), ("httpx", ()))
TICKS: Final = os.sysconf("SC_CLK_TCK")
START: Final = """
import time; begun = time.perf_counter()
from nim_core.serving.front import FrontOptions, make_front
from nim_core.serving.listener import Listener
from nim_core.serving.state import ServingState
listener = Listener(make_front(ServingState(), FrontOptions(release="1")), "127.0.0.1", 0)
listener.start()
print(time.perf_counter() - begun, flush=True)
listener.stop(0)
"""


@frozen
class Sizes:
    """How much is asked for in a round."""

    requests: int
    streams: int
    tokens: int


@frozen
class Sample:
    """A round: seconds of a request and of a stream, and CPU seconds of the front for a request and a token."""

    request: float
    stream: float
    request_cpu: float
    token_cpu: float


def main() -> None:
    """Measure, print, and keep it when asked to."""
    arguments = parser().parse_args()
    sizes = Sizes(200, 3, 100) if arguments.quick else Sizes(1000, 20, 200)
    engines = {"a stand-in that sends a token a millisecond": (sys.executable, str(PROGRAMS / "paced.py"))}
    if arguments.python:
        engines["llama.cpp, the tiny model"] = (arguments.python, str(PROGRAMS / "engine.py"))
    sections = [proxied(words, command, sizes, arguments.runs) for words, command in engines.items()]
    about = (
        f"{os.cpu_count()} cores shared with other work, {arguments.runs} rounds in turns; median (lowest to highest)."
    )
    starts = [measure(arguments.runs) for measure in (started, served, guarded)]
    text = "\n\n".join(["# Serving", about, *sections, *starts]) + "\n"
    print(text)
    if arguments.record:
        RESULTS.write_text(text, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """Return what the command line may have."""
    made = argparse.ArgumentParser(description="what the front and the guardian cost")
    made.add_argument("--runs", type=int, default=5, help="rounds")
    made.add_argument("--quick", action="store_true", help="few requests: shows that it works, not how fast it is")
    made.add_argument("--python", help="a Python that can import xllamacpp")
    made.add_argument("--record", action="store_true", help="write the figures to bench/results/")
    return made


def proxied(words: str, command: tuple[str, ...], sizes: Sizes, runs: int) -> str:
    """Measure an engine alone and behind each front, and return what is said about it."""
    samples: dict[str, list[Sample]] = {"the engine itself": []}
    with ExitStack() as stack:
        engine_port = stack.enter_context(listening(*command, str(GGUF_FILE), port_last=True))[0]
        ports = {"the engine itself": (engine_port, None)}
        for client, names in FRONTS:
            who = f"front, {client}" + (", names changed" if names else "")
            port, process = stack.enter_context(front(client, engine_port, *names))
            ports[who] = (port, process.pid)
            samples[who] = []
        for number in range(runs + 1):
            for who, (port, pid) in ports.items():
                taken = measure(port, pid, sizes)
                if number:  # the first round is for warming up
                    samples[who].append(taken)
                    print(f"{words}: {who}: {taken}", file=sys.stderr, flush=True)
    return table(words, samples, sizes)


def measure(port: int, pid: int | None, sizes: Sizes) -> Sample:
    """Ask as often as ``sizes`` says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    before = cpu(pid)
    requests = [ask(connection, 1, stream=False) for _ in range(sizes.requests)]
    between = cpu(pid)
    streams = [ask(connection, sizes.tokens, stream=True) for _ in range(sizes.streams)]
    after = cpu(pid)
    connection.close()
    return Sample(
        statistics.median(requests),
        statistics.median(streams),
        (between - before) / sizes.requests,
        (after - between) / sizes.streams / sizes.tokens,
    )


def ask(connection: http.client.HTTPConnection, tokens: int, *, stream: bool) -> float:
    """Ask for an answer, and return the seconds until all of it was there."""
    messages = [{"role": "user", "content": QUESTION}]
    asked = {"model": "tiny", "messages": messages, "max_tokens": tokens, "stream": stream, "ignore_eos": True}
    begun = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(asked), {"content-type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    if stream:
        connection.close()  # llama.cpp does so too, but without saying so
    taken = time.perf_counter() - begun
    assert answer.status == 200, body
    assert not stream or body.count(b"data: ") >= tokens, body
    return taken


def cpu(pid: int | None) -> float:
    """Return the CPU seconds that a process has had."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def table(words: str, samples: dict[str, list[Sample]], sizes: Sizes) -> str:
    """Return the figures; what the front adds is taken round by round."""
    direct = samples["the engine itself"]
    lines = [
        f"## {words}",
        "",
        f"{sizes.requests} requests and {sizes.streams} streams of {sizes.tokens} tokens a round; milliseconds.",
        "",
        "| who | a request | added | CPU of a request | a stream | added for a token | CPU of a token |",
        "|---|---|---|---|---|---|---|",
    ]
    for who, taken in samples.items():
        added = [ours.request - theirs.request for ours, theirs in zip(taken, direct, strict=True)]
        token = [(ours.stream - theirs.stream) / sizes.tokens for ours, theirs in zip(taken, direct, strict=True)]
        figures = (
            [sample.request for sample in taken],
            added,
            [sample.request_cpu for sample in taken],
            [sample.stream for sample in taken],
            token,
            [sample.token_cpu for sample in taken],
        )
        digits = (2, 2, 2, 0, 3, 3)
        cells = [
            summarize(1000 * value for value in each).show(places) for each, places in zip(figures, digits, strict=True)
        ]
        lines.append(f"| {who} | {' | '.join(cells)} |")
    return "\n".join(lines)


@contextmanager
def front(client: str, engine_port: int, *names: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A front before an engine."""
    port = free_port()
    command = [sys.executable, str(PROGRAMS / "front.py"), client, str(port), str(engine_port), *names]
    with listening(*command, port=port) as running:
        yield running


@contextmanager
def listening(
    *command: str, port: int | None = None, port_last: bool = False
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A process that listens, and its port; ``port_last``: which it is told as last argument."""
    port = port or free_port()
    with subprocess.Popen([*command, *([str(port)] if port_last else [])], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield port, process
        finally:
            process.kill()


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nobody listens on port {port}")


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def started(runs: int) -> str:
    """Measure how long it takes until the front answers, and return what is said about it."""
    inside, whole = [], []
    for _ in range(runs + 1):
        begun = time.perf_counter()
        with subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            inside.append(1000 * float(process.stdout.readline()))
            whole.append(1000 * (time.perf_counter() - begun))
    return (
        "## Start\n\n"
        f"From the first import to an answer: {summarize(inside[1:]).show(0)} ms; with the start of Python: "
        f"{summarize(whole[1:]).show(0)} ms."
    )


def served(runs: int) -> str:
    """Measure ``nim-serve`` with a cache that has the model, and return what is said about it."""
    program = Path(sysconfig.get_path("scripts"), "nim-serve")
    listening, starting, ready = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "NIM_CACHE_PATH": folder, "NIM_LOG_LEVEL": "INFO", "NIM_JSONL_LOGGING": "0"}
        for _ in range(2 * runs + 1):
            port = free_port()
            command = [program, GGUF_FILE.parent, "--port", str(port)]
            begun = time.perf_counter()
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as process:
                assert process.stderr is not None
                for line in process.stderr:
                    for word, times in (("Server starting", listening), ("Starting ", starting), ("] serving", ready)):
                        if word in line:
                            times.append(1000 * (time.perf_counter() - begun))
                    if "] serving" in line:
                        break
                process.terminate()
                process.stderr.read()
    figures = (summarize(times[1:]).show(0) for times in (listening, starting, ready))
    return (
        "## nim-serve, with the model in the cache\n\n"
        "From the command to the front, to the start of the engine, and to an engine that serves (llama.cpp): "
        f"{', '.join(figures)} ms."
    )


def guarded(runs: int) -> str:
    """Measure what the guardian costs, and return what is said about it."""
    through, direct, memory = [], [], []
    for _ in range(4 * runs):
        begun = time.perf_counter()
        process = EngineProcess(LaunchPlan(argv=("sleep", "60")), os.environ, lambda _line: None)
        process.start()
        through.append(1000 * (time.perf_counter() - begun))
        memory.append(pss(parent_of(process.pid or 0)) / 1024)
        process.kill()
        process.wait(10)
        begun = time.perf_counter()
        with subprocess.Popen(["sleep", "60"]) as plain:
            direct.append(1000 * (time.perf_counter() - begun))
            plain.kill()
    return (
        "## The guardian\n\n"
        f"Start of a program: {summarize(through).show(0)} ms with it, {summarize(direct).show(0)} ms without. "
        f"Memory: {summarize(memory).show(1)} MiB (PSS)."
    )


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def pss(pid: int) -> int:
    """Return the memory of a process in KiB, what it shares by its part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
