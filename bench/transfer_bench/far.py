"""A server that is 50 ms away: nginx in one network namespace, clients in another, a relay with a delay between."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from transfer_bench.nginx import WebServer, running, start_plain, write_config, write_hub
from transfer_bench.records import Content, Skipped

__all__ = ["ROUND_TRIP_MS", "far_server"]

ROUND_TRIP_MS: Final = 50
_CLIENT: Final = "10.98.0.1"
_SERVER: Final = "10.98.0.2"
_PORTS: Final = (8080, 8081)


@contextlib.contextmanager
def far_server(program: Path, files: Path, run: Path, contents: Sequence[Content]) -> Iterator[WebServer]:
    """Serve ``files`` at a distance until the block ends. Raises Skipped where the kernel or the user cannot."""
    _check_possible()
    run.mkdir(parents=True, exist_ok=True)
    write_hub(run, contents)
    write_config(run, files, address=_SERVER, ports=_PORTS)
    near, distant = f"nimbench-a{os.getpid()}", f"nimbench-b{os.getpid()}"
    with _namespace(near), _namespace(distant), _relay(near, distant):
        process = start_plain(program, run, ("ip", "netns", "exec", distant))
        with running(process, run):
            yield WebServer(
                process=process,
                address=_SERVER,
                plain=_PORTS[0],
                capped=_PORTS[1],
                tls=None,
                ca=None,
                log=run / "access.log",
                inside=("ip", "netns", "exec", near),
            )


def _check_possible() -> None:
    if os.geteuid() != 0:
        raise Skipped("network namespaces need root")
    if shutil.which("ip") is None:
        raise Skipped("no ip (iproute2) on PATH")
    if not Path("/dev/net/tun").exists():
        raise Skipped("no /dev/net/tun in this kernel")


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[None]:
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        raise Skipped(f"no network namespaces: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@contextlib.contextmanager
def _relay(near: str, distant: str) -> Iterator[None]:
    script = Path(__file__).with_name("relay.py")
    arguments = [sys.executable, str(script), near, _CLIENT, distant, _SERVER, str(ROUND_TRIP_MS / 2)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise Skipped(f"no TUN link: {process.communicate()[1].strip().splitlines()[-1:]}")
            yield
        finally:
            process.kill()
