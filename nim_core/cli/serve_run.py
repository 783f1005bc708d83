"""From the words of ``nim-serve`` to a model that is served, or shown to be."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from nim_core.cli.launching import command_line, launch_as_json, launch_as_text
from nim_core.cli.logging import HUMAN, format_line
from nim_core.cli.output import write_data
from nim_core.cli.serving import ANY_ADDRESS, LOOPBACK, Launch, Selection, Wish, Workplace, choose, plan_launch, prepare
from nim_core.cli.session import Session, core_version
from nim_core.errors import BackendError, BackendMissingError, ConfigError
from nim_core.serving.adapters import AdapterWatch
from nim_core.serving.nodes import read_nodes
from nim_core.serving.settings import ServingSettings, read_settings
from nim_core.serving.state import ServingState
from nim_core.types import Adapter, EngineCall, Nodes

if TYPE_CHECKING:
    from nim_core.serving.listener import Listener
    from nim_core.serving.supervisor import Supervisor

__all__ = ["Cluster", "EngineLog", "listening", "run", "serve"]

_LEVEL: Final = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_LEVEL_WITHIN: Final = 60


class Cluster(Protocol):
    """Machines that core brings together before the engine starts."""

    def nodes(self, session: Session) -> Nodes:
        """Return them. Raises ConfigError."""

    def serve(self, place: Workplace, listeners: Sequence[Listener]) -> int:
        """Do what :func:`serve` does, once the front listens."""


def serve(wish: Wish, session: Session, cluster: Cluster | None = None) -> int:
    """
    Serve what ``wish`` and the environment name, until the engine ends or a signal says so.

    Args:
        wish: What the user asked for.
        session: The run of the command.
        cluster: The machines to serve on. None: this one, and others of which each starts an engine of its own.

    Returns:
        The exit code: 0 when it was asked to end and all requests could.

    Raises:
        NimError: In its most fitting subclass.
    """
    if wish.model is not None:
        session.use({"NIM_MODEL_PATH": wish.model, "NIM_MANIFEST_PATH": ""})
    if wish.port is not None:
        session.use({"NIM_SERVER_PORT": wish.port})
    session.start_logging()
    serving = read_settings(session.settings)
    nodes = read_nodes(session.settings) if cluster is None else cluster.nodes(session)
    state = ServingState()
    if wish.dry_run:
        place = _place(session, serving, wish, state, nodes)
        _show(choose(place), place)
        return 0
    with listening(state, serving, wish) as listeners:
        place = _place(session, serving, wish, state, nodes)
        if cluster is not None:
            return cluster.serve(place, listeners)
        return run(prepare(choose(place), place), place, listeners)


def _place(
    session: Session, serving: ServingSettings, wish: Wish, state: ServingState, nodes: Nodes | None
) -> Workplace:
    registry = session.load_registry()
    return Workplace(session=session, serving=serving, registry=registry, state=state, wish=wish, nodes=nodes)


@contextmanager
def listening(state: ServingState, serving: ServingSettings, wish: Wish) -> Iterator[list[Listener]]:
    """
    Have the front listen: before anything else, as probes ask from the first moment on.

    Raises:
        BackendMissingError: The front's own packages are not installed.
        ConfigError: A port is taken, or a certificate cannot be used.
    """
    try:
        from nim_core.serving.front import FrontOptions, make_front
        from nim_core.serving.listener import Listener
    except ModuleNotFoundError as exc:
        raise BackendMissingError(
            f"what serving needs is not installed: {exc.name}", hint="pip install nim-core[serve]"
        ) from exc
    direct = serving.health_port is not None
    if direct and serving.exposure.client_authority is not None:
        raise ConfigError(
            "NIM_HEALTH_PORT cannot be combined with NIM_SSL_MODE=MTLS: nobody could ask the engine if it is well",
            hint="unset NIM_HEALTH_PORT, and health is answered on NIM_SERVER_PORT",
        )
    exposure = serving.exposure
    options = FrontOptions(
        release=core_version(),
        proxies=not direct,
        allowed_origins=exposure.allowed_origins,
        allowed_methods=exposure.allowed_methods,
        allowed_headers=exposure.allowed_headers,
        exposed_headers=serving.exposed_headers,
        preflight_seconds=serving.cors_seconds,
    )
    port = serving.port if serving.health_port is None else serving.health_port
    listener = Listener(
        make_front(state, options),
        wish.host or ANY_ADDRESS,
        port,
        None if direct else exposure,
        variable="NIM_HEALTH_PORT" if direct else "NIM_SERVER_PORT",
    )
    listener.start()
    log = _log()
    text = f"Server starting on port {port}"
    log.info("listening", port=port, **{HUMAN: f"{text}: health only" if direct else text})
    try:
        yield [listener]
    finally:
        listener.stop(0)


def run(launch: Launch, place: Workplace, listeners: Sequence[Listener], supervisor: Supervisor | None = None) -> int:
    """
    Run the engine; returns and raises as :func:`serve`.

    Args:
        launch: What was prepared.
        place: Where.
        listeners: The front.
        supervisor: Of these listeners. None: one is made.
    """
    if supervisor is None:
        from nim_core.serving.supervisor import Supervisor

        supervisor = Supervisor(place.state, listeners)
    log, plan, request = _log(), launch.plan, launch.request
    name = launch.selection.chosen.spec.name
    log.info("starting_engine", backend=name, **{HUMAN: f"Starting {plan.title or name}"})
    log.info("engine_command", argv=list(plan.argv), **{HUMAN: command_line(plan)})
    scheme = "https" if request.exposure is not None and request.exposure.certificate is not None else "http"
    host = LOOPBACK if request.host == ANY_ADDRESS else request.host
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{request.port}"
    watch = adapter_watch(launch, place, url)
    if watch is not None:
        watch.start()
    return supervisor.serve(plan, url, os.environ, EngineLog(place.session, name))


def adapter_watch(launch: Launch, place: Workplace, url: str) -> AdapterWatch | None:
    """Return what keeps the engine's LoRA adapters in step with their folder. None where nothing is to be kept so."""
    serving, selection = place.serving, launch.selection
    if serving.peft_source is None or serving.peft_seconds is None or selection.adapters is None:
        return None
    backend, request = selection.chosen.backend, launch.request
    if not backend.loads_adapters:
        text = f"{selection.chosen.spec.name} cannot change adapters while it serves: they are those of the start"
        _log().warning("adapters_fixed", backend=selection.chosen.spec.name, **{HUMAN: text})
        return None

    def load(adapter: Adapter) -> None:
        call_engine(backend.load_adapter(adapter, request), url, serving.peft_timeout)

    def unload(adapter: Adapter) -> None:
        call_engine(backend.unload_adapter(adapter, request), url, serving.peft_timeout)

    return AdapterWatch(
        serving.peft_source, selection.adapters, load, unload, serving.peft_seconds, ready=lambda: place.state.ready
    )


