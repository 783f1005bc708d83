"""
What clients and probes talk to: an ASGI application of the front's own endpoints and of those of the engine.

It answers from the first moment on, before there is a model or an engine; see ``docs/serving.md``.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from attrs import frozen
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from nim_core.serving import answers
from nim_core.serving.probes import Probes
from nim_core.serving.proxy import Proxy
from nim_core.serving.state import ServingState
from nim_core.serving.upstream import Upstream

if TYPE_CHECKING:
    from nim_core.serving.metrics import Metrics

__all__ = ["FrontOptions", "make_front", "prepare"]


@frozen(kw_only=True)
class FrontOptions:
    """
    How the front answers.

    Attributes:
        release: Version of what serves.
        api: Version of the front's own endpoints.
        proxies: Whether clients reach the engine through it; False where the engine listens for them itself, and the
            front has health and metadata only.
        allowed_origins: Origins of pages that may use it; ``*``: all.
        allowed_methods: HTTP methods that these may use.
        allowed_headers: Headers that these may send.
        exposed_headers: Headers that these may see.
        preflight_seconds: How long browsers may remember that.
    """

    release: str
    api: str = "1.0.0"
    proxies: bool = True
    allowed_origins: tuple[str, ...] = ("*",)
    allowed_methods: tuple[str, ...] = ("*",)
    allowed_headers: tuple[str, ...] = ("*",)
    exposed_headers: tuple[str, ...] = ()
    preflight_seconds: int = 600


def make_front(state: ServingState, options: FrontOptions) -> ASGIApp:
    """
    Return the application for one listener.

    Args:
        state: Read for every answer.
        options: Fixed from the start.
    """
    return CORSMiddleware(
        _Front(state, options).router(),
        allow_origins=options.allowed_origins,
        allow_methods=options.allowed_methods,
        allow_headers=options.allowed_headers,
        expose_headers=options.exposed_headers,
        max_age=options.preflight_seconds,
    )


def prepare() -> None:
    """Import what the first request would have to wait for; that takes a few tenths of a second."""
    for module in ("aiohttp", "nim_core.serving.metrics"):
        importlib.import_module(module)


class _Front:
    """The parts of a front."""

    def __init__(self, state: ServingState, options: FrontOptions) -> None:
        self._state = state
        self._options = options
        self._upstream = Upstream()

    def router(self) -> Router:
        """Return the application beneath what browsers ask for."""
        options = self._options
        probes = Probes(self._state, self._upstream, self._counted, release=options.release, api=options.api)
        proxy = Proxy(self._state, self._upstream, self._counted)
        default = proxy if options.proxies else _nothing
        return Router(probes.routes(), redirect_slashes=False, default=default, lifespan=self._lifespan)

    def _counted(self) -> Metrics:
        return self._metrics

    @cached_property
    def _metrics(self) -> Metrics:
        from nim_core.serving.metrics import Metrics

        return Metrics(self._state, self._options.release)

    @asynccontextmanager
    async def _lifespan(self, _app: Router) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._upstream.close()


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await answers.no_such_path(scope["path"])(scope, receive, send)
