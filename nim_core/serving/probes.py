"""What the front tells of itself and of what it serves: health, metadata, manifest, version, license, metrics."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from nim_core.serving import answers
from nim_core.serving.state import Engine, Served, ServingState
from nim_core.serving.upstream import EngineGoneError, Upstream

if TYPE_CHECKING:
    from nim_core.serving.metrics import Metrics

__all__ = ["EngineHealth", "Probes"]

_HEALTH_SECONDS: Final = 3.0
"""How long an engine may take to say that it is well; Kubernetes' own limit is mostly shorter."""

_CACHED_SECONDS: Final = 1.0
_METRICS_SECONDS: Final = 5.0


class EngineHealth:
    """
    Whether the engine says that it is well, asked at most once a second however many ask here.

    Args:
        state: Tells where it is.
        upstream: Connections to it.
        clock: Seconds.
    """

    def __init__(self, state: ServingState, upstream: Upstream, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._upstream = upstream
        self._clock = clock
        self._lock = asyncio.Lock()
        self._asked: tuple[Engine, float, bool] | None = None

    async def well(self) -> bool:
        """Return whether it serves, and answers its own health check with 200 in time."""
        engine = self._state.engine
        if engine is None or not self._state.ready:
            return False
        async with self._lock:
            if self._asked is None or self._asked[0] is not engine or self._clock() >= self._asked[1]:
                well = await self._ask(engine)
                self._asked = (engine, self._clock() + _CACHED_SECONDS, well)
            return self._asked[2] and self._state.ready

    async def _ask(self, engine: Engine) -> bool:
        if engine.plan.health_path is None:
            return True
        try:
            status, _ = await self._upstream.fetch(engine.url + engine.plan.health_path, seconds=_HEALTH_SECONDS)
        except EngineGoneError:
            return False
        return status == 200


class Probes:
    """
    The front's own endpoints.

    Args:
        state: What there is to tell.
        upstream: Connections to the engine.
        metrics: Returns what counts.
        release: Version of what serves.
        api: Version of these endpoints.
    """

    def __init__(
        self, state: ServingState, upstream: Upstream, metrics: Callable[[], Metrics], *, release: str, api: str
    ) -> None:
        self._state = state
        self._upstream = upstream
        self._metrics = metrics
        self._release = release
        self._api = api
        self._health = EngineHealth(state, upstream)
        self._endpoints: Mapping[str, tuple[Callable[[Request], Awaitable[Response]], str]] = {
            "/v1/health/live": (self._live, "Whether this process runs."),
            "/v1/health/ready": (self._ready, "Whether the model is served; if not, how far that is."),
            "/v1/metadata": (self._metadata, "What is served."),
            "/v1/manifest": (self._manifest, "The manifest of what is served."),
            "/v1/version": (self._version, "The version of what serves."),
            "/v1/license": (self._license, "The license of the model."),
            "/v1/metrics": (self._figures, "Figures in Prometheus' text format, the engine's among them."),
        }

    def routes(self) -> list[BaseRoute]:
        """Return where they are."""
        own: list[BaseRoute] = [Route(path, endpoint) for path, (endpoint, _) in self._endpoints.items()]
        return [*own, Route("/openapi.json", self._openapi)]

    async def _live(self, _request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def _ready(self, _request: Request) -> Response:
        if await self._health.well():
            return JSONResponse({"status": "ready"})
        record = self._state.as_record()
        if self._state.ready:
            record["reason"] = "the engine does not answer its health check"
        headers = {"retry-after": str(answers.RETRY_SECONDS)}
        return JSONResponse({"status": "not ready", **record}, status_code=503, headers=headers)

    async def _metadata(self, _request: Request) -> Response:
        served = self._state.served
        if served is None:
            return self._not_yet("what is served is not known yet")
        licenses = _licenses(served)
        return JSONResponse(
            {
                "version": self._release,
                "modelInfo": [{"modelUrl": url, "shortName": _short_name(url)} for url in served.model_urls],
                "profile_id": served.profile_id,
                "profile_name": served.profile_name,
                "licenseInfo": licenses[0] if licenses else None,
                "backend": dict(served.backend),
            }
        )

    async def _manifest(self, _request: Request) -> Response:
        served = self._state.served
        if served is None:
            return self._not_yet("the manifest is not known yet")
        return JSONResponse({"manifest_file": served.manifest})

    async def _version(self, _request: Request) -> Response:
        return JSONResponse({"release": self._release, "api": self._api})

    async def _license(self, _request: Request) -> Response:
        served = self._state.served
        licenses = [] if served is None else _licenses(served)
        if licenses:
            return JSONResponse({**licenses[0], "licenses": licenses})
        if not self._state.ready:
            return self._not_yet("the license is not known yet")
        return answers.openai_error(404, "the model has no license file", code="not_found")

    async def _figures(self, _request: Request) -> Response:
        from nim_core.serving.metrics import CONTENT_TYPE

        text = (await asyncio.to_thread(self._metrics)).text() + await self._engine_figures()
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def _engine_figures(self) -> bytes:
        engine = self._state.engine
        if engine is None or engine.plan.metrics_path is None:
            return b""
        try:
            status, text = await self._upstream.fetch(engine.url + engine.plan.metrics_path, seconds=_METRICS_SECONDS)
        except EngineGoneError:
            return b""
        return text if status == 200 else b""

    async def _openapi(self, _request: Request) -> Response:
        document = await self._engine_document()
        info = {"title": "nim", "version": self._api}
        own = {path: _operation(summary) for path, (_, summary) in self._endpoints.items()}
        paths = {**document.get("paths", {}), **own}
        return JSONResponse({"openapi": "3.1.0", "info": info, **document, "paths": paths})

    async def _engine_document(self) -> dict[str, Any]:
        """Return the engine's own description. Empty when it has none, or cannot be asked."""
        engine = self._state.engine
        if engine is None or not self._state.ready:
            return {}
        try:
            status, text = await self._upstream.fetch(engine.url + "/openapi.json", seconds=_METRICS_SECONDS)
            document = json.loads(text) if status == 200 else {}
        except (EngineGoneError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def _not_yet(self, what: str) -> Response:
        return answers.not_ready(self._state, what=what)


def _short_name(url: str) -> str:
    """Return the model's name and version, without where it lives."""
    return url.rstrip("/").rpartition("/")[2]


def _licenses(served: Served) -> list[dict[str, Any]]:
    """Return each license text with what is known of it; ``sha`` is the SHA-256 of its UTF-8."""
    return [_license(path, text) for path, text in served.licenses.items()]


def _license(path: str, text: str) -> dict[str, Any]:
    data = text.encode()
    return {
        "name": path.rpartition("/")[2],
        "path": path,
        "sha": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "url": "",
        "type": "file",
        "content": text,
    }


def _operation(summary: str) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": {"200": {"description": "OK"}}}}
