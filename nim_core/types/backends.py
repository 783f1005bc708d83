"""Serving backends: what they are asked and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from attrs import field, frozen

from nim_core.types.arguments import Argument, Layer, Option
from nim_core.types.environment import EnvVar, Variables
from nim_core.types.hardware import Gpu
from nim_core.types.secret import Secret


@frozen(kw_only=True)
class Adapter:
    """
    A LoRA adapter.

    Attributes:
        name: What clients call it.
        folder: Has ``adapter_config.json`` and its weights.
        rank: Its rank. None when its configuration does not say.
    """

    name: str
    folder: Path
    rank: int | None = None


@frozen(kw_only=True)
class Nodes:
    """
    The machines that serve a model together.

    Attributes:
        count: How many, this one included.
        rank: Which of them this is, from 0, the leader.
        leader: Host name or address of the leader, as every node reaches it.
        port: Port that the engine's processes of several machines meet at.
        address: Address of this machine, as the others reach it. None when not known.
        manager: ``ray`` where a Ray cluster of these nodes is up, and only the leader starts an engine; ``engine``
            where each node starts one.
    """

    count: int
    rank: int = 0
    leader: str = "127.0.0.1"
    port: int = 29501
    address: str | None = None
    manager: Literal["engine", "ray"] = "engine"


@frozen(kw_only=True)
class Exposure:
    """
    What an engine has to do itself that clients reach without anything between.

    Attributes:
        certificate: File of its certificates (PEM). None: plain HTTP.
        key: File of the private key.
        client_authority: File of certificates; only clients with one from these may connect. None: any client.
        allowed_origins: Values of Access-Control-Allow-Origin.
        allowed_methods: HTTP methods that other origins may use.
        allowed_headers: Headers that other origins may send.
    """

    certificate: Path | None = None
    key: Path | None = None
    client_authority: Path | None = None
    allowed_origins: tuple[str, ...] = ("*",)
    allowed_methods: tuple[str, ...] = ("*",)
    allowed_headers: tuple[str, ...] = ("*",)


@frozen(kw_only=True)
class LaunchRequest:
    """
    What a backend is asked to serve.

    Attributes:
        workspace: Folder that has the model's files. Before they are downloaded, it may not exist yet.
        files: Their paths inside it.
        model_uri: URI of a model that has no manifest. None for others.
        tags: Tags of the chosen profile.
        served_names: Names clients may use, the first one preferred.
        names_layer: Where these came from.
        host: Address the engine must listen on.
        port: Port the engine must listen on.
        gpus: Those it may use; empty when there are none.
        context: Tokens of the longest context that fits, where the model's own does not. None: the model's own.
        adapters: LoRA adapters to have from the start.
        changing_adapters: Whether adapters come and go while it serves.
        nodes: The machines it serves on. None: this one.
        exposure: None: clients reach it through core, which listens for them.
        arguments: Engine arguments as they came out, by name; empty while the backend is asked for proposals.
        variables: The variables the backend's spec declares.
    """

    workspace: Path
    files: tuple[str, ...] = ()
    model_uri: str | None = None
    tags: Mapping[str, str] = field(factory=dict)
    served_names: tuple[str, ...] = ()
    names_layer: Layer = Layer.DERIVED
    host: str = "127.0.0.1"
    port: int = 8000
    gpus: tuple[Gpu, ...] = ()
    context: int | None = None
    adapters: tuple[Adapter, ...] = ()
    changing_adapters: bool = False
    nodes: Nodes | None = None
    exposure: Exposure | None = None
    arguments: Mapping[str, Argument] = field(factory=dict)
    variables: Variables


@frozen(kw_only=True)
class Verdict:
    """Whether a backend can serve a request, and if not, why in one line, and what can be done."""

    can_serve: bool
    reason: str = ""
    hint: str | None = None


@frozen(kw_only=True)
class FrontDuties:
    """
    What core's front does for an engine that cannot; needs it between the engine and clients.

    Attributes:
        model: What the engine wants to be asked for as ``model``, whatever served name a client used. None: as asked.
        api_keys: Keys of which a request to the engine has to bring one as a bearer token. Empty: the engine checks.
        lists_models: Whether the front answers ``/v1/models`` with the served names.
    """

    model: str | None = None
    api_keys: tuple[Secret, ...] = ()
    lists_models: bool = False


@frozen(kw_only=True)
class LaunchPlan:
    """
    A process, described; core starts it, watches it and ends it.

    Attributes:
        argv: Program and arguments, no secrets among them.
        title: Engine and version, for the line that tells of its start, such as ``Engine v1.2.0``. Empty: not known.
        environ: Variables set on top of core's own environment; those that are secrets are not shown.
        without: Variables of core's own environment that it must not get.
        folder: Working folder. None: core's own.
        health_path: Path at the engine that answers 200 once it can serve. None: it serves no HTTP, and is as ready as
            it is running.
        metrics_path: Path of its Prometheus metrics. None when it has none.
        routes: Paths, and beginnings of paths where they end in ``/``, that clients may use.
        served_names: Names clients may use, after all arguments counted.
        duties: What core has to do for it.
        stop_seconds: How long it may take to end after SIGTERM, requests in flight included.
    """

    argv: tuple[str, ...]
    title: str = ""
    environ: Mapping[str, str | Secret] = field(factory=dict)
    without: tuple[str, ...] = ()
    folder: Path | None = None
    health_path: str | None = "/health"
    metrics_path: str | None = None
    routes: tuple[str, ...] = ("/v1/",)
    served_names: tuple[str, ...] = ()
    duties: FrontDuties = field(factory=FrontDuties)
    stop_seconds: float = 30.0


@frozen(kw_only=True)
class EngineCall:
    """A request to a running engine: what is sent as JSON to a path, with headers on top."""

    path: str
    content: Mapping[str, Any] = field(factory=dict)
    headers: Mapping[str, Secret] = field(factory=dict)


class Backend(Protocol):
    """
    Describes how to serve a model; starts nothing itself, and does no more I/O than looking at files.

    Asked in this order: ``options`` and ``propose``, from which and from the user's own arguments core makes
    :attr:`LaunchRequest.arguments`; ``probe``, before the model is downloaded; all of them again, when a file of the
    model has changed the arguments; ``plan_launch``.
    """

    def options(self) -> Sequence[Option]:
        """
        Return the arguments that the engine takes, by which core reads those of users and refuses what is none.

        Empty: what it takes is not known, and every ``--name value`` is passed on.
        """

    def propose(self, request: LaunchRequest) -> Sequence[Argument]:
        """Return the arguments that follow from the request: from its variables, tags and what is derived."""

    def probe(self, request: LaunchRequest) -> Verdict:
        """
        Say whether this machine and this backend can serve the request.

        Raises:
            ConfigError: An argument has a value that the engine would refuse.
        """

    def plan_launch(self, request: LaunchRequest) -> LaunchPlan:
        """Describe the process. Raises BackendError when it cannot be."""


@runtime_checkable
class AdapterLoader(Protocol):
    """Optional for backends: engines that take up LoRA adapters, and let go of them, while they serve."""

    def load_adapter(self, adapter: Adapter, request: LaunchRequest) -> EngineCall:
        """Return the call that takes an adapter up."""

    def unload_adapter(self, adapter: Adapter, request: LaunchRequest) -> EngineCall:
        """Return the call that lets go of one."""


@runtime_checkable
class NearbyOptions(Protocol):
    """Optional for backends: those that know the arguments of some versions of an engine, and meet others."""

    def options_are_exact(self) -> bool:
        """
        Whether ``options`` are those of the engine that is installed.

        Where they are those of a version near it, core passes a name that is not among them on, with a warning.
        """


@runtime_checkable
class RemoteReader(Protocol):
    """Optional for backends: engines that can read a model from where it lives."""

    def reads_remotely(self, request: LaunchRequest) -> bool:
        """
        Whether the engine will read the request's model at its URI itself, so that core downloads nothing.

        Asked once the arguments have come out, before ``probe``. Nobody verifies what is read like this.
        """


@frozen(kw_only=True)
class BackendSpec:
    """
    A serving backend a plugin brings.

    Attributes:
        name: What users call it.
        summary: One line.
        factory: Makes it, without I/O, from the variables it declares.
        engines: Values of the tags ``llm_engine``, ``backend`` and ``model_type`` that mean it, besides its name.
        without_gpu: Whether it may serve where there is no GPU; ``probe`` has the last word.
        environment: Variables it reads.
    """

    name: str
    summary: str
    factory: Callable[[Variables], Backend]
    engines: tuple[str, ...] = ()
    without_gpu: bool = False
    environment: tuple[EnvVar, ...] = ()
