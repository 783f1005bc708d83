"""A backend that does everything right, and its engine, which is this module as a program; what is broken derives."""

from __future__ import annotations

import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from nim_core.errors import BackendError
from nim_core.types import Argument, EnvVar, LaunchPlan, Option, Verdict

VARIABLES = (EnvVar(name="BELL_KEY", summary="key of the bell", secret=True),)


class Bell:
    def __init__(self, variables):
        self.key = variables.secret("BELL_KEY")

    def options(self):
        return [Option(name="served-model-name", many=True), Option(name="volume", kind="integer", aliases=("-v",))]

    def propose(self, request):
        names = Argument(name="served-model-name", value=request.served_names, layer=request.names_layer)
        return [names] if request.served_names else []

    def probe(self, request):
        if request.exposure or request.adapters or request.changing_adapters or request.nodes:
            return Verdict(can_serve=False, reason="a bell rings alone, without TLS and adapters")
        if not any(file.endswith(".bell") for file in request.files):
            return Verdict(can_serve=False, reason="no .bell file")
        return Verdict(can_serve=True)

    def plan_launch(self, request):
        if not request.files:
            raise BackendError("no files")
        return LaunchPlan(
            argv=(sys.executable, __file__, request.host, str(request.port)),
            environ={"BELL_KEY": self.key} if self.key else {},
            served_names=request.served_names or (request.workspace.name,),
            routes=("/v1/",),
            stop_seconds=5.0,
        )


class Ring(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path in {"/health", "/v1/models"} else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    if "--stay" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    HTTPServer((sys.argv[1], int(sys.argv[2])), Ring).serve_forever()
