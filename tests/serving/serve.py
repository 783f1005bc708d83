"""
A front, an engine and their supervisor, as a process: what ``nim-serve`` does once it knows what to serve.

    python serve.py PORT ENGINE_PORT '{"drain": 5, "plan": {"stop_seconds": 3}}' ENGINE_COMMAND ...

Its exit code is that of the supervisor, or of the error it raised, which is printed.
"""

from __future__ import annotations

import json
import os
import sys

from nim_core.errors import NimError
from nim_core.serving.front import FrontOptions, make_front
from nim_core.serving.listener import Listener
from nim_core.serving.state import ServingState
from nim_core.serving.supervisor import Supervisor
from nim_core.types import LaunchPlan


def main() -> int:
    port, engine_port, options, *argv = sys.argv[1:]
    told = json.loads(options)
    state = ServingState()
    listener = Listener(make_front(state, FrontOptions(release="1")), "127.0.0.1", int(port))
    listener.start()
    supervisor = Supervisor(state, (listener,), drain_seconds=told.get("drain", 5))
    plan = LaunchPlan(argv=tuple(argv), **told.get("plan", {}))
    url = f"http://127.0.0.1:{engine_port}"
    if told.get("front_fails"):
        import threading

        assert listener._server is not None
        assert listener._server._loop is not None
        loop = listener._server._loop
        threading.Timer(told["front_fails"], lambda: loop.call_soon_threadsafe(loop.stop)).start()
    try:
        return supervisor.serve(plan, url, os.environ, lambda line: print(line, file=sys.stderr, flush=True))
    except NimError as error:
        print(f"{type(error).__name__}: {error.message}", flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
