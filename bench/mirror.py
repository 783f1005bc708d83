"""
Uploads, ours against other tools: into one S3 server, in rounds, each time into an empty prefix.

    python bench/mirror.py [--quick] [--cases NAME ...] [--runs N] [--install DIR] [--record]

``pipeline`` compares a whole mirror with its two halves, a download and an upload of what was downloaded. What is not
installed is named. Times are those of whole processes; the server is real and on this machine, so most of the work is
its own, which is why CPU seconds of the contestant are given too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml
from attrs import frozen
from transfer_bench.stats import ratios, show_bytes, summarize
from transfer_bench.tools import Toolbox, find_tools, install_tools

from nim_core.testing.s3_server import S3Server

RESULTS: Final = Path(__file__).parent / "results"
PROFILE: Final = "ab" * 32
MIB: Final = 1 << 20
BUCKET: Final = "bench"


@frozen
class Case:
    """Files of one size."""

    count: int
    size: int
    words: str


@frozen
class Sample:
    """One run: seconds by the clock, and of CPU of its processes."""

    wall: float
    cpu: float


CASES: Final = {
    "large": Case(8, 512 * MIB, "8 files of 512 MiB"),
    "small": Case(2000, 64 * 1024, "2,000 files of 64 KiB"),
    "pipeline": Case(1, 1024 * MIB, "1 GiB from NGC's protocol into the bucket"),
}
QUICK: Final = {
    "large": Case(2, 96 * MIB, "2 files of 96 MiB"),
    "small": Case(100, 64 * 1024, "100 files of 64 KiB"),
    "pipeline": Case(1, 96 * MIB, "96 MiB from NGC's protocol into the bucket"),
}


@frozen
class Arena:
    """Where uploads go to and come from."""

    server: S3Server
    tools: Toolbox
    folder: Path
    children: list[subprocess.Popen[str]]

    def environment(self) -> dict[str, str]:
        """Return the variables of every contestant."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", **self.server.environment()}


def main() -> None:
    """Measure, print, and keep it when asked to."""
    arguments = parser().parse_args()
    tools = install_tools(arguments.install) if arguments.install else find_tools(None)
    cases = QUICK if arguments.quick else CASES
    with tempfile.TemporaryDirectory(prefix="nim-bench-") as name:
        folder = Path(name)
        with S3Server(folder=folder / "s3", buckets=(BUCKET,)) as server:
            arena = Arena(server, tools, folder, [])
            try:
                sections = [section(arena, case, cases[case], arguments.runs) for case in arguments.cases]
            finally:
                for child in arena.children:
                    child.terminate()
                    child.wait()
    text = "\n\n".join(["# Mirrors", about(arguments, tools), *sections]) + "\n"
    print(text)
    if arguments.record:
        (RESULTS / "mirror.md").write_text(text, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """Return what the command line may have."""
    made = argparse.ArgumentParser(description="uploads, ours against other tools")
    made.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES], metavar="NAME", help=", ".join(CASES))
    made.add_argument("--runs", type=int, default=3, help="rounds")
    made.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast it is")
    made.add_argument("--install", type=Path, metavar="DIR", help="install what is missing")
    made.add_argument("--record", action="store_true", help="write the figures to bench/results/")
    return made


def about(arguments: argparse.Namespace, tools: Toolbox) -> str:
    """Return what the figures are of."""
    versions = tools.versions()
    used = ", ".join(f"{name} {versions[name]}" for name in ("weed", "s5cmd", "rclone", "aws") if name in versions)
    missing = "; ".join(f"{name}: {why}" for name, why in tools.missing.items() if name in {"s5cmd", "rclone", "aws"})
    return (
        f"{os.cpu_count()} cores shared with other work, SeaweedFS on the same machine, {arguments.runs} rounds in "
        f"turns; median (lowest to highest). {used}." + (f" Missing: {missing}." if missing else "")
    )


def section(arena: Arena, name: str, case: Case, runs: int) -> str:
    """Measure a case and return what is said about it."""
    files = arena.folder / name
    contestants = pipeline(arena, files, case) if name == "pipeline" else uploads(arena, files, case)
    samples: dict[str, list[Sample]] = {who: [] for who in contestants}
    for number in range(runs):
        for who, run in contestants.items():
            prefix = f"{name}-{number}-{len(samples[who])}-{who.split()[0]}"
            samples[who].append(run(prefix))
            print(f"{name} {who}: {samples[who][-1].wall:.1f} s", file=sys.stderr, flush=True)
            clear(arena, prefix)
    shutil.rmtree(files, ignore_errors=True)
    return table(case, samples)


