"""llama.cpp's own server, as the package xllamacpp has it, with the words that llama-server takes."""

import argparse
import os
import signal

from xllamacpp import CommonParams, Server

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--alias", required=True)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--ctx-size", type=int, default=0)
given = parser.parse_args()

parameters = CommonParams()
parameters.model.path = given.model
parameters.model_alias = {given.alias}
parameters.hostnames = [given.host]
parameters.port = given.port
parameters.n_ctx = given.ctx_size
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server = Server(parameters)
while True:
    signal.pause()
