"""What is known of an installed plugin."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from nim_core.errors import PluginError
from nim_core.types import BackendSpec, CheckSpec, EnvVar, SinkSpec, SourceSpec

__all__ = ["PluginInfo", "SideEffect"]


@frozen(kw_only=True)
class SideEffect:
    """
    What a plugin did to the process while it loaded, undone by then where it could be.

    Attributes:
        kind: What it changed, such as ``environment``; ``printed``, or ``seconds`` where loading was slow.
        detail: Names of what had changed, the text printed, or how long it took.
    """

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@frozen(kw_only=True, eq=False)
class PluginInfo:
    """
    One installed plugin, whether it works or not.

    Attributes:
        name: Name of its entry point.
        distribution: What to install or uninstall.
        version: Version of the distribution.
        status: ``disabled`` by the user's wish; ``quarantined`` for ``reason``; only an ``active`` one is called.
        error: Why it is not active, as the error that asking for its schemes raises. None for an active one.
        sources: Sources it declares; empty when it never got that far, as are the four below.
        sinks: Sinks it declares.
        backends: Serving backends it declares.
        checks: Checks it declares.
        environment: Variables it declares through ``nim_register_environment``.
        hooks: Hooks it implements, sorted.
        module: What its entry point names; empty when that cannot be read.
        requires: What its distribution requires, as ``Requires-Dist`` says it.
        deprecations: What the contract says of hooks and arguments it implements that will go (``warn_on_impl``).
        side_effects: What loading it did to the process.
    """

    name: str
    distribution: str
    version: str
    status: Literal["active", "disabled", "quarantined"] = "active"
    error: PluginError | None = None
    sources: tuple[SourceSpec, ...] = ()
    sinks: tuple[SinkSpec, ...] = ()
    backends: tuple[BackendSpec, ...] = ()
    checks: tuple[CheckSpec, ...] = ()
    environment: tuple[EnvVar, ...] = ()
    hooks: tuple[str, ...] = ()
    module: str = ""
    requires: tuple[str, ...] = ()
    deprecations: tuple[str, ...] = ()
    side_effects: tuple[SideEffect, ...] = ()

    @property
    def label(self) -> str:
        """Name, distribution and version, for messages."""
        return f"{self.name} ({self.distribution} {self.version})"

    @property
    def reason(self) -> str | None:
        """Why it is not active, in one line. None for an active one."""
        return self.error.message if self.error else None

    @property
    def hint(self) -> str | None:
        """What to do about ``reason``. None where there is nothing to advise."""
        return self.error.hint if self.error else None

    @property
    def schemes(self) -> tuple[str, ...]:
        """Schemes of its sources."""
        return tuple(scheme for source in self.sources for scheme in source.schemes)

    @property
    def variables(self) -> tuple[EnvVar, ...]:
        """Every variable it declares, once: its sources', sinks' and backends', then its own."""
        declared = (
            *(variable for source in self.sources for variable in source.environment),
            *(variable for sink in self.sinks for variable in sink.environment),
            *(variable for backend in self.backends for variable in backend.environment),
            *self.environment,
        )
        return tuple(dict.fromkeys(declared))

    @property
    def claims(self) -> tuple[str, ...]:
        """Everything it declares that can have one owner only, in words."""
        return (
            *(f"scheme {scheme}://" for scheme in self.schemes),
            *(f"source {spec.name}" for spec in self.sources),
            *(f"sink {spec.name}" for spec in self.sinks),
            *(f"backend {spec.name}" for spec in self.backends),
        )
