"""
Who is measured, and the command line of each.

A command is made before the clock starts, its lists and manifests are written by then. It runs in an empty folder that
it has to fill. Connections are eight wherever a tool has a setting for them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from attrs import frozen

from transfer_bench.nginx import HUB_REPO
from transfer_bench.records import Command, Mode, S3Access, Skipped, Task
from transfer_bench.source import manifest
from transfer_bench.store import CLIENT

__all__ = ["CONTESTANTS", "OURS", "OURS_SHA256", "Contestant"]

CONNECTIONS: Final = 8
OURS: Final = "ours"
OURS_SHA256: Final = "ours, sha256"
_SMALL_BYTES: Final = 1 << 20


@frozen(kw_only=True)
class Contestant:
    """
    One way to fetch files.

    Attributes:
        name: As in the report.
        tool: What has to be installed. None for ours.
        command: Returns the command line for a task. Raises Skipped when it cannot do that task.
        note: What has to be known about it to read its figures.
    """

    name: str
    tool: str | None
    command: Callable[[Task], Command]
    note: str = ""


# ---------------------------------------------------------------------------------------------------------------- ours
def ours(task: Task, algorithm: str = "blake3") -> Command:
    """Return the real command line, with a manifest that has digests."""
    path = task.scratch / f"manifest-{algorithm}.yaml"
    path.write_text(manifest(task, algorithm), encoding="utf-8")
    program = Path(sys.executable).with_name("download-to-cache")
    if not program.exists():
        raise Skipped("download-to-cache is not beside this Python: install nim-core")
    arguments = [str(program), f"--manifest-file={path}", f"--model-cache-path={task.folder / 'cache'}", "--json"]
    if task.mode is Mode.WARM:
        arguments.append("--use-cache")
    variables = {"SSL_CERT_FILE": str(task.endpoint.ca)} if task.endpoint.ca else {}
    return Command(arguments=tuple(arguments), variables=variables)


def ours_sha256(task: Task) -> Command:
    """Return the same where the manifest promises SHA-256."""
    return ours(task, "sha256")


# ---------------------------------------------------------------------------------------------------------------- curl
def curl(task: Task) -> Command:
    """Return curl with one connection."""
    return Command(arguments=tuple(_curl(task)))


def curl_parallel(task: Task) -> Command:
    """Return curl with several connections; a large file in ranges, each into a file of its own."""
    if len(task.files) > 1:
        many = CONNECTIONS if task.files[0].size > _SMALL_BYTES else 50
        return Command(arguments=(*_curl(task), "--parallel", "--parallel-immediate", "--parallel-max", str(many)))
    (content,) = task.files
    step = -(-content.size // CONNECTIONS)
    arguments = [str(task.tools["curl"]), "--parallel", "--parallel-immediate"]
    for first in range(0, content.size, step):
        last = min(content.size, first + step) - 1
        here = [*_curl_options(task), "--range", f"{first}-{last}", "--output", f"part-{first:015}", task.url(content)]
        arguments += [*here, "--next"]
    return Command(arguments=tuple(arguments[:-1]))


def curl_sha256sum(task: Task) -> Command:
    """Return curl followed by sha256sum, as people verify by hand; several files with several connections."""
    fetch = curl(task) if len(task.files) == 1 else curl_parallel(task)
    return _shell(fetch, "sha256sum -- *.bin")


def curl_fsync(task: Task) -> Command:
    """Return curl followed by fsync: what ours does before a file becomes visible."""
    return _shell(curl(task), "sync -- *.bin")


def _shell(first: Command, then: str) -> Command:
    return Command(arguments=("/bin/sh", "-c", f"{shlex.join(first.arguments)} && {then}"))


def _curl(task: Task) -> list[str]:
    lines = []
    for content in task.files:
        lines += [f'url = "{task.url(content)}"', f'output = "{content.name}"']
    path = task.scratch / "curl.config"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    again = ["--continue-at", "-"] if task.mode is Mode.RESUME else []
    return [str(task.tools["curl"]), *_curl_options(task), *again, "--config", str(path)]


def _curl_options(task: Task) -> list[str]:
    trust = ["--cacert", str(task.endpoint.ca)] if task.endpoint.ca else []
    return ["--silent", "--show-error", "--fail", *trust]


# -------------------------------------------------------------------------------------------------------------- aria2c
def aria2c(task: Task) -> Command:
    """Return aria2c -x8 -s8; many small files with 50 at once instead of ranges."""
    listed = task.scratch / "aria2c.list"
    lines = [f"{task.url(content)}\n out={content.name}" for content in task.files]
    listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    small = task.files[0].size <= _SMALL_BYTES
    split = ["-x1", "-j50"] if small else [f"-x{CONNECTIONS}", f"-s{CONNECTIONS}", "-k16M", "-j2"]
    quiet = ["--quiet", "--summary-interval=0", "--file-allocation=none", "--no-conf"]
    trust = [f"--ca-certificate={task.endpoint.ca}"] if task.endpoint.ca else []
    again = ["--continue=true"] if task.mode is Mode.RESUME else []
    where = [f"--input-file={listed}", f"-d{task.folder}"]
    return Command(arguments=(str(task.tools["aria2c"]), *quiet, *split, *trust, *again, *where))


# ------------------------------------------------------------------------------------------------------------------ hf
def hf(task: Task) -> Command:
    """Return hf download, without Xet; it meets a Hub made of static answers."""
    if task.endpoint.hub is None:
        raise Skipped("no Hub at this address")
    variables = {
        "HF_ENDPOINT": task.endpoint.hub,
        "HF_HOME": str(task.folder / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }
    if task.mode is Mode.WARM:
        variables["HF_HUB_OFFLINE"] = "1"
    return Command(arguments=(str(task.tools["hf"]), "download", HUB_REPO), variables=variables)


# ------------------------------------------------------------------------------------------------------- object stores
def s5cmd(task: Task) -> Command:
    """Return s5cmd cp with 8 ranges at once per file."""
    s3 = _s3(task)
    arguments = ("--endpoint-url", s3.endpoint, "cp", "-c", str(CONNECTIONS), f"s3://{s3.bucket}/*", ".")
    return Command(arguments=(str(task.tools["s5cmd"]), *arguments), variables=s3.variables)


def rclone(task: Task) -> Command:
    """Return rclone copy with 8 streams per file."""
    s3 = _s3(task)
    remote = f":s3,provider=SeaweedFS,env_auth=true,endpoint='{s3.endpoint}',force_path_style=true:{s3.bucket}"
    options = (f"--multi-thread-streams={CONNECTIONS}", "--transfers=16", "--config=/dev/null")
    return Command(arguments=(str(task.tools["rclone"]), "copy", remote, ".", *options), variables=s3.variables)


def aws(task: Task) -> Command:
    """Return aws s3 cp."""
    s3 = _s3(task)
    arguments = ("s3", "cp", f"s3://{s3.bucket}/", ".", "--recursive", "--only-show-errors")
    return Command(
        arguments=(str(task.tools["aws"]), "--endpoint-url", s3.endpoint, *arguments), variables=s3.variables
    )


def boto3(task: Task) -> Command:
    """Return a script that calls download_file with 8 threads per file."""
    return _boto3(task, "classic", {})


def boto3_crt(task: Task) -> Command:
    """Return the same with the AWS common runtime, which wants TLS on port 443 and no other."""
    s3 = _s3(task)
    if s3.tls_endpoint is None or task.endpoint.ca is None:
        raise Skipped(f"the CRT speaks TLS to port 443 only; {s3.tls_reason}")
    variables = {"AWS_ENDPOINT_URL": s3.tls_endpoint, "SSL_CERT_FILE": str(task.endpoint.ca)}
    return _boto3(task, "crt", variables)


def _boto3(task: Task, how: str, variables: Mapping[str, str]) -> Command:
    s3 = _s3(task)
    names = task.scratch / "names"
    names.write_text("\n".join(content.name for content in task.files), encoding="utf-8")
    arguments = (str(task.tools["boto3"]), str(CLIENT), how, s3.endpoint, s3.bucket, str(task.folder), str(names))
    return Command(arguments=arguments, variables={**s3.variables, **variables})


def _s3(task: Task) -> S3Access:
    if task.endpoint.s3 is None:
        raise Skipped("not an object store")
    return task.endpoint.s3


# ------------------------------------------------------------------------------------------------------------ baseline
def nothing(_task: Task) -> Command:
    """Return an interpreter that starts and ends."""
    return Command(arguments=(sys.executable, "-c", "pass"))


_ALL: Final = (
    Contestant(name=OURS, tool=None, command=ours, note="download-to-cache, BLAKE3 checked, durable before visible"),
    Contestant(name=OURS_SHA256, tool=None, command=ours_sha256, note="as ours; BLAKE3 for the cache, SHA-256 checked"),
    Contestant(name="curl", tool="curl", command=curl, note="one connection"),
    Contestant(
        name="curl --parallel",
        tool="curl",
        command=curl_parallel,
        note="8 ranges of a large file, left in 8 pieces; 8 shards or 50 small files at once",
    ),
    Contestant(
        name="curl, sha256sum",
        tool="curl",
        command=curl_sha256sum,
        note="one connection for one file, 8 for shards; then sha256sum of all",
    ),
    Contestant(name="curl, fsync", tool="curl", command=curl_fsync, note="then fsync, as ours does"),
    Contestant(name="aria2c", tool="aria2c", command=aria2c, note="-x8 -s8 -k16M; small files -x1 -j50"),
    Contestant(name="hf", tool="hf", command=hf, note="hf download, Xet off; the same server answers as a Hub"),
    Contestant(name="s5cmd", tool="s5cmd", command=s5cmd, note="cp -c 8"),
    Contestant(name="rclone", tool="rclone", command=rclone, note="copy --multi-thread-streams=8 --transfers=16"),
    Contestant(name="boto3", tool="boto3", command=boto3, note="download_file, 8 threads"),
    Contestant(name="boto3 CRT", tool="boto3", command=boto3_crt, note="download_file with the CRT, over TLS"),
    Contestant(name="aws", tool="aws", command=aws, note="aws s3 cp --recursive"),
    Contestant(name="python -c pass", tool=None, command=nothing, note="starts and ends"),
)
CONTESTANTS: Final[Mapping[str, Contestant]] = MappingProxyType({one.name: one for one in _ALL})
