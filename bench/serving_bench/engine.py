"""llama.cpp on the tiny model, as a process: ``PYTHON engine.py MODEL PORT``, where PYTHON can import xllamacpp."""

import signal
import sys
import threading

import xllamacpp  # noqa: TID253

model, port = sys.argv[1:]
parameters = xllamacpp.CommonParams()
parameters.model.path = model
parameters.model_alias = {"tiny"}
parameters.hostnames = ["127.0.0.1"]
parameters.port = int(port)
parameters.n_ctx = 512
parameters.n_parallel = 1
parameters.cpuparams.n_threads = 1
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_arguments: ended.set())
server = xllamacpp.Server(parameters)
ended.wait()
