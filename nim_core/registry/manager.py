"""The registry: installed plugins, and one typed method for each thing core asks of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs
import pluggy

from nim_core.errors import ConfigError, PluginError
from nim_core.known_schemes import KNOWN_SCHEMES
from nim_core.registry.credentials import CredentialMemory, GivenCredential
from nim_core.registry.discovery import canonical_name, discover, installed_distributions
from nim_core.registry.guard import (
    GuardedBackend,
    GuardedSink,
    attributed,
    guard_backend,
    guard_sink,
    guard_source,
    wrong_answer,
)
from nim_core.registry.info import PluginInfo
from nim_core.registry.listening import Listener
from nim_core.registry.loading import load_plugins, make_manager, only
from nim_core.registry.reports import (
    report_deprecations,
    report_hook,
    report_listener,
    report_quarantined,
    report_side_effects,
    report_unknown,
)
from nim_core.settings import Settings
from nim_core.types import (
    Anonymous,
    BackendSpec,
    CheckSpec,
    Credential,
    CredentialRequest,
    EnvVar,
    HttpAnswer,
    HttpUpload,
    ModelUri,
    OverrideTarget,
    SinkContext,
    SinkSpec,
    Source,
    SourceContext,
    SourceSpec,
    TransferEvent,
    UriStyle,
    Variables,
)
from nim_core.uris import no_plugin_error, parse_uri, scheme_of

if TYPE_CHECKING:
    from importlib.metadata import Distribution

    import httpx

__all__ = ["Registry", "load_registry"]


@attrs.frozen(eq=False)
class _Implementation:
    """A hook as one plugin implements it."""

    plugin: PluginInfo
    call: pluggy.HookCaller


def load_registry(settings: Settings, *, distributions: Iterable[Distribution] | None = None) -> Registry:
    """
    Find, check and load the installed plugins.

    A plugin that cannot be loaded is reported in the log and quarantined; the rest works without it.

    Args:
        settings: Says which plugins to leave out, and whether to go on without those that fail.
        distributions: Where to look. None: all that is installed.

    Raises:
        PluginError: A plugin was quarantined and NIM_PLUGIN_STRICT asks for an error; in the subclass that fits.
    """
    candidates = discover(installed_distributions() if distributions is None else distributions)
    manager = make_manager()
    plugins = load_plugins(manager, candidates, settings.disabled_plugins, settings.plugin_load_seconds)
    report_side_effects(plugins)
    report_deprecations(plugins)
    report_unknown(settings.disabled_plugins, {plugin.name for plugin in plugins})
    report_quarantined([plugin for plugin in plugins if plugin.status == "quarantined"], settings.strict_plugins)
    return Registry(settings, plugins, manager)


class Registry:
    """
    The installed plugins.

    Several plugins that implement one hook are asked in one order: ``tryfirst`` ones, plain ones, ``trylast`` ones, by
    name within each. All methods may be called from any thread.

    Args:
        settings: What plugins' variables are read from.
        plugins: As loaded, sorted.
        manager: Has those that are active registered under their names.
    """

    def __init__(self, settings: Settings, plugins: tuple[PluginInfo, ...], manager: pluggy.PluginManager) -> None:
        self._settings = settings
        self._plugins = plugins
        self._active = {plugin.name: plugin for plugin in plugins if plugin.status == "active"}
        self._owners = {
            scheme: (plugin, spec)
            for plugin in self._active.values()
            for spec in plugin.sources
            for scheme in spec.schemes
        }
        self._styles = MappingProxyType({scheme: spec.uri_style for scheme, (_, spec) in self._owners.items()})
        self._credential_providers = self._implementations(manager, "nim_provide_credential")
        self._rewriters = self._implementations(manager, "nim_rewrite_uri")
        listening = self._implementations(manager, "nim_transfer_event")
        self._listeners = tuple(Listener(it.plugin, it.call, report_listener) for it in listening)
        self._asked = MappingProxyType(
            {
                "nim_provide_credential": _plugins_of(self._credential_providers),
                "nim_rewrite_uri": _plugins_of(self._rewriters),
                "nim_transfer_event": _plugins_of(listening),
            }
        )
        self._variables = settings.read(self.declared_variables)
        self._credential_lock = Lock()
        self._reported: set[str] = set()
        self._credentials = CredentialMemory(self.provide_credential)
        self._backends: dict[str, GuardedBackend] = {}

    @property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """Every installed plugin, sorted by name, then distribution."""
        return self._plugins

    @property
    def styles(self) -> Mapping[str, UriStyle]:
        """The grammar of every scheme that an active plugin owns."""
        return self._styles

    @property
    def sinks(self) -> Mapping[str, SinkSpec]:
        """Sinks of active plugins, by name."""
        return MappingProxyType({spec.name: spec for plugin in self._active.values() for spec in plugin.sinks})

    @property
    def backends(self) -> Mapping[str, BackendSpec]:
        """Serving backends of active plugins, by name."""
        return MappingProxyType({spec.name: spec for plugin in self._active.values() for spec in plugin.backends})

    @property
    def checks(self) -> tuple[CheckSpec, ...]:
        """Checks of active plugins; ``PluginInfo.checks`` says whose."""
        return tuple(spec for plugin in self._active.values() for spec in plugin.checks)

    @property
    def asked(self) -> Mapping[str, tuple[PluginInfo, ...]]:
        """The hooks that are called while the work runs, and who implements each, in the order of asking."""
        return self._asked

    @property
    def declared_variables(self) -> tuple[EnvVar, ...]:
        """
        Every variable that active plugins declare, each name once.

        The first declaration counts, but a variable that any of them calls secret is secret.
        """
        merged: dict[str, EnvVar] = {}
        for plugin in self._active.values():
            for variable in plugin.variables:
                first = merged.setdefault(variable.name, variable)
                if variable.secret and not first.secret:
                    merged[variable.name] = attrs.evolve(first, secret=True)
        return tuple(merged.values())

    @property
    def given_credentials(self) -> tuple[GivenCredential, ...]:
        """What sources and sinks were given to sign in with until now."""
        return self._credentials.given

    def parse_uri(self, text: str) -> ModelUri:
        """
        Read a model URI.

        Raises:
            InvalidUriError: The text does not fit its scheme's grammar.
            PluginError: As :meth:`owner` says.
        """
        self.owner(scheme_of(text))
        return parse_uri(text, self.styles)

    def owner(self, scheme: str) -> PluginInfo:
        """
        Return the active plugin that owns ``scheme``.

        Raises:
            PluginLoadError: The plugin that brings it is disabled or could not be loaded.
            PluginConflictError: Several plugins claim it, or the one that brings it conflicts otherwise.
            PluginIncompatibleError: The plugin that brings it needs another version of core.
            NoPluginForSchemeError: No installed plugin brings it.
        """
        return self._owner(scheme)[0]

    def source_spec(self, scheme: str) -> SourceSpec:
        """Return the source that owns ``scheme``. Raises as :meth:`owner`."""
        return self._owner(scheme)[1]

    def open_source(self, scheme: str, http: httpx.Client) -> Source:
        """
        Make the source that owns ``scheme``, without I/O.

        Calls of what is returned raise nothing but NimError: other exceptions and answers that are not the contract's
        become a PluginError that names the plugin. It is a ``CachePlacement`` when the plugin's own source is.

        Args:
            scheme: One of :attr:`styles`.
            http: Client for its control calls.

        Raises:
            PluginError: The plugin could not make it; or as :meth:`owner`.
        """
        plugin, spec = self._owner(scheme)
        context = SourceContext(
            http=http,
            variables=self._settings.read(spec.environment),
            credential=partial(self._remembered_credential, spec.name),
        )
        return guard_source(partial(spec.factory, context), plugin)

    def open_sink(
        self, name: str, bucket: str, http: httpx.Client, send: Callable[[HttpUpload], HttpAnswer]
    ) -> GuardedSink:
        """
        Make the sink ``name`` for a bucket, without I/O; its calls raise as those of :meth:`open_source`.

        Args:
            name: One of :attr:`sinks`.
            bucket: As the user named it.
            http: Client for its control calls.
            send: Carries its requests out that have a body.

        Raises:
            ConfigError: No active plugin brings it.
            PluginError: The plugin could not make it.
        """
        for plugin in self._active.values():
            for spec in plugin.sinks:
                if spec.name == name:
                    context = SinkContext(
                        bucket=bucket,
                        http=http,
                        variables=self._settings.read(spec.environment),
                        credential=partial(self._remembered_credential, spec.name),
                        send=send,
                    )
                    return guard_sink(partial(spec.factory, context), plugin)
        raise ConfigError(f"no installed plugin writes to: {name}")

    def backend_variables(self, name: str) -> Variables:
        """Return the values of the variables that the backend ``name``, one of :attr:`backends`, declares."""
        return self._settings.read(self.backends[name].environment)

    def open_backend(self, name: str) -> GuardedBackend:
        """
        Return the backend ``name``, one of :attr:`backends`, made once and without I/O; its calls raise as a source's.

        Raises:
            PluginError: The plugin could not make it.
        """
        if name in self._backends:
            return self._backends[name]
        for plugin in self._active.values():
            for spec in plugin.backends:
                if spec.name == name:
                    self._backends[name] = guard_backend(partial(spec.factory, self.backend_variables(name)), plugin)
                    return self._backends[name]
        raise ConfigError(f"no installed plugin serves by: {name}", hint=f"installed are: {', '.join(self.backends)}")

    def provide_credential(self, request: CredentialRequest) -> Credential:
        """
        Ask the plugins how to sign in, one call at a time; Anonymous when none says.

        A bug of a plugin that does not bring the source is reported, and the next one is asked: one broken plugin must
        not end what it has nothing to do with. With NIM_PLUGIN_STRICT it ends it.

        Raises:
            PluginError: The source's own plugin failed or answered something else; no other one is asked.
            NimError: A plugin refused; no other one is asked.
        """
        with self._credential_lock:
            for provider in self._credential_providers:
                brings = {*(it.name for it in provider.plugin.sources), *(it.name for it in provider.plugin.sinks)}
                with self._tolerated(provider.plugin, concerned=request.source in brings):
                    with attributed(provider.plugin, "nim_provide_credential"):
                        answer = provider.call(request=request)
                    if isinstance(answer, Credential):
                        return answer
                    if answer is not None:
                        raise wrong_answer(provider.plugin, "nim_provide_credential", answer, "a credential or None")
        return Anonymous()

    def rewrite_uri(self, uri: ModelUri, override: OverrideTarget) -> tuple[ModelUri, ...]:
        """
        Ask the plugins which URIs stand for ``uri`` at ``override``, best first; none when the target is no plugin's.

        Raises:
            OverrideUnsupportedError: The target's plugin says it cannot stand in; no other one is asked.
            PluginError: The plugin of the target's scheme failed or answered something else; no other one is asked.
                One that does not bring that scheme is treated as :meth:`provide_credential` does.
        """
        for rewriter in self._rewriters:
            brings = {*rewriter.plugin.schemes, *(sink.scheme for sink in rewriter.plugin.sinks)}
            with self._tolerated(rewriter.plugin, concerned=override.scheme in brings):
                with attributed(rewriter.plugin, "nim_rewrite_uri"):
                    answer = rewriter.call(uri=uri, override=override)
                answers = answer if isinstance(answer, tuple) else (answer,)
                if answers and all(isinstance(it, ModelUri) for it in answers):
                    return answers
                if answer is not None:
                    expected = "ModelUri, a tuple of them or None"
                    raise wrong_answer(rewriter.plugin, "nim_rewrite_uri", answer, expected)
        return ()

    def notify(self, event: TransferEvent) -> None:
        """Tell the plugins, without waiting for any; one that fails or lags is reported once and hears no more."""
        for listener in self._listeners:
            listener.tell(event)

    def finish_telling(self, seconds: float = 2.0) -> None:
        """Let the plugins hear all that :meth:`notify` got, for at most that long each."""
        for listener in self._listeners:
            listener.finish(seconds)

    @contextmanager
    def _tolerated(self, plugin: PluginInfo, *, concerned: bool) -> Iterator[None]:
        """Report a bug of a plugin that is not concerned, once, instead of ending for it; unless all is strict."""
        try:
            yield
        except PluginError as exc:
            if concerned or self._settings.strict_plugins:
                raise
            if exc.message not in self._reported:
                self._reported.add(exc.message)
                report_hook(plugin, exc)

    def _implementations(self, manager: pluggy.PluginManager, hook: str) -> tuple[_Implementation, ...]:
        """Return who implements ``hook``, in the order of asking, which does not depend on the order of loading."""
        found = getattr(manager.hook, hook).get_hookimpls()
        found.sort(key=lambda it: (it.trylast, not it.tryfirst, it.plugin_name))
        return tuple(_Implementation(self._active[it.plugin_name], only(manager, hook, it.plugin)) for it in found)

    def _owner(self, scheme: str) -> tuple[PluginInfo, SourceSpec]:
        found = self._owners.get(scheme)
        if found is None:
            raise self._refusal(scheme)
        return found

    def _refusal(self, scheme: str) -> PluginError:
        """Return why no active plugin owns ``scheme``: one that is set aside, or none at all."""
        for brings in (_declares, _usually_brings, _is_named_after):
            for plugin in self._plugins:
                if plugin.error is not None and brings(plugin, scheme):
                    return _unusable(plugin, scheme, plugin.error)
        return no_plugin_error(scheme)

    def _remembered_credential(self, source: str, endpoint: str, uri: ModelUri | None) -> Credential:
        request = CredentialRequest(source=source, endpoint=endpoint, uri=uri, variables=self._variables)
        return self._credentials.get(request)


def _plugins_of(implementations: Iterable[_Implementation]) -> tuple[PluginInfo, ...]:
    return tuple(it.plugin for it in implementations)


def _declares(plugin: PluginInfo, scheme: str) -> bool:
    return scheme in plugin.schemes


def _usually_brings(plugin: PluginInfo, scheme: str) -> bool:
    """Guess what a plugin that never got as far as declaring it would own."""
    return KNOWN_SCHEMES.get(scheme) == canonical_name(plugin.distribution)


def _is_named_after(plugin: PluginInfo, scheme: str) -> bool:
    return plugin.name == scheme


def _unusable(plugin: PluginInfo, scheme: str, error: PluginError) -> PluginError:
    refusal = type(error)(f"plugin for {scheme}:// cannot be used: {plugin.label}: {error.message}", hint=error.hint)
    refusal.__cause__ = error
    return refusal
