from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(sysconfig.get_path("scripts"))
HEAVY = (
    "boto3",
    "botocore",
    "google.cloud",
    "httpx",
    "huggingface_hub",
    "modelscope",
    "pycurl",
    "pynvml",
    "rich.progress",
    "structlog",
    "yaml",
)
SLOW = """
import sys, time
from nim_core.cli import fetch
from nim_core.cli.app import download_to_cache
from nim_core.cli.session import Session
from nim_core.types import UriStyle
from nim_core.uris import parse_uri

class FakeRegistry:
    plugins = ()
    def parse_uri(self, text):
        return parse_uri(text, {"store": UriStyle.REPOSITORY})

def slow(targets, options, registry, settings, observer):
    observer.phase("listing")
    print("listing", file=sys.stderr, flush=True)
    time.sleep(60)

Session.load_registry = lambda session: FakeRegistry()
fetch.download = slow
sys.argv[0] = "download-to-cache"
download_to_cache()
"""


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={"PATH": os.environ["PATH"]} | environ
    )


@pytest.mark.parametrize(
    "command", [("nim-llm", "download-to-cache"), ("download-to-cache",), ("list-model-profiles",)]
)
def test_ways_to_a_command(command: tuple[str, ...]) -> None:
    done = run(SCRIPTS / command[0], *command[1:], "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {' '.join(command)} [OPTIONS]\n")


def test_a_usage_error() -> None:
    done = run(SCRIPTS / "download-to-cache", "--lora", "--all")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("error: --all cannot be combined with --lora (exit 2); hint: see download-to-cache --help\n")


def test_a_uri_without_plugin() -> None:
    done = run(SCRIPTS / "download-to-cache", "--model-uri", "nope://a/b")
    assert (done.returncode, done.stdout) == (24, "")
    assert done.stderr.splitlines()[-1].startswith("error: no installed plugin for scheme: nope:// (exit 24); hint: ")


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("download-to-cache", "--help"), ("list-model-profiles", "-h"), ("--version",), ("nope",)],
)
def test_help_waits_for_nothing_heavy(arguments: tuple[str, ...]) -> None:
    program = (
        f"import sys; sys.argv = ['nim-llm', *{arguments!r}]\n"
        "from nim_core.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    assert run(sys.executable, "-c", program).stderr.splitlines()[-1] == "[]"


def test_reading_arguments_waits_for_nothing_heavy() -> None:
    program = (
        "import sys; from nim_core.cli.app import command\n"
        "arguments = ['-p', 'x', 'y', '--manifest', 'm', '--model-cache', 'c', '--force']\n"
        "print(command('download-to-cache').make_context('x', arguments).params)\n"
        f"print(sorted({{*{HEAVY!r}, 'pydantic'}} & set(sys.modules)))"
    )
    params, heavy = run(sys.executable, "-c", program).stdout.splitlines()
    assert "'profiles': ['x', 'y']" in params
    assert "'manifest_file': PosixPath('m')" in params
    assert heavy == "[]"


@pytest.mark.parametrize("arguments", [("plugins", "list"), ("list-model-profiles",), ("hardware",)])
def test_listing_loads_no_transport(arguments: tuple[str, ...]) -> None:
    program = (
        f"import sys; sys.argv = ['nim-llm', *{arguments!r}]\n"
        "from nim_core.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "found = {'httpx', 'pycurl', 'yaml', 'rich', 'boto3', 'huggingface_hub'} & set(sys.modules)\n"
        "print(sorted(found), file=sys.stderr)"
    )
    assert run(sys.executable, "-c", program).stderr.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [SCRIPTS / "nim-llm", "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_output_that_is_full_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [SCRIPTS / "nim-llm", "plugins", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: cannot write to standard output: No space left on device (exit 1)"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_stream_does_no_harm(stream: str) -> None:
    number = {"stdout": 1, "stderr": 2}[stream]
    done = run("/bin/sh", "-c", f"exec '{SCRIPTS}/nim-llm' nope {number}>&-")
    assert done.returncode == 2


@pytest.fixture
def slow() -> Iterator[subprocess.Popen[str]]:
    """A download that would take a minute, at a moment when it has begun."""
    command = [sys.executable, "-c", SLOW, "--model-uri", "store://org/model"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        assert "Downloading model: store://org/model" in process.stderr.readline()
        assert process.stderr.readline() == "listing\n"
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals(slow: subprocess.Popen[str], number: signal.Signals, code: int, word: str) -> None:
    start = time.monotonic()
    slow.send_signal(number)
    _, text = slow.communicate(timeout=30)
    hint = "what was fetched is kept, the same command goes on with it"
    assert (slow.returncode, text) == (code, f"error: {word} (exit {code}); hint: {hint}\n")
    assert time.monotonic() - start < 5
