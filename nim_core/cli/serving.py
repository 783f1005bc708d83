"""What ``nim-serve`` does: front, profile, backend, download, workspace, engine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, field, frozen

from nim_core.cache.index import ReceiptIndex
from nim_core.cache.layout import Layout
from nim_core.cli.fetch import chosen_profiles, profile_target
from nim_core.cli.logging import HUMAN
from nim_core.cli.offers import Offer, find_offer
from nim_core.cli.render import watch
from nim_core.cli.selection import Choice
from nim_core.cli.session import Session
from nim_core.cli.tally import Tally
from nim_core.download import DownloadOptions, download
from nim_core.errors import BackendError, CacheError, ConfigError
from nim_core.manifest import Manifest, Profile
from nim_core.plan import Target
from nim_core.profiles.judging import rank_here
from nim_core.profiles.names import served_model_name, short_name
from nim_core.profiles.selection import Category, Verdict
from nim_core.registry import Registry
from nim_core.serving.adapters import Found, find_adapters
from nim_core.serving.choice import RUNTIME_CONFIG, Chosen, Given, can_serve, choose_backend, resolve
from nim_core.serving.settings import ServingSettings
from nim_core.serving.state import Progress, Served, ServingState
from nim_core.types import LaunchRequest, Layer, Nodes, Secret, UriStyle
from nim_core.workspace.links import make_workspace

if TYPE_CHECKING:
    from nim_core.types import LaunchPlan, ModelUri

__all__ = ["ANY_ADDRESS", "LOOPBACK", "Launch", "Selection", "Wish", "Workplace", "choose", "plan_launch", "prepare"]

_LICENSE_BYTES: Final = 1 << 20
_MOST_URLS: Final = 20
_REMOTE: Final = "{model} is read by the engine itself, from where it is: nothing is cached, and no digest checked"
ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 -- a server in a container is reached from outside
LOOPBACK: Final = "127.0.0.1"


@frozen(kw_only=True)
class Wish:
    """
    What the user asked ``nim-serve`` for.

    Attributes:
        words: Arguments for the engine.
        model: URI or path of a model. None for what the environment says.
        host: Address to listen on. None: every one.
        port: Port of clients, as written. None for what the environment says.
        dry_run: Whether the engine's arguments are only shown.
        as_json: Whether they are shown as JSON.
    """

    words: tuple[str, ...] = ()
    model: str | None = None
    host: str | None = None
    port: str | None = None
    dry_run: bool = False
    as_json: bool = False


def _free_port() -> int:
    """Return a port of this machine that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@frozen(kw_only=True)
class Workplace:
    """
    Where a start to serve works.

    Attributes:
        session: The run of the command.
        serving: What the environment says.
        registry: The plugins.
        state: Told how far it is.
        wish: What the user asked for.
        engine_port: Port of the loopback interface for an engine that clients do not talk to.
        nodes: The machines that serve together. None: this one alone.
    """

    session: Session
    serving: ServingSettings
    registry: Registry
    state: ServingState
    wish: Wish
    engine_port: int = field(factory=_free_port)
    nodes: Nodes | None = None


@frozen(kw_only=True)
class Selection:
    """
    What is to be served.

    Attributes:
        offer: Where the profile comes from.
        profile: The profile.
        target: Its files.
        options: Of its download.
        chosen: The backend, and the request it was asked.
        adapters: What NIM_PEFT_SOURCE has. None where it is not set.
        remote: Whether the engine reads the model where it lives, so that nothing is downloaded.
    """

    offer: Offer
    profile: Profile
    target: Target
    options: DownloadOptions
    chosen: Chosen
    adapters: Found | None = None
    remote: bool = False


@frozen(kw_only=True)
class Launch:
    """All that is needed to start the engine."""

    selection: Selection
    request: LaunchRequest
    plan: LaunchPlan


def choose(place: Workplace) -> Selection:
    """
    Choose profile and backend, and check the engine's arguments; nothing of the model's weights is fetched.

    Raises:
        NimError: In its most fitting subclass.
    """
    place.state.enter("choosing")
    session, settings = place.session, place.session.settings
    options = DownloadOptions(cache_path=settings.cache_path.absolute(), use_cache=True, plan_only=place.wish.dry_run)
    offer = find_offer(None, options, session, place.registry)
    choice = Choice(variable=settings.variables.text("NIM_MODEL_PROFILE"))
    able = partial(_serves_without_gpu, offer=offer, place=place)
    (profile,) = chosen_profiles(choice, offer.manifest, options.cache_path, session, able)
    subject = _Subject(
        offer=offer,
        profile=profile,
        verdict=_judged(profile, place, options.cache_path),
        adapters=None if place.serving.peft_source is None else _adapters(place.serving.peft_source),
    )
    target = profile_target(profile, place.registry)
    chosen = choose_backend(
        place.registry.backends,
        place.registry.open_backend,
        lambda name: _request(subject, name, place),
        _given(place, _early_runtime_config(target, options.cache_path)),
        tags=profile.tags,
        asked=place.serving.backend,
    )
    _tell_choice(subject, chosen)
    place.state.chosen(_served(subject, target, chosen))
    return Selection(
        offer=offer,
        profile=profile,
        target=target,
        options=options,
        chosen=chosen,
        adapters=subject.adapters,
        remote=chosen.request.model_uri is not None and chosen.backend.reads_remotely(chosen.request),
    )


