"""
Requests of clients to the engine, and its answers back: streamed both ways, as they are.

Written against ASGI itself. Every piece that the engine sends is sent on at once; a client that leaves ends the
engine's request, an engine that leaves breaks the client's answer off.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from nim_core.serving import answers, naming
from nim_core.serving.state import Engine, ServingState
from nim_core.serving.upstream import EngineGoneError, Upstream
from nim_core.types import FrontDuties, LaunchPlan

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from nim_core.serving.metrics import Metrics

__all__ = ["BODY_BYTES", "BrokenOffError", "Proxy"]

BODY_BYTES: Final = 256 << 20
"""The largest request that is read for the model it names."""

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that are between neighbours. Source: RFC 9110, 7.6.1."""

_NOT_ASKED: Final = _HOP_BY_HOP | {"host", "expect", "content-length"}
_NOT_ANSWERED: Final = _HOP_BY_HOP | {"date", "server"}
_CORS: Final = "access-control-"

_log = logging.getLogger(__name__)


class BrokenOffError(Exception):
    """An answer that cannot be completed; the server closes the client's connection for it."""


class ClientGoneError(Exception):
    """The client left before its request was complete."""


class Proxy:
    """
    An ASGI application: what the engine answers, where it is asked to.

    Args:
        state: Tells whether there is an engine, and where.
        upstream: Connections to it.
        metrics: Returns what counts; not called before an engine serves.
    """

    def __init__(self, state: ServingState, upstream: Upstream, metrics: Callable[[], Metrics]) -> None:
        self._state = state
        self._upstream = upstream
        self._metrics = metrics
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        engine = self._state.engine
        if scope["type"] != "http":
            return
        if engine is None or not self._state.ready:
            refusal: Response | None = self._refuse_early(engine, scope["path"])
        else:
            refusal = self._refuse(engine.plan, scope)
        if refusal is not None or engine is None:
            await (refusal or answers.not_ready(self._state))(scope, receive, send)
            return
        await Exchange(engine, self._upstream, self._metrics(), scope=scope, receive=receive, send=send).run()

    def _refuse_early(self, engine: Engine | None, path: str) -> Response:
        if engine is not None and not allowed(path, engine.plan.routes):
            return answers.no_such_path(path)
        return answers.not_ready(self._state)

    def _refuse(self, plan: LaunchPlan, scope: Scope) -> Response | None:
        """Return the front's own answer. None when the engine is to be asked."""
        path = scope["path"]
        if not allowed(path, plan.routes):
            return answers.no_such_path(path)
        if not has_key(scope, plan.duties):
            return answers.unauthorized()
        if plan.duties.lists_models and scope["method"] in {"GET", "HEAD"}:
            return self._models(plan, path)
        return None

    def _models(self, plan: LaunchPlan, path: str) -> Response | None:
        models = naming.listed(plan.served_names, self._created)
        if path == "/v1/models":
            return JSONResponse({"object": "list", "data": models})
        if path.startswith("/v1/models/"):
            name = path.removeprefix("/v1/models/")
            return next((JSONResponse(model) for model in models if model["id"] == name), answers.no_such_model(name))
        return None


def allowed(path: str, routes: Iterable[str]) -> bool:
    """Whether clients may use a path; one that climbs is none, whatever it would come to."""
    if any(segment in {".", ".."} for segment in path.split("/")):
        return False
    return any(path.startswith(route) if route.endswith("/") else path == route for route in routes)


def has_key(scope: Scope, duties: FrontDuties) -> bool:
    """Whether a request brings one of the keys, where keys are asked for; in the same time for every wrong one."""
    if not duties.api_keys:
        return True
    given = Headers(scope=scope).get("authorization", "").encode("latin-1")
    wanted = [b"Bearer " + key.reveal().encode() for key in duties.api_keys]
    return any([hmac.compare_digest(given, one) for one in wanted])  # noqa: C419 -- all are compared