def table(case: Case, samples: dict[str, list[Sample]]) -> str:
    """Return the figures of a case; ratios are of ours, which is first, round by round."""
    ours = [sample.wall for sample in next(iter(samples.values()))]
    lines = [f"## {case.words}", "", "| who | seconds | CPU seconds | ours / theirs | speed |", "|---|---|---|---|---|"]
    for who, taken in samples.items():
        walls = [sample.wall for sample in taken]
        speed = f"{show_bytes(case.count * case.size / summarize(walls).median)}/s"
        ratio = summarize(ratios(ours, walls)).show()
        cpu = summarize(sample.cpu for sample in taken).show(1)
        lines.append(f"| {who} | {summarize(walls).show(1)} | {cpu} | {ratio} | {speed} |")
    return "\n".join(lines)


def uploads(arena: Arena, files: Path, case: Case) -> dict[str, Callable[[str], Sample]]:
    """Return who uploads the same files."""
    files.mkdir()
    for number in range(case.count):
        (files / f"part-{number:05}.safetensors").write_bytes(os.urandom(case.size))
    manifest = arena.folder / f"{files.name}.yaml"
    manifest.write_text(local_manifest(files), encoding="utf-8")
    url, tools = arena.server.url, arena.tools.found
    remote = f":s3,provider=SeaweedFS,env_auth=true,force_path_style=true,endpoint='{url}':{BUCKET}"
    options = ["--transfers=32", "--s3-upload-concurrency=8", "--s3-chunk-size=32M", "--config=/dev/null"]
    commands: dict[str, Callable[[str], list[str]]] = {"ours": lambda prefix: mirror(arena, manifest, prefix)}
    if "s5cmd" in tools:
        commands["s5cmd cp"] = lambda prefix: [
            *(str(tools["s5cmd"]), "--endpoint-url", url, "cp", f"{files}/*", f"s3://{BUCKET}/{prefix}/")
        ]
    if "rclone" in tools:
        commands["rclone copy"] = lambda prefix: [
            *(str(tools["rclone"]), "copy", str(files), f"{remote}/{prefix}", *options)
        ]
    if "aws" in tools:
        commands["aws s3 cp"] = lambda prefix: [
            *(str(tools["aws"]), "--endpoint-url", url, "s3", "cp", "--recursive", "--quiet", str(files)),
            f"s3://{BUCKET}/{prefix}/",
        ]
    return {who: lambda prefix, make=make: timed(arena, make(prefix)) for who, make in commands.items()}


def pipeline(arena: Arena, files: Path, case: Case) -> dict[str, Callable[[str], Sample]]:
    """Return a mirror, and its halves by themselves."""
    files.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-m", "nim_core.testing.ngc_server", f"--folder={files}", f"--shard-size={case.size}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    arena.children.append(server)
    assert server.stdout is not None
    environ = json.loads(server.stdout.readline())["environment"]
    manifest, cache = files / "model_manifest.yaml", files / "cache"
    cached = {"NIM_CACHE_PATH": str(cache), **environ}

    def download(_prefix: str) -> Sample:
        shutil.rmtree(cache, ignore_errors=True)
        return timed(arena, ["download-to-cache", f"--manifest-file={manifest}"], cached)

    def upload(prefix: str) -> Sample:
        return timed(arena, mirror(arena, manifest, prefix), cached)

    def both(prefix: str) -> Sample:
        shutil.rmtree(cache, ignore_errors=True)
        return timed(arena, mirror(arena, manifest, prefix), cached)

    return {"mirror": both, "download alone": download, "upload alone": upload}


def mirror(arena: Arena, manifest: Path, prefix: str) -> list[str]:
    """Return our command."""
    del arena
    return ["nim-llm", "mirror", "s3", f"--bucket={BUCKET}", f"--prefix={prefix}", f"--manifest-file={manifest}"]


def local_manifest(files: Path) -> str:
    """Return a manifest of files that are used from where they are."""
    entries = {path.name: {"uri": f"local://{files}?file={path.name}"} for path in sorted(files.iterdir())}
    profile = {"id": PROFILE, "tags": {"llm_engine": "vllm"}, "workspace": {"files": entries}}
    return yaml.safe_dump({"schema_version": "2.0", "profiles": [profile]})


def timed(arena: Arena, command: list[str], more: dict[str, str] | None = None) -> Sample:
    """Run a command to its end and say how long it took."""
    environ = {**arena.environment(), "NIM_CACHE_PATH": str(arena.folder / "cache"), **(more or {})}
    began, before = time.monotonic(), os.times()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - began, os.times()
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Sample(wall, used)


def clear(arena: Arena, prefix: str) -> None:
    """Remove what was uploaded."""
    import boto3
    from botocore.config import Config

    keys = arena.server.admin
    client = boto3.client(
        "s3",
        endpoint_url=arena.server.url,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        objects = [{"Key": entry["Key"]} for entry in page.get("Contents", ())]
        if objects:
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})


if __name__ == "__main__":
    main()
