"""
The hooks a plugin may implement.

A plugin is a module named by an entry point in group ``nim_core.plugins``; its functions carry :data:`hookimpl`. Hooks
that collect return lists of records, never generators; they are called once, while plugins load, and must not do I/O.
All hooks are synchronous. Arguments are records: later versions add fields, not arguments.
"""

from __future__ import annotations

from typing import Final

import pluggy

from nim_core.types import (
    BackendSpec,
    CheckSpec,
    Credential,
    CredentialRequest,
    EnvVar,
    ModelUri,
    OverrideTarget,
    SinkSpec,
    SourceSpec,
    TransferEvent,
)

__all__ = ["ENTRY_POINT_GROUP", "PROJECT_NAME", "NimHookSpecs", "hookimpl", "hookspec"]

PROJECT_NAME: Final = "nim"
ENTRY_POINT_GROUP: Final = "nim_core.plugins"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


class NimHookSpecs:
    """The contract between core and plugins, one method per hook."""

    @hookspec
    def nim_register_sources(self) -> list[SourceSpec]:
        """
        Declare the sources this plugin brings.

        Called once while plugins load, on the main thread, offline. An empty list means none. A scheme has one
        owner: two plugins that declare the same one are both set aside, and both are named to whoever uses it.

        Raises:
            Exception: The plugin is set aside with the exception as its reason; the others are not affected.

        .. versionadded:: 1.0
        """
        raise NotImplementedError

    @hookspec
    def nim_register_sinks(self) -> list[SinkSpec]:
        """
        Declare the sinks this plugin brings; their names are the choices of ``mirror``.

        Called, and failing, like :meth:`nim_register_sources`; a name has one owner.

        .. versionadded:: 1.0
        """
        raise NotImplementedError

    @hookspec
    def nim_register_backends(self) -> list[BackendSpec]:
        """
        Declare the serving backends this plugin brings.

        Called, and failing, like :meth:`nim_register_sources`; a name has one owner.

        .. versionadded:: 1.0
        """
        raise NotImplementedError

    @hookspec
    def nim_register_environment(self) -> list[EnvVar]:
        """
        Declare environment variables of a plugin that brings no source, sink or backend to declare them with.

        Called, and failing, like :meth:`nim_register_sources`. A credential plugin reads them through
        ``CredentialRequest.variables``.

        .. versionadded:: 1.0
        """
        raise NotImplementedError

    @hookspec
    def nim_register_checks(self) -> list[CheckSpec]:
        """
        Declare checks that ``doctor`` runs.

        Called, and failing, like :meth:`nim_register_sources`.

        .. versionadded:: 1.0
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def nim_provide_credential(self, request: CredentialRequest) -> Credential | None:
        """
        Say how to sign in to one endpoint.

        Called before the first request to an endpoint and again after ``expires_at``, from any worker thread, one call
        at a time. May use the network. Return None to leave the question to the next plugin; the first other answer
        wins. The plugins shipped with nim-core answer last (``trylast``), so that a site's own plugin wins by being
        installed.

        Raises:
            AuthenticationError: This plugin is responsible but cannot answer. The operation stops; no other is asked.

        .. versionadded:: 1.0
        """

    @hookspec(firstresult=True)
    def nim_rewrite_uri(self, uri: ModelUri, override: OverrideTarget) -> ModelUri | tuple[ModelUri, ...] | None:
        """
        Say which URI stands for ``uri`` at the target that NIM_REPOSITORY_OVERRIDE names.

        Called once per file while the plan is made, for URIs of sources that declare ``overridable`` and of those whose
        schemes NIM_REPOSITORY_OVERRIDE_SCHEMES names. Pure: no network, no disk, same answer for the same arguments.
        Several URIs are tried in their order while nothing is found. Return None when the target's scheme is not this
        plugin's. The plugins shipped with nim-core answer last (``trylast``).

        Raises:
            OverrideUnsupportedError: The target is this plugin's but cannot stand in. The operation stops.

        .. versionadded:: 1.0
        """

    @hookspec
    def nim_transfer_event(self, event: TransferEvent) -> None:
        """
        Learn of a fact about a running transfer.

        Called on a thread of the plugin's own, one event after the other in their order, up to some hundred times a
        second; must return at once. What is returned is ignored. The event cannot be changed. A plugin that 2,000
        events wait for, or that is busy 2 s after the transfer, is reported and hears no more.

        Raises:
            Exception: Reported once per plugin; the plugin hears no further events of that run, the transfer goes on.

        .. versionadded:: 1.0
        """