def prepare(selection: Selection, place: Workplace) -> Launch:
    """
    Download the model, lay it out, and have the backend plan its launch.

    Raises:
        NimError: In its most fitting subclass.
    """
    session, state = place.session, place.state
    if selection.remote:
        request = selection.chosen.request
        _log().warning("not_downloaded", model=request.model_uri, **{HUMAN: _REMOTE.format(model=request.model_uri)})
        return Launch(selection=selection, request=request, plan=plan_launch(selection, request, session))
    tally = Tally()
    with watch(session, session.log_style, tally) as observer:
        state.enter("downloading", partial(_progress, tally))
        result = download((selection.target,), selection.options, place.registry, selection.offer.settings, observer)
    (item,) = result.targets
    state.enter("laying out")
    request = selection.chosen.request
    made = _workspace(item.present, request.workspace, selection.options.cache_path)
    request = evolve(request, workspace=made, arguments={})
    given = _given(place, _runtime_config(made / RUNTIME_CONFIG))
    resolved = resolve(selection.chosen.backend, request, given)
    if state.served is not None:
        state.chosen(evolve(state.served, licenses=_licenses(made, item.present)))
    return Launch(selection=selection, request=resolved, plan=plan_launch(selection, resolved, session))


def plan_launch(selection: Selection, request: LaunchRequest, session: Session) -> LaunchPlan:
    """Have the backend plan; from now on its secrets are not shown. Raises BackendError."""
    plan = selection.chosen.backend.plan_launch(request)
    if not plan.argv:
        raise BackendError(f"backend {selection.chosen.spec.name} planned no program to start")
    secrets = [value for value in plan.environ.values() if isinstance(value, Secret)]
    session.hide(secret.reveal() for secret in (*secrets, *plan.duties.api_keys))
    return plan


# ------------------------------------------------------------------------------------------------------------ choosing
def _given(place: Workplace, runtime_config: Mapping[str, Any] | None) -> Given:
    return Given(words=place.wish.words, passthrough=place.serving.passthrough, runtime_config=runtime_config)


def _adapters(folder: Path) -> Found:
    found = find_adapters(folder)
    for name, reason in found.refused.items():
        text = f"{folder / name} is passed over as a LoRA adapter: {reason}"
        _log().warning("adapter_refused", adapter=name, reason=reason, **{HUMAN: text})
    return found


@frozen(kw_only=True)
class _Subject:
    """A profile, where it comes from, and what this machine can do with it; None where that is not asked."""

    offer: Offer
    profile: Profile
    verdict: Verdict | None = None
    adapters: Found | None = None


def _serves_without_gpu(profile: Profile, offer: Offer, place: Workplace) -> bool:
    """Whether an installed backend can serve a profile where there is no GPU."""
    subject = _Subject(offer=offer, profile=profile)
    return any(
        can_serve(place.registry.open_backend(name), _request(subject, name, place)).can_serve
        for name, spec in place.registry.backends.items()
        if spec.without_gpu and place.serving.backend in {None, name}
    )


def _judged(profile: Profile, place: Workplace, cache_path: Path) -> Verdict | None:
    """Return what this machine's GPUs can do with the chosen profile. None where there are none."""
    alone = Manifest(schema_version="2.0.0", profiles=(profile,), origin="")
    ranking = rank_here(alone, place.session.settings, cache_path)
    if not ranking.hardware.gpus:
        return None
    (verdict,) = ranking.verdicts
    return evolve(verdict, gpus=verdict.gpus or ranking.hardware.gpus)


def _request(subject: _Subject, backend: str, place: Workplace) -> LaunchRequest:
    serving, settings = place.serving, place.session.settings
    profile, verdict, adapters = subject.profile, subject.verdict, subject.adapters
    direct = serving.health_port is not None
    reduced = None if verdict is None else verdict.reduced
    return LaunchRequest(
        workspace=_workspace_path(profile, settings.cache_path),
        files=tuple(file.path for file in profile.files),
        model_uri=subject.offer.source,
        tags=profile.tags,
        served_names=_served_names(subject, settings.served_name),
        names_layer=Layer.VARIABLE if settings.served_name else Layer.DERIVED,
        host=(place.wish.host or ANY_ADDRESS) if direct else LOOPBACK,
        port=serving.port if direct else place.engine_port,
        gpus=() if verdict is None else verdict.gpus,
        context=None if reduced is None else reduced.context,
        adapters=() if adapters is None else tuple(adapter for adapter, _ in adapters.adapters.values()),
        changing_adapters=adapters is not None and serving.peft_seconds is not None,
        nodes=place.nodes,
        exposure=serving.exposure if direct else None,
        variables=place.registry.backend_variables(backend),
    )


