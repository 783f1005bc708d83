"""This machine as a node of a Ray cluster whose head is elsewhere."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from typing import Final

from nim_core.errors import BackendError
from nim_core.serving.process import EngineProcess
from nim_core.serving.ray_cluster import end_process, ended_error, log_ray
from nim_core.serving.ray_plans import Endpoint, RayProgram, join_plan

__all__ = ["join_cluster", "wait_for_head"]

_CONNECT_SECONDS: Final = 5.0
_TRY_SECONDS: Final = 1.0
_TELL_SECONDS: Final = 30.0
_END_SECONDS: Final = 15.0

_log = logging.getLogger(__name__)


def wait_for_head(head: Endpoint, seconds: float) -> Endpoint:
    """
    Return the address of a head, once something listens there.

    Args:
        head: As the user named it; a host name may not be known yet, when its machine is just starting.
        seconds: How long that may take.

    Raises:
        BackendError: It took longer.
    """
    end, tell_at, reason = time.monotonic() + seconds, 0.0, "no time to try"
    while time.monotonic() < end:
        left = max(end - time.monotonic(), _TRY_SECONDS)
        try:
            with socket.create_connection((head.host, head.port), timeout=min(_CONNECT_SECONDS, left)) as connection:
                return Endpoint(connection.getpeername()[0], head.port)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
        if time.monotonic() > tell_at:
            tell_at = time.monotonic() + _TELL_SECONDS
            _log.info("waiting for the Ray head at %s: %s", head, reason)
        time.sleep(_TRY_SECONDS)
    raise BackendError(
        f"no Ray head at {head} within {seconds:.0f} s: {reason}",
        hint="start nim-serve-ray --head there, check --head-address, or set NIM_RAY_NODES_TIMEOUT to more seconds",
    )


def join_cluster(ray: RayProgram, head: Endpoint, address: str, environ: Mapping[str, str]) -> None:
    """
    Be a node of a cluster until that ends, or an interrupt says so.

    Args:
        ray: The installed Ray.
        head: Where the head listens.
        address: Of this machine, as the other nodes reach it.
        environ: Core's own environment.

    Raises:
        BackendExitedError: The head is gone, or this node's Ray failed.
        BackendError: Ray cannot be started.
        KeyboardInterrupt: It was told to end, and has.
    """
    process = EngineProcess(join_plan(ray, head, address, environ), environ, log_ray)
    try:
        process.start()
        _log.info("Ray: joining the head at %s as %s", head, address)
        process.ended.wait()
    except BaseException:
        end_process(process)
        raise
    process.wait(_END_SECONDS)
    raise ended_error(f"this node's part in the Ray cluster of {head} ended", process)