def call_engine(call: EngineCall, url: str, seconds: float) -> None:
    """Ask the engine for something. Raises BackendError when it does not say that it did it."""
    import httpx

    headers = {name: secret.reveal() for name, secret in call.headers.items()}
    try:
        # the engine is on this machine, where its certificate, made out to a public name, proves nothing
        with httpx.Client(trust_env=False, verify=False, timeout=seconds) as client:  # noqa: S501
            answer = client.post(url + call.path, json=dict(call.content), headers=headers)
    except httpx.HTTPError as exc:
        raise BackendError(f"the engine did not answer {call.path}: {type(exc).__name__}") from exc
    if not answer.is_success:
        raise BackendError(f"the engine answered {answer.status_code} to {call.path}: {answer.text[:300]}")


class EngineLog:
    """
    Lines of the engine, among ours: as they are, or as JSON lines like ours; without secrets in both cases.

    Args:
        session: The run of the command.
        name: Of the backend.
    """

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._name = name

    def __call__(self, line: str) -> None:
        """Write one line."""
        session, style = self._session, self._session.log_style
        if not style.json_lines:
            session.stderr.line(session.redactor.text(line))
            return
        match = _LEVEL.search(line[:_LEVEL_WITHIN])
        level = match[0].lower() if match else "info"
        event = {"timestamp": time.time(), "level": level, "event": line, "engine": self._name}
        session.stderr.line(format_line(event, style, session.redactor))


def _log() -> Any:
    import structlog  # only after logging has been set up, see there

    return structlog.get_logger()


def _show(selection: Selection, place: Workplace) -> None:
    request = selection.chosen.request
    launch = Launch(selection=selection, request=request, plan=plan_launch(selection, request, place.session))
    write_data(json.dumps(launch_as_json(launch), indent=2) if place.wish.as_json else launch_as_text(launch))
