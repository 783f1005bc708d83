"""What ``nim-serve-ray`` does: on the leader what ``nim-serve`` does and a Ray cluster around it; on others a node."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen

from nim_core.cli import download_model
from nim_core.cli.logging import HUMAN
from nim_core.cli.serve_run import run, serve
from nim_core.cli.serving import Launch, Wish, Workplace, choose, prepare
from nim_core.cli.session import Session
from nim_core.manifest import Manifest, dump_manifest
from nim_core.serving.nodes import node_count, own_address
from nim_core.serving.ray_cluster import ModelOrder, RayLeader
from nim_core.serving.ray_plans import DEFAULT_PORT, RAY_VARIABLES, Endpoint, RayProgram, engine_environ, find_ray
from nim_core.serving.ray_worker import join_cluster, wait_for_head
from nim_core.types import Nodes

if TYPE_CHECKING:
    from nim_core.serving.listener import Listener

__all__ = ["lead", "model_order", "work"]

_OVERRIDE: Final = "NIM_REPOSITORY_OVERRIDE"


def lead(wish: Wish, port: str | None, session: Session) -> int:
    """
    Be the leader; returns and raises as :func:`~nim_core.cli.serve_run.serve`.

    Args:
        wish: What the user asked for.
        port: Where the head listens, as written. None: Ray's own default.
        session: The run of the command.

    Raises:
        BackendMissingError: Ray is not installed.
    """
    where = Endpoint.parse(f"head:{port or DEFAULT_PORT}")
    ray = None if wish.dry_run else _find_ray(session)
    return serve(wish, session, _RayCluster(ray=ray, port=where.port))


def work(head_address: str, words: Sequence[str], session: Session) -> None:
    """
    Be a worker until the cluster ends, or a signal says so, which is no error.

    Args:
        head_address: Where the head listens, as written.
        words: Arguments of the engine, of which a worker starts none.
        session: The run of the command.

    Raises:
        ConfigError: The address cannot be read, or that of this machine is not known.
        BackendMissingError: Ray is not installed.
        BackendError: No head came in time.
        BackendExitedError: The cluster ended, or this node's part in it.
    """
    head, ray = Endpoint.parse(head_address), _find_ray(session)
    if words:
        text = "arguments of the engine count on the leader alone: they are passed over"
        _log().warning("arguments_passed_over", arguments=list(words), **{HUMAN: text})
    try:
        found = wait_for_head(head, _seconds(session))
        join_cluster(ray, found, own_address(session.settings, found.host), os.environ)
    except KeyboardInterrupt:
        _log().info("node_stopped", **{HUMAN: "Ray: stopped, as was asked for"})


@frozen(kw_only=True)
class _RayCluster:
    """
    The cluster that :func:`~nim_core.cli.serve_run.serve` serves on.

    Attributes:
        ray: The installed Ray. None where nothing is started.
        port: Where the head listens.
    """

    ray: RayProgram | None
    port: int

    def nodes(self, session: Session) -> Nodes:
        """Return the machines: as many as NIM_NUM_COMPUTE_NODES says, this one the leader. Raises ConfigError."""
        address = own_address(session.settings)
        return Nodes(count=node_count(session.settings), leader=address, port=self.port, address=address, manager="ray")

    def serve(self, place: Workplace, listeners: Sequence[Listener]) -> int:
        """Start the head, get the model, have the other nodes get it, and run the engine."""
        from nim_core.serving.supervisor import Supervisor

        assert self.ray is not None
        assert place.nodes is not None
        supervisor = Supervisor(place.state, listeners)
        leader = RayLeader(self.ray, place.nodes, os.environ, _seconds(place.session), supervisor.fail)
        try:
            leader.start()
            launch = prepare(choose(place), place)
            place.state.enter("waiting for nodes")
            leader.gather(None if launch.selection.remote else model_order(launch))
            return run(self._told_where(launch, place.nodes), place, listeners, supervisor)
        finally:
            leader.stop()

    @staticmethod
    def _told_where(launch: Launch, nodes: Nodes) -> Launch:
        """Return the launch with the variables by which whatever uses Ray finds this cluster, and no other."""
        environ = {**engine_environ(Endpoint(nodes.leader, nodes.port)), **launch.plan.environ}
        return evolve(launch, plan=evolve(launch.plan, environ=environ))


def model_order(launch: Launch) -> ModelOrder:
    """
    Return how another node gets the model: the same profile, laid out under the same path.

    The profile travels with the order, so that the node needs neither the manifest nor, where the model had none, its
    source to know what it is made of. What a node may fetch, and from where, its own environment says.
    """
    selection, request = launch.selection, launch.request
    profile = selection.profile
    manifest = Manifest(schema_version="2.0.0", profiles=(profile,), origin="")
    command = [download_model.NAME, "--profile", profile.id, "--manifest-file", "{manifest}", "--use-cache"]
    environ = {"NIM_JSONL_LOGGING": "0"}
    if selection.offer.source is not None:
        environ[_OVERRIDE] = ""  # redirects manifests, and this model had none
    return ModelOrder(
        command=[*command, "--workspace-path", str(request.workspace)], environ=environ, manifest=_text(manifest)
    )


def _text(manifest: Manifest) -> str:
    with tempfile.TemporaryDirectory(prefix="nim-ray-") as folder:
        path = Path(folder, "manifest.json")
        dump_manifest(manifest, path)
        return path.read_text(encoding="utf-8")


def _find_ray(session: Session) -> RayProgram:
    return find_ray(session.settings.read(RAY_VARIABLES).text("PATH"))


def _seconds(session: Session) -> float:
    return session.settings.read(RAY_VARIABLES).number("NIM_RAY_NODES_TIMEOUT") or 0.0


def _log() -> Any:
    import structlog  # only after logging has been set up, see there

    return structlog.get_logger()