def _served_names(subject: _Subject, explicit: str | None) -> tuple[str, ...]:
    """
    Return what clients may call the model.

    As the environment says; else by the URI of a model without a manifest; else by the tag ``model_name``; else by the
    last two folders of where the files are, as the product does with ``meta/llama-3.1-8b-instruct``.
    """
    if explicit:
        return tuple(name.strip() for name in explicit.split(",") if name.strip())
    if subject.offer.source is not None:
        return (served_model_name(subject.offer.source),)
    tags, files = subject.profile.tags, subject.profile.files
    if tags.get("model_name") or not files:
        return (tags.get("model_name") or short_name(tags) or subject.profile.id,)
    uris = Counter(file.uri.partition("?")[0] for file in files)
    return ("/".join(served_model_name(uris.most_common(1)[0][0]).split("/")[-2:]),)


def _tell_choice(subject: _Subject, chosen: Chosen) -> None:
    log, profile = _log(), subject.profile
    name = short_name(profile.tags)
    log.info(
        "profile_selected",
        id=profile.id,
        profile=name,
        backend=chosen.spec.name,
        **{HUMAN: f"Selected profile: {profile.id} ({name}), served by {chosen.spec.name}"},
    )
    if subject.adapters is not None:
        names = sorted(subject.adapters.adapters)
        text = f"LoRA adapters: {', '.join(names) if names else 'none in NIM_PEFT_SOURCE yet'}"
        log.info("adapters_found", adapters=names, **{HUMAN: text})
    verdict = subject.verdict
    if verdict is not None and verdict.category in {Category.LOW_MEMORY, Category.INCOMPATIBLE}:
        log.warning("profile_does_not_fit", id=profile.id, reason=verdict.reason)


def _served(subject: _Subject, target: Target, chosen: Chosen) -> Served:
    plugin = chosen.backend.plugin
    urls = dict.fromkeys(_model_url(wanted.uri) for wanted in target.files)
    return Served(
        profile_id=subject.profile.id,
        profile_name=short_name(subject.profile.tags),
        model_urls=tuple(urls)[:_MOST_URLS],
        manifest=_text(subject.offer.path),
        backend={"name": chosen.spec.name, "distribution": plugin.distribution, "version": plugin.version},
    )


def _model_url(uri: ModelUri) -> str:
    if uri.style is UriStyle.OBJECT:
        return uri.display.rpartition("/")[0]
    return evolve(uri, file=None).display


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


# ------------------------------------------------------------------------------------------------------- files of it
def _progress(tally: Tally) -> Progress:
    now = tally.snapshot()
    return Progress(done=now.done, total=now.total if now.files is not None else None, seconds_left=now.seconds_left)


def _workspace_path(profile: Profile, cache_path: Path) -> Path:
    return cache_path.absolute() / "workspaces" / hashlib.sha256(profile.id.encode()).hexdigest()[:16]


def _workspace(files: Mapping[str, Any], folder: Path, cache_path: Path) -> Path:
    """Make the workspace in the cache, or in a temporary folder where the cache cannot be written."""
    with contextlib.suppress(CacheError):
        return make_workspace(files, folder, cache_path).folder
    return make_workspace(files, Path(mkdtemp(prefix="nim-workspace-")), cache_path).folder


def _early_runtime_config(target: Target, cache_path: Path) -> Mapping[str, Any] | None:
    """Return the model's own arguments where its file is on this machine already."""
    index = ReceiptIndex(Layout(cache_path))
    for wanted in target.files:
        if wanted.path == RUNTIME_CONFIG:
            present = index.trusted(wanted, target.id)
            return None if present is None else _runtime_config(present.link or present.blob)
    return None


def _runtime_config(path: Path) -> Mapping[str, Any] | None:
    """Return the arguments in a file. None when there is none; raises ConfigError when it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"cannot read {RUNTIME_CONFIG} of the model: {path} ({exc})") from exc
    if not isinstance(value, dict):
        raise ConfigError(f"{RUNTIME_CONFIG} of the model is not a JSON object: {path}")
    return value


def _licenses(workspace: Path, files: Mapping[str, Any]) -> Mapping[str, str]:
    found = {}
    for path in files:
        if Path(path).name.upper().startswith(("LICENSE", "NOTICE")):
            with contextlib.suppress(OSError, ValueError), (workspace / path).open("rb") as file:
                found[path] = file.read(_LICENSE_BYTES).decode("utf-8", "replace")
    return found


def _log() -> Any:
    import structlog  # only after logging has been set up, see there

    return structlog.get_logger()
