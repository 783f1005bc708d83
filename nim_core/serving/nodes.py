"""The machines that serve a model together, as the environment and the network know them."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from nim_core.errors import ConfigError
from nim_core.settings import Settings
from nim_core.types import EnvVar, Nodes

__all__ = ["NODE_VARIABLES", "address_towards", "node_count", "own_address", "read_nodes"]

_ELSEWHERE: Final = "192.0.2.1"
"""An address that is nobody's (RFC 5737), to see by which of its own this machine would leave its network."""

NODE_VARIABLES: Final[tuple[EnvVar, ...]] = (
    EnvVar(name="NIM_NUM_COMPUTE_NODES", kind="integer", summary="machines that serve one model together (default: 1)"),
    EnvVar(name="NIM_NODE_RANK", kind="integer", default="0", summary="which of them this is, from 0, the leader"),
    EnvVar(
        name="LWS_LEADER_ADDRESS", summary="host name of the leader, as Kubernetes' LeaderWorkerSet sets it on its pods"
    ),
    EnvVar(
        name="NIM_MASTER_PORT",
        kind="integer",
        default="29501",
        summary="port of the leader that engines of several machines meet at, without Ray",
    ),
    EnvVar(name="POD_IP", summary="address of this machine towards the others (default: the one that routes there)"),
)


def node_count(settings: Settings) -> int:
    """Return how many machines serve together. Raises ConfigError when the variable cannot be read."""
    return int(settings.read(NODE_VARIABLES).number("NIM_NUM_COMPUTE_NODES") or 1)


def read_nodes(settings: Settings) -> Nodes | None:
    """
    Return the machines whose engines find each other without Ray. None where there is only this one.

    Raises:
        ConfigError: The variables contradict each other.
    """
    variables, count = settings.read(NODE_VARIABLES), node_count(settings)
    if count < 2:
        return None
    rank = int(variables.number("NIM_NODE_RANK") or 0)
    leader = variables.text("LWS_LEADER_ADDRESS")
    if rank >= count:
        raise ConfigError(
            f"NIM_NODE_RANK is {rank}, and there are {count} nodes", hint="ranks go from 0 to NIM_NUM_COMPUTE_NODES - 1"
        )
    if leader is None:
        raise ConfigError(
            f"NIM_NUM_COMPUTE_NODES is {count}, and LWS_LEADER_ADDRESS is not set",
            hint="set LWS_LEADER_ADDRESS to the leader's host name, or start the nodes by nim-serve-ray",
        )
    return Nodes(
        count=count,
        rank=rank,
        leader=leader,
        port=int(variables.number("NIM_MASTER_PORT") or 0),
        address=variables.text("POD_IP") or address_towards(leader),
    )


def own_address(settings: Settings, leader: str | None = None) -> str:
    """
    Return the address of this machine that the other nodes reach.

    It is POD_IP, else the one that packets to the leader would have, else the one that packets to elsewhere would.

    Args:
        settings: The environment.
        leader: Host name or address. None: as LWS_LEADER_ADDRESS says.

    Raises:
        ConfigError: It is not known, or nobody else would reach it.
    """
    variables = settings.read(NODE_VARIABLES)
    configured = variables.text("POD_IP")
    if configured:
        return configured
    for host in (leader or variables.text("LWS_LEADER_ADDRESS"), _ELSEWHERE):
        address = address_towards(host) if host else None
        if address and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            return address
    raise ConfigError(
        "no address of this machine is known that other nodes reach", hint="set POD_IP to this machine's address"
    )


def address_towards(host: str) -> str | None:
    """Return the address of this machine that packets to ``host`` would have. None when that cannot be said."""
    try:
        family, kind, _protocol, _name, target = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # nothing is sent
            return str(probe.getsockname()[0])
    except OSError:
        return None
