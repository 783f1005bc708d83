"""
vLLM's own parser takes every command line that the tests of its plugin came to, and every spelling in the snapshots.

The session ``serve-vllm`` runs this. NIM_TEST_VLLM_PARSER_PYTHON names the Pythons of one or several versions, parted
by colons; NIM_TEST_VLLM_ARGV the folder where the plugin's tests have left their command lines.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FLAGS = HERE.parents[1] / "plugins" / "vllm" / "nim_backend_vllm" / "flags"
PYTHONS = [it for it in os.environ.get("NIM_TEST_VLLM_PARSER_PYTHON", "").split(":") if it]
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "VLLM_TARGET_DEVICE": "cpu"}

ANOTHER_MODEL = ("--config", "--model")
"""Options that vLLM reads before it parses."""

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PYTHONS, reason="NIM_TEST_VLLM_PARSER_PYTHON names no Python that has vLLM"),
]


def run(python: str, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [python, *arguments], input=stdin, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def version_of(python: str) -> str:
    return run(python, "-c", "from importlib.metadata import version; print(version('vllm'))").strip().partition("+")[0]


def complaints(python: str, lines: list[list[str]]) -> list[tuple[list[str], str]]:
    """Return the command lines that the parser refuses, and what it says."""
    answers = json.loads(run(python, str(HERE / "parse_vllm.py"), stdin=json.dumps(lines)).splitlines()[-1])
    return [(words, answer) for words, answer in zip(lines, answers, strict=True) if answer is not None]


@pytest.mark.parametrize("python", PYTHONS)
def test_command_lines_of_the_plugin(python: str) -> None:
    folder = Path(os.environ["NIM_TEST_VLLM_ARGV"], version_of(python))
    lines = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    print(f"{len(lines)} command lines for {version_of(python)}")
    assert len(lines) > 50
    assert complaints(python, lines) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_the_parser_does_refuse(python: str) -> None:
    wrong = ["--tensor-parallel-sise=2", "--seed=x", "--dtype=int4", "--enable-lora=true"]
    assert len(complaints(python, [["serve", "/m", word] for word in wrong])) == len(wrong)


@pytest.mark.parametrize("python", PYTHONS)
def test_every_spelling_in_the_snapshot(python: str) -> None:
    snapshot = json.loads((FLAGS / f"{version_of(python)}.json").read_text(encoding="utf-8"))
    spellings = []
    for option in snapshot["options"]:
        switch = option.get("kind") == "switch"
        names = [f"--{option['name']}", *option.get("aliases", ()), *option.get("negations", ())]
        if switch and not option.get("on_only"):
            names.append(f"--no-{option['name']}")
        spellings += [[name, *([] if switch else [_value(option)])] for name in names if name not in ANOTHER_MODEL]
    assert complaints(python, [["serve", "/m", *words] for words in spellings]) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_the_snapshot_is_what_is_made_of_the_version(python: str, tmp_path: Path) -> None:
    run(python, str(FLAGS.parents[1] / "snapshot.py"), str(tmp_path))
    name = f"{version_of(python)}.json"
    assert (tmp_path / name).read_text(encoding="utf-8") == (FLAGS / name).read_text(encoding="utf-8")


def _value(option: dict[str, object]) -> str:
    """Return a value that is right for most options of the kind; the rest wants an object, a device, or a path."""
    special = {"lora-modules": "a=b"}
    if str(option["name"]) in special:
        return special[str(option["name"])]
    if choices := option.get("choices"):
        return str(next(iter(choices)))  # type: ignore[call-overload]
    kind = str(option.get("kind", "text"))
    return {"integer": "1", "number": "1.5", "json": "{}"}.get(kind, "1")
