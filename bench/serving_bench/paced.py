"""
An engine that does nothing but send tokens, one a millisecond: ``python paced.py MODEL PORT``.

The tiny model makes 8,000 tokens a second, of which many arrive at the front together; large models make 20 to 200,
which arrive one by one. What a token costs then is measured with this.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvicorn

TOKEN = (
    b'data: {"id":"chatcmpl-x","object":"chat.completion.chunk","created":1795471974,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)
ANSWER = b'{"object":"chat.completion","model":"tiny","choices":[]}'


async def app(scope, receive, send) -> None:  # noqa: ANN001
    """Answer health checks and completions."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body) if body else {}
    kind = b"text/event-stream" if asked.get("stream") else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if asked.get("stream"):
        for _ in range(asked["max_tokens"]):
            await send({"type": "http.response.body", "body": TOKEN, "more_body": True})
            await asyncio.sleep(0.001)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n" if asked.get("stream") else ANSWER})


uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
