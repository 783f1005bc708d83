"""
Asks a Ray cluster, run by Ray's own Python as ``python -P ray_driver.py ORDER``; nothing else of ours is imported.

``ORDER`` is a file of JSON, see :class:`Order`. The driver waits for the nodes, has each but its own get the model, and
then watches them until it is ended or one of them is lost. It tells what happens on standard output, an object of JSON
a line, of which ``event`` says what it is::

    {"event": "nodes", "addresses": ["10.0.0.1"]}          whenever others are there than before
    {"event": "line", "node": "10.0.0.2", "text": "..."}   what the command says that gets the model there
    {"event": "done", "node": "10.0.0.2", "status": 0}     it has ended; null: it could not be run
    {"event": "broken", "node": "10.0.0.2", "text": "..."} Ray could not run it to its end
    {"event": "ready"}                                     every node has the model
    {"event": "lost", "node": "10.0.0.2"}                  a node is gone

It ends with 0 when nodes do not come in time, do not get the model, or are lost: it has told so.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, TypedDict

PYTHON_VARIABLE = "NIM_RAY_PYTHON"
"""Says on each node which Python has our commands there; set by nim-serve-ray for the Ray that it starts."""

_LOOK_SECONDS = 1.0
_WATCH_SECONDS = 3.0
_BEGIN_SECONDS = 120.0
"""How long Ray may take to start a process on a node that is there."""

_RUN = "from nim_core.cli.app import by_name; by_name()"

_telling = threading.Lock()


class Order(TypedDict):
    """
    What the driver is to do.

    Attributes:
        head: HOST:PORT of the head.
        address: Of this machine.
        count: How many nodes there have to be, this one included.
        seconds: How long they may take to come.
        command: Of ours, and its arguments; ``{manifest}`` stands for the file with the manifest. Empty: none is run.
        environ: Variables it gets on top of the node's own.
        manifest: Text of that file.
    """

    head: str
    address: str
    count: int
    seconds: float
    command: list[str]
    environ: dict[str, str]
    manifest: str


def main(path: str) -> int:
    """Do what the file says, and return the exit status."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 -- as little as possible is imported
        order: Order = json.load(file)
    import ray

    deadline = time.monotonic() + order["seconds"]
    if not _connect(ray, order, deadline):
        return 0
    own = ray.get_runtime_context().get_node_id()
    nodes = _wait_for_nodes(ray, order["count"], deadline)
    others = {node: address for node, address in nodes.items() if node != own}
    if len(nodes) < order["count"] or (order["command"] and not _get_model(ray, others, order)):
        return 0
    tell("ready")
    _watch(ray, others)
    return 0


def tell(event: str, **facts: object) -> None:
    """Tell what happened; from any thread."""
    with _telling:
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()


def _connect(ray: Any, order: Order, deadline: float) -> bool:
    """Become a driver of the cluster, once its head answers; False when it does not in time."""
    while time.monotonic() < deadline:
        try:
            # by this parameter Ray itself tells to name the address where it cannot find it out
            ray.init(address=order["head"], _node_ip_address=order["address"], log_to_driver=False)
        except (ConnectionError, RuntimeError) as error:
            sys.stderr.write(f"{error}\n")
            time.sleep(_LOOK_SECONDS)
        else:
            return True
    tell("nodes", addresses=[])
    return False


def _alive(ray: Any) -> dict[str, str]:
    """Return the addresses of the nodes that are there, by their ids."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def _wait_for_nodes(ray: Any, count: int, deadline: float) -> dict[str, str]:
    """Return the nodes once they are ``count``, or those that came in time."""
    seen: dict[str, str] = {}
    while True:
        nodes = _alive(ray)
        if nodes != seen:
            tell("nodes", addresses=sorted(nodes.values()))
            seen = nodes
        if len(nodes) >= count or time.monotonic() > deadline:
            return nodes
        time.sleep(_LOOK_SECONDS)


def _get_model(ray: Any, nodes: dict[str, str], order: Order) -> bool:
    """Have every node get the model, all at the same time; False as soon as one of them cannot."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, num_returns="streaming", max_retries=0)(run_command)
    results: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def run(node: str) -> None:
        where = NodeAffinitySchedulingStrategy(node, soft=False)
        results.put(_follow(ray, nodes[node], task.options(scheduling_strategy=where).remote(order)))

    for node in nodes:
        threading.Thread(target=run, args=(node,), daemon=True).start()
    return all(results.get() for _ in nodes)


def _follow(ray: Any, address: str, told: Iterator[Any]) -> bool:
    """Pass on what a node's command tells; False when it failed."""
    begun, _ = ray.wait([told], timeout=_BEGIN_SECONDS)
    if not begun:
        tell("broken", node=address, text=f"Ray started no process there within {_BEGIN_SECONDS:.0f} s")
        return False
    try:
        for reference in told:
            event, value = ray.get(reference)
            if event == "line":
                tell("line", node=address, text=value)
            elif event == "done":
                tell("done", node=address, status=value)
                return bool(value == 0)
    except ray.exceptions.RayError as error:
        tell("broken", node=address, text=str(error))
    return False


def run_command(order: Order) -> Iterator[tuple[str, Any]]:
    """Run the command on the node that this task is on; yield that it begins, its lines, and last its status."""
    yield "begun", None
    python = os.environ.get(PYTHON_VARIABLE)
    if python is None or not os.path.exists(python):  # noqa: PTH110
        yield "done", None
        return
    with tempfile.TemporaryDirectory() as folder:
        manifest = os.path.join(folder, "manifest.json")  # noqa: PTH118
        with open(manifest, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(order["manifest"])
        words = [manifest if word == "{manifest}" else word for word in order["command"]]
        process = subprocess.Popen(  # noqa: S603 -- our own command
            [python, "-P", "-c", _RUN, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **order["environ"]},
        )
        assert process.stderr is not None
        for line in process.stderr:
            yield "line", line.rstrip("\n")
        yield "done", process.wait()


def _watch(ray: Any, nodes: dict[str, str]) -> None:
    """Return when one of the nodes is gone."""
    while True:
        alive = _alive(ray)
        for node, address in nodes.items():
            if node not in alive:
                tell("lost", node=address)
                return
        time.sleep(_WATCH_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
