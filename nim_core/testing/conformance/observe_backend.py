"""
Ask one backend in a process of its own, and tell what it did: ``python -m`` this module, the question as JSON on stdin.

Run by :mod:`~nim_core.testing.conformance.backend`; the last line of standard error is the answer, as JSON.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import evolve

from nim_core.errors import NimError
from nim_core.registry import load_registry
from nim_core.serving.arguments import merge
from nim_core.settings import Settings
from nim_core.testing.conformance.observe_loading import Watch
from nim_core.types import LaunchRequest


def main(question: dict[str, Any]) -> None:
    """Make the backend, ask it everything, and print what happened."""
    settings = Settings(question["environment"])
    registry = load_registry(settings)
    spec = registry.backends[question["backend"]]
    before = set(sys.modules)
    watch = Watch()
    watch.on = True
    backend = registry.open_backend(spec.name)
    making, watch.seen = watch.seen, []
    request = LaunchRequest(
        workspace=Path(question["workspace"]),
        files=tuple(question["files"]),
        tags=question["tags"],
        served_names=("nim-kit",),
        variables=settings.read(spec.environment),
    )
    backend.options()
    with suppress(NimError):
        request = evolve(request, arguments=merge(backend.propose(request)))
        backend.probe(request)
        backend.plan_launch(request)
    watch.on = False
    modules = sorted({module.partition(".")[0] for module in set(sys.modules) - before})
    print(json.dumps({"making": making, "asking": watch.seen, "modules": modules}), file=sys.stderr)  # noqa: T201 - answer


if __name__ == "__main__":
    main(json.load(sys.stdin))
