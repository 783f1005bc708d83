"""
Ray's processes on one machine, described: a head or a worker node, and the driver that asks the cluster.

Ray is not imported. ``ray start --block`` holds a node's processes together, and the driver (``ray_driver.py``) is run
by Ray's own Python, which need not be the one that runs this. Both are to be those that the engine finds, too: all
nodes of a cluster, and what connects to it, have to be of one version.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.errors import BackendMissingError, ConfigError
from nim_core.serving import ray_driver
from nim_core.types import EnvVar, LaunchPlan

__all__ = [
    "DEFAULT_PORT",
    "RAY_VARIABLES",
    "Endpoint",
    "RayProgram",
    "driver_plan",
    "engine_environ",
    "find_ray",
    "head_plan",
    "join_plan",
]

DEFAULT_PORT: Final = 6379
"""Where a head listens unless it is told otherwise; Ray's own default."""

RAY_VARIABLES: Final[tuple[EnvVar, ...]] = (
    EnvVar(
        name="NIM_RAY_NODES_TIMEOUT",
        kind="seconds",
        default="600",
        summary="how long nim-serve-ray waits for the other nodes, on a worker for the head",
    ),
    EnvVar(name="PATH", summary="where programs are that are not beside this Python"),
)

_DRIVER: Final = str(Path(ray_driver.__file__))
_FOLLOW_UV: Final = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
"""Unless this is 0, what was started beneath ``uv run`` has Ray start its workers, on every node, by the same words."""

_STOP_SECONDS: Final = 10.0
_RECONNECT: Final = "RAY_gcs_rpc_server_reconnect_timeout_s"
_RECONNECT_SECONDS: Final = "30"
"""How long a node goes on without its head, in place of Ray's 60 s: what it serves ended with the head."""


@frozen
class Endpoint:
    """Where a head listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read ``HOST:PORT``, ``[ADDRESS]:PORT`` or ``HOST``. Raises ConfigError when it is none of these."""
        host, colon, port = text.rpartition(":")
        if not colon or text.endswith("]"):
            host, port = text, str(DEFAULT_PORT)
        host = host.removeprefix("[").removesuffix("]")
        if not host or not _is_port(port):
            raise ConfigError(f"not the address of a Ray head: {text}", hint="it is HOST:PORT")
        return cls(host, int(port))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


@frozen(kw_only=True)
class RayProgram:
    """
    An installed Ray.

    Attributes:
        command: The executable ``ray``.
        python: The interpreter that has it.
    """

    command: str
    python: str


def find_ray(path: str | None) -> RayProgram:
    """
    Return the Ray beside this Python, else the first on ``path``.

    Args:
        path: Folders as in the variable PATH. None: the system's.

    Raises:
        BackendMissingError: There is none.
    """
    beside = Path(sysconfig.get_path("scripts"), "ray")
    if beside.is_file():
        return RayProgram(command=str(beside), python=sys.executable)
    found = shutil.which("ray", path=path)
    if found is None:
        raise BackendMissingError("Ray is not installed", hint="pip install 'nim-core[ray]', or start by nim-serve")
    python = Path(found).resolve().with_name("python3")
    if not python.is_file():
        raise BackendMissingError(f"no Python beside Ray's command: {found}", hint="pip install 'nim-core[ray]'")
    return RayProgram(command=found, python=str(python))


def head_plan(ray: RayProgram, address: str, port: int, environ: Mapping[str, str]) -> LaunchPlan:
    """
    Describe the processes of a head.

    Args:
        ray: The installed Ray.
        address: Of this machine, as the other nodes reach it.
        port: Where the head listens.
        environ: The environment.
    """
    return _node_plan(
        ray,
        ("--head", f"--port={port}", f"--node-ip-address={address}", "--include-dashboard=false"),
        ("--disable-usage-stats",),
        environ,
    )


def join_plan(ray: RayProgram, head: Endpoint, address: str, environ: Mapping[str, str]) -> LaunchPlan:
    """Describe the processes of a node that joins ``head``; arguments as :func:`head_plan`."""
    return _node_plan(ray, (f"--address={head}", f"--node-ip-address={address}"), (), environ)


def driver_plan(ray: RayProgram, order: Path, environ: Mapping[str, str]) -> LaunchPlan:
    """
    Describe the driver.

    Args:
        ray: The installed Ray.
        order: File with what it is to do; see ``ray_driver.py``.
        environ: The environment.
    """
    return _plan((ray.python, "-P", _DRIVER, str(order)), environ)


def engine_environ(head: Endpoint) -> dict[str, str]:
    """Return the variables by which an engine finds the cluster of ``head``, and uses it as it is."""
    return {"RAY_ADDRESS": str(head), "RAY_USAGE_STATS_ENABLED": "0", _FOLLOW_UV: "0"}


def _node_plan(
    ray: RayProgram, where: tuple[str, ...], more: tuple[str, ...], environ: Mapping[str, str]
) -> LaunchPlan:
    return _plan((ray.command, "start", *where, *more, "--block"), environ)


def _plan(argv: tuple[str, ...], environ: Mapping[str, str]) -> LaunchPlan:
    own = {
        "PYTHONUNBUFFERED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        _FOLLOW_UV: "0",
        _RECONNECT: environ.get(_RECONNECT) or _RECONNECT_SECONDS,
        ray_driver.PYTHON_VARIABLE: sys.executable,
    }
    return LaunchPlan(
        argv=argv,
        title="Ray",
        environ=own,
        without=("RAY_ADDRESS",),  # of another cluster, or of this one before it is there
        health_path=None,
        routes=(),
        stop_seconds=_STOP_SECONDS,
    )
