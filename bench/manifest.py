"""
How long a large manifest takes to load: 122 profiles with 20,000 files, as the largest image seen has.

Every load runs in an interpreter of its own. The first reads and checks the YAML and stores the parsed form; the
second finds it. Imports are timed apart, as every command has them anyway.

    python bench/manifest.py [--runs N] [--record]
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

PROFILES: Final = 122
FILES: Final = 20_000
RESULT: Final = Path(__file__).parent / "results" / "manifest.md"

# what one interpreter does; prints seconds and counts as JSON
_LOAD: Final = """
import json, resource, sys, time
from pathlib import Path
started = time.perf_counter()
from nim_core.manifest import load_manifest
imported = time.perf_counter()
manifest = load_manifest(Path(sys.argv[1]))
loaded = time.perf_counter()
first = len(manifest.profiles[0].files)
one = time.perf_counter()
total = sum(len(profile.files) for profile in manifest.profiles)
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"import": imported - started, "load": loaded - imported, "one profile": one - loaded,
    "all profiles": done - one, "files": total, "profiles": len(manifest.profiles), "peak": peak}))
"""


def manifest_lines() -> Iterator[str]:
    """Yield the manifest, the same one every time."""
    yield "schema_version: 2.0.0\nprofile_selection_criteria: default\nprofiles:\n"
    for profile in range(PROFILES):
        share = FILES // PROFILES + (profile < FILES % PROFILES)
        yield f"- id: {_hex(f'profile {profile}')}\n  tags:\n    feat_lora: 'false'\n    gpu: H100\n"
        yield "    gpu_device: 2330:10de\n    llm_engine: tensorrt_llm\n    pp: '1'\n    precision: fp8\n"
        yield f"    profile: throughput\n    tp: '{2 ** (profile % 4)}'\n  workspace:\n    files:\n"
        for file in range(share):
            yield f"      trtllm_engine/rank{file}.engine:\n"
            yield f"        uri: ngc://nim/meta/llama-3.3-70b-instruct:h100x{profile}-fp8-t.1b2c3d?file=rank{file}.engine\n"
            yield f"        checksum: 'blake3:{_hex(f'{profile} {file}')}'\n"


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def load(path: Path) -> dict[str, Any]:
    """Load in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", _LOAD, path], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    assert (result["profiles"], result["files"]) == (PROFILES, FILES)
    return result


def measure(path: Path, runs: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the results of ``runs`` first and as many second loads."""
    first, second = [], []
    for _ in range(runs):
        for parsed in path.parent.glob(".*.parsed"):
            parsed.unlink()
        first.append(load(path))
        second.append(load(path))
    return first, second


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| | min | median | peak memory |", "|---|---|---|---|"]
    for name, runs in results.items():
        seconds = [run["load"] for run in runs]
        peak = max(run["peak"] for run in runs)
        lines.append(f"| {name} load | {_ms(min(seconds))} | {_ms(statistics.median(seconds))} | {peak:.0f} MiB |")
    every = [run for runs in results.values() for run in runs]
    for part, name in (("import", "importing it"), ("one profile", "files of one profile, when first asked for")):
        seconds = [run[part] for run in every]
        lines.append(f"| {name} | {_ms(min(seconds))} | {_ms(statistics.median(seconds))} | |")
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def report(path: Path, runs: int) -> str:
    """Measure, and say what was measured where."""
    first, second = measure(path, runs)
    size = path.stat().st_size / 1024**2
    (parsed,) = path.parent.glob(".*.parsed")
    parsed_size = parsed.stat().st_size / 1024**2
    machine = f"{os.cpu_count()} cores, Python {platform.python_version().rpartition('.')[0]}"
    today = datetime.datetime.now(datetime.UTC).date()
    return f"""\
# Loading a large manifest

{PROFILES} profiles, {FILES:,} files, {size:.1f} MiB of YAML; its parsed form has {parsed_size:.1f} MiB.

{table({"first": first, "second": second})}

{machine}, {today}; {runs} runs, each load in a fresh interpreter.
Repeat with `python bench/manifest.py --runs {runs} --record`.
"""


def main() -> None:
    """Print the figures, and keep them when asked to."""
    parser = argparse.ArgumentParser(description="how long a large manifest takes to load")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--record", action="store_true", help="write the figures to bench/results/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model_manifest.yaml"
        path.write_text("".join(manifest_lines()), encoding="utf-8")
        text = report(path, arguments.runs)
    print(text)
    if arguments.record:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