class Exchange:
    """One request and its answer."""

    def __init__(
        self, engine: Engine, upstream: Upstream, metrics: Metrics, *, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._url = engine.url
        self._plan = engine.plan
        self._upstream = upstream
        self._metrics = metrics
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers = Headers(scope=scope)
        self._asked_wholly = asyncio.Event()
        self._begun = time.perf_counter()
        self._first: float | None = None
        self._status = 0
        self._name: str | None = None
        self._client_left = False

    async def run(self) -> None:
        """
        Ask the engine and send its answer on.

        Raises:
            BrokenOffError: The engine broke off when part of its answer had been sent, or the front has to stop.
        """
        self._metrics.begun()
        watch = asyncio.create_task(self._watch(asyncio.current_task()))
        try:
            await self._answer()
            watch.cancel()
        except ClientGoneError:
            self._metrics.broken("client")
        except asyncio.CancelledError:
            if not self._client_left:
                raise BrokenOffError("the front is stopping") from None
            self._metrics.broken("client")
            self._uncancel()
        finally:
            watch.cancel()
            now = time.perf_counter() - self._begun
            self._metrics.ended(self._scope["path"], self._status, self._first, now)

    async def _answer(self) -> None:
        try:
            body = await self._body()
            if not isinstance(body, Response):
                await self._forward(body)
                return
            await self._reply(body)
        except EngineGoneError as error:
            if self._client_left:  # what is told of a request whose body ends early
                raise ClientGoneError from error
            self._metrics.broken("engine")
            _log.warning("engine broke off %s %s: %s", self._scope["method"], self._scope["path"], error)
            if self._status:
                raise BrokenOffError(str(error)) from error
            await self._reply(answers.openai_error(502, "the engine did not answer", code="engine_failed"))

    async def _reply(self, response: Response) -> None:
        self._status = response.status_code
        await response(self._scope, self._receive, self._send)

    async def _watch(self, exchange: asyncio.Task[None] | None) -> None:
        """End the exchange when the client leaves."""
        await self._asked_wholly.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._client_left = True
        if exchange is not None:
            exchange.cancel()

    @staticmethod
    def _uncancel() -> None:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()

    # -- the request ---------------------------------------------------------------------------------------------------

    async def _body(self) -> bytes | AsyncIterator[bytes] | Response | None:
        """Return what the engine is sent, or the answer that makes this unnecessary."""
        if not {"content-length", "transfer-encoding"} & set(self._headers.keys()):
            self._asked_wholly.set()
            return None
        first = await self._next()
        if self._reads_names():
            return await self._named(first)
        if first.get("more_body"):
            return self._pieces(first)
        return bytes(first.get("body", b""))

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._client_left = True
            raise ClientGoneError
        if not message.get("more_body"):
            self._asked_wholly.set()
        return message

    async def _pieces(self, message: Message) -> AsyncIterator[bytes]:
        yield message.get("body", b"")
        while message.get("more_body"):
            message = await self._next()
            yield message.get("body", b"")

    def _reads_names(self) -> bool:
        duties = self._plan.duties
        kind = self._headers.get("content-type", "").partition(";")[0].strip().lower()
        return (duties.model is not None or duties.lists_models) and kind == "application/json"

    async def _named(self, first: Message) -> bytes | Response:
        pieces = []
        size = 0
        async for piece in self._pieces(first):
            size += len(piece)
            if size > BODY_BYTES:
                return answers.openai_error(413, f"the request is larger than {BODY_BYTES} bytes", code="too_large")
            pieces.append(piece)
        body = b"".join(pieces)
        asked = naming.asked_for(body)
        if asked is None or asked.model is None:
            return body
        if asked.model not in self._plan.served_names:
            return answers.no_such_model(asked.model) if self._plan.duties.lists_models else body
        if self._plan.duties.model is None:
            return body
        self._name = asked.model
        return naming.with_model(asked, self._plan.duties.model)

    def _asked_headers(self, body: bytes | AsyncIterator[bytes] | None) -> list[tuple[str, str]]:
        dropped = _NOT_ASKED | _named_by_connection(self._headers.getlist("connection"))
        if self._plan.duties.api_keys:
            dropped |= {"authorization"}
        if self._name is not None:
            dropped |= {"accept-encoding"}
        headers = [(name, value) for name, value in self._headers.items() if name not in dropped]
        length = self._headers.get("content-length")
        if length is not None and body is not None and not isinstance(body, bytes):
            headers.append(("content-length", length))
        return headers

    # -- the answer ----------------------------------------------------------------------------------------------------

    async def _forward(self, body: bytes | AsyncIterator[bytes] | None) -> None:
        query = self._scope["query_string"]
        target = self._scope["raw_path"] + (b"?" + query if query else b"")
        url = self._url + target.decode("latin-1")
        method = self._scope["method"]
        async with self._upstream.request(method, url, headers=self._asked_headers(body), body=body) as response:
            await self._start(response)
            async for piece in self._answered(response):
                if self._first is None:
                    self._first = time.perf_counter() - self._begun
                if piece:
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, response: ClientResponse) -> None:
        dropped = _NOT_ANSWERED | _named_by_connection(response.headers.getall("Connection", []))
        if self._name is not None:
            dropped |= {"content-length"}
        headers = [
            (name.lower(), value)
            for name, value in response.raw_headers
            if (word := name.decode("latin-1").lower()) not in dropped and not word.startswith(_CORS)
        ]
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        self._status = response.status

    def _answered(self, response: ClientResponse) -> AsyncIterator[bytes]:
        """Return what clients are sent, piece by piece; with their own names where those were changed."""
        if self._name is not None and response.content_type == "text/event-stream":
            return _renamed_events(response, self._name)
        if self._name is not None and response.content_type == "application/json":
            return _renamed_object(response, self._name)
        return response.content.iter_any()


async def _renamed_events(response: ClientResponse, name: str) -> AsyncIterator[bytes]:
    lines = naming.EventLines(name)
    async for piece in response.content.iter_any():
        yield lines.feed(piece)
    yield lines.finish()


async def _renamed_object(response: ClientResponse, name: str) -> AsyncIterator[bytes]:
    yield naming.rename(await response.read(), name)


def _named_by_connection(values: Iterable[str]) -> frozenset[str]:
    """Return the headers that a Connection header says are between neighbours."""
    return frozenset(name.strip().lower() for value in values for name in value.split(","))


def silence_broken_answers() -> None:
    """Have the server not log as its own bug what was logged here, and is meant."""
    logging.getLogger("uvicorn.error").addFilter(_is_a_bug)


def _is_a_bug(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, BrokenOffError)
