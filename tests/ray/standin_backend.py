"""A backend that serves any model by ``standin_engine.py`` beside it, which says what it was started with."""

from __future__ import annotations

import sys
from pathlib import Path

import nim_core
from nim_core.types import BackendSpec, LaunchPlan, Verdict, argument_words

ENGINE = Path(__file__).with_name("standin_engine.py")


class StandIn:
    def options(self):
        return ()

    def propose(self, request):
        return ()

    def probe(self, request):
        return Verdict(can_serve=True)

    def plan_launch(self, request):
        nodes = request.nodes
        facts = [str(request.port), str(request.workspace), f"{nodes.manager}:{nodes.count}"]
        words = argument_words(request.arguments.values())
        return LaunchPlan(argv=(sys.executable, str(ENGINE), *facts, *words), title="stand-in", stop_seconds=5)


@nim_core.hookimpl
def nim_register_backends():
    spec = BackendSpec(name="standin", summary="for tests", factory=lambda variables: StandIn(), without_gpu=True)
    return [spec]
