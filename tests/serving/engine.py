"""
An engine for tests, run as a process of its own: it answers as engines do, and misbehaves as its flags say.

    python engine.py --port 8001 --spawn 2 --load 0.5
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

STATE = {"left": 0, "healthy": True, "asked": 0}

CHILD = """
import os, signal, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "session" in sys.argv:
    os.setsid()
if "deeper" in sys.argv and os.fork():
    os._exit(0)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(600)
"""


async def health(_request: Request) -> Response:
    STATE["asked"] += 1
    if not STATE["healthy"]:
        await asyncio.sleep(600)
    return Response()


async def told(_request: Request) -> Response:
    return JSONResponse({**STATE, "environ": dict(os.environ), "folder": str(Path.cwd()), "pid": os.getpid()})


async def misbehave(request: Request) -> Response:
    match request.path_params["how"]:
        case "die":
            os._exit(int(request.query_params.get("status", "7")))
        case "hang":
            STATE["healthy"] = False
        case "abort":
            os.kill(os.getpid(), signal.SIGABRT)
    return Response()


async def echo(request: Request) -> Response:
    body = await request.body()
    told = {
        "method": request.method,
        "path": request.scope["raw_path"].decode(),
        "query": request.scope["query_string"].decode(),
        "headers": [[name.decode(), value.decode()] for name, value in request.scope["headers"]],
        "sha256": hashlib.sha256(body).hexdigest(),
        "size": len(body),
        "text": body[:1000].decode("utf-8", "replace"),
    }
    headers = {"x-own": "1", "connection": "x-hop", "x-hop": "1", "access-control-allow-origin": "engine"}
    return JSONResponse(told, headers=headers, status_code=int(request.query_params.get("status", "200")))


async def chat(request: Request) -> Response:
    asked = await request.json()
    name = asked["model"] + "@main"
    if not asked.get("stream"):
        return JSONResponse({"model": name, "asked": asked, "text": '"model": "kept"'})

    async def events():
        for number in range(3):
            event = f"data: {json.dumps({'model': name, 'n': number})}\n\n"
            yield event[:15]  # a piece that is no whole line
            await asyncio.sleep(0.02)
            yield event[15:]
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def stream(request: Request) -> Response:
    count, pause = int(request.query_params["n"]), float(request.query_params.get("pause", "0"))

    async def pieces():
        try:
            for number in range(count):
                yield f"data: {number}\n\n"
                await asyncio.sleep(pause)
            if "die" in request.query_params:
                os._exit(9)
        except (asyncio.CancelledError, GeneratorExit):
            STATE["left"] += 1
            raise

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def upload(request: Request) -> Response:
    size, first = 0, time.monotonic()
    async for piece in request.stream():
        if size == 0 and piece:
            first = time.monotonic()
        size += len(piece)
    return JSONResponse({"size": size, "seconds": time.monotonic() - first})


ROUTES = [
    Route("/health", health),
    Route("/told", told),
    Route("/misbehave/{how}", misbehave, methods=["POST"]),
    Route("/metrics", lambda _request: PlainTextResponse("engine_tokens_total 3\n")),
    Route("/openapi-less", lambda _request: Response()),
    Route("/v1/chat/completions", chat, methods=["POST"]),
    Route("/v1/stream", stream, methods=["GET", "POST"]),
    Route("/v1/upload", upload, methods=["POST"]),
    Route("/v1/{rest:path}", echo, methods=["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]),
    Route("/openapi.json", lambda _request: JSONResponse({"openapi": "3.1.0", "paths": {"/v1/engine": {}}})),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--load", type=float, default=0.0)
    parser.add_argument("--die-loading", type=int)
    parser.add_argument("--spawn", action="append", default=[], help="words for a child")
    parser.add_argument("--pids", default=os.devnull)
    parser.add_argument("--ignore-term", action="store_true")
    arguments = parser.parse_args()
    if arguments.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Path(arguments.pids).open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    for words in arguments.spawn:
        subprocess.Popen([sys.executable, "-c", CHILD, arguments.pids, *words.split(",")])
    print("loading the model", flush=True)
    time.sleep(arguments.load)
    if arguments.die_loading is not None:
        print("out of memory, sadly", file=sys.stderr, flush=True)
        sys.exit(arguments.die_loading)
    config = uvicorn.Config(
        Starlette(routes=ROUTES), port=arguments.port, log_level="error", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    if arguments.ignore_term:
        asyncio.run(server._serve())
    else:
        server.run()


if __name__ == "__main__":
    main()
