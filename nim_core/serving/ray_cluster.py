"""
The head of a Ray cluster of the machines that serve a model together, and what it asks of the others.

Ray's processes are held as an engine's are (``process.py``): none of them outlives this one, and none is ended that was
not started here, as ``ray stop`` would.
"""

from __future__ import annotations

import json
import logging
import queue
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from nim_core.errors import BackendError, BackendExitedError
from nim_core.serving.process import EngineProcess
from nim_core.serving.ray_driver import Order
from nim_core.serving.ray_plans import Endpoint, RayProgram, driver_plan, head_plan
from nim_core.serving.ray_progress import Progress, read_event
from nim_core.types import LaunchPlan, Nodes

__all__ = ["ModelOrder", "RayLeader", "end_process", "ended_error", "log_ray"]

_KILL_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 1.0
_MARGIN_SECONDS: Final = 30.0
_SHOWN_LINES: Final = 10

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class ModelOrder:
    """
    How another node gets the model.

    Attributes:
        command: A command of ours and its arguments; ``{manifest}`` stands for a file with the manifest.
        environ: Variables that it gets on top of the node's own.
        manifest: Text of the manifest, JSON.
    """

    command: Sequence[str]
    environ: Mapping[str, str]
    manifest: str


class RayLeader:
    """
    The head of a cluster, and what this machine asks of the others through it.

    Args:
        ray: The installed Ray.
        nodes: The machines; ``leader`` and ``port`` are where the head listens.
        environ: Core's own environment.
        seconds: How long the others may take to come.
        failed: Called, on another thread and perhaps twice, with what to say when, all nodes having been there, the
            head ends or a node is lost.
    """

    def __init__(
        self,
        ray: RayProgram,
        nodes: Nodes,
        environ: Mapping[str, str],
        seconds: float,
        failed: Callable[[BackendError], None],
    ) -> None:
        self._ray = ray
        self._nodes = nodes
        self._environ = environ
        self._seconds = seconds
        self._failed = failed
        self._told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._gathered = False
        self._stopping = False
        self._driver: EngineProcess | None = None
        self._head = EngineProcess(head_plan(ray, nodes.leader, nodes.port, environ), environ, log_ray)

    def start(self) -> None:
        """Start the head, which takes some seconds that are not waited for. Raises BackendError."""
        self._head.on_end(self._head_ended)
        self._head.start()
        _log.info("Ray: starting the head at %s, for %d nodes in all", self._endpoint, self._nodes.count)

    def gather(self, order: ModelOrder | None) -> None:
        """
        Wait until every node is there and has the model; from then on watch them.

        Args:
            order: How the others get it. None: they need not.

        Raises:
            BackendError: Nodes did not come in time, or were lost; or the head ended.
            NimError: A node cannot get the model, in the class that its own error had there.
        """
        if self._nodes.count > 1:
            with tempfile.TemporaryDirectory(prefix="nim-ray-") as folder:
                path = Path(folder, "order.json")
                path.write_text(json.dumps(self._order(order)), encoding="utf-8")
                self._drive(driver_plan(self._ray, path, self._environ))
        self._gathered = True
        if self._head.status is not None:
            raise self._head_error()

    def stop(self) -> None:
        """End Ray on this machine; to be called when the engine has ended. Nothing happens when it was not started."""
        self._stopping = True
        for process in (self._driver, self._head):
            if process is not None:
                end_process(process)

    @property
    def _endpoint(self) -> Endpoint:
        return Endpoint(self._nodes.leader, self._nodes.port)

    def _order(self, order: ModelOrder | None) -> Order:
        return Order(
            head=str(self._endpoint),
            address=self._nodes.leader,
            count=self._nodes.count,
            seconds=self._seconds,
            command=[] if order is None else list(order.command),
            environ={} if order is None else dict(order.environ),
            manifest="" if order is None else order.manifest,
        )

    # -- the driver ----------------------------------------------------------------------------------------------------

    def _drive(self, plan: LaunchPlan) -> None:
        """Run the driver, and return when it says that all is ready; it goes on to watch."""
        progress = Progress(self._nodes.count, self._seconds)
        self._driver = driver = EngineProcess(plan, self._environ, self._hear)
        driver.on_end(lambda: self._told.put({"event": "ended"}))
        driver.start()
        deadline = time.monotonic() + self._seconds + _MARGIN_SECONDS
        while not progress.ready:
            if self._head.status is not None:
                raise self._head_error()
            if progress.waits and time.monotonic() > deadline:
                raise progress.missing()
            with suppress(queue.Empty):
                told = self._told.get(timeout=_LOOK_SECONDS)
                if told["event"] == "ended":
                    self._told_all(driver, progress)
                progress.note(told)

    def _told_all(self, driver: EngineProcess, progress: Progress) -> None:
        """Raise what the driver's end means; its last words may come after the news of it."""
        driver.wait(_KILL_SECONDS)
        while not self._told.empty():
            progress.note(self._told.get())
        if progress.waits and driver.status == 0:
            raise progress.missing()
        raise ended_error("the program that asks the Ray cluster ended", driver)

    def _hear(self, text: str) -> None:
        told = read_event(text)
        if told is None:
            log_ray(text)
        elif told["event"] == "lost":
            self._fail(BackendExitedError(f"a node left the Ray cluster: {told['node']}"))
        else:
            self._told.put(told)

    # -- failures ------------------------------------------------------------------------------------------------------

    def _head_ended(self) -> None:
        if self._gathered:
            self._fail(self._head_error())

    def _head_error(self) -> BackendError:
        return ended_error(f"the Ray head at {self._endpoint} ended", self._head)

    def _fail(self, error: BackendError) -> None:
        if not self._stopping:
            self._failed(error)


def log_ray(line: str) -> None:
    """Log a line of Ray's."""
    if line.strip():
        _log.debug("Ray: %s", line)


def ended_error(what: str, process: EngineProcess) -> BackendExitedError:
    """Return the error for a process of Ray's that ended by itself, with its last lines."""
    lines = "".join(f"\n  {line}" for line in process.last_lines[-_SHOWN_LINES:])
    return BackendExitedError(f"{what}, with status {process.status}{lines}", hint="its last lines are above")


def end_process(process: EngineProcess) -> None:
    """End a process of Ray's and all that it started; one that was not started is none."""
    if process.pid is None:
        return
    process.terminate()
    if process.wait(_KILL_SECONDS) is None:
        process.kill()
        process.wait(_KILL_SECONDS)
