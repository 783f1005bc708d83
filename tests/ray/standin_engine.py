"""Stands for an engine: ``standin_engine.py PORT WORKSPACE NODES WORD ...`` tells how it was started."""

import http.server
import json
import os
import sys
from pathlib import Path

PORT, WORKSPACE, NODES, *WORDS = sys.argv[1:]
STARTED = {
    "files": {path.name: path.stat().st_size for path in Path(WORKSPACE).iterdir() if path.name[0] != "."},
    "workspace": WORKSPACE,
    "nodes": NODES,
    "words": WORDS,
    "ray_address": os.environ.get("RAY_ADDRESS"),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(STARTED).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


http.server.ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler).serve_forever()
