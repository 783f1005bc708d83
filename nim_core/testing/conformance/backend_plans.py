"""The part of the backend level that looks at plans of processes; nothing is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from attrs import evolve

from nim_core.testing.certificates import Certificates
from nim_core.testing.conformance.backend_bench import HOST, NAMES, BackendBench, canaries, shown
from nim_core.testing.conformance.suite import Suite, case
from nim_core.types import Adapter, EngineCall, Exposure, LaunchPlan, Nodes, Secret

__all__ = ["PlanCases"]

_PORT: Final = 43127
_MOST_SECONDS: Final = 3600.0


class PlanCases(Suite):
    """Tests of plans."""

    @case("backend")
    def test_a_plan_is_a_process(self, bench: BackendBench) -> None:
        """Words, variables and paths are what they are said to be."""
        plan = bench.plan()
        assert plan.argv, "LaunchPlan.argv is empty; it begins with the program"
        assert all(isinstance(word, str) and "\0" not in word for word in plan.argv), f"argv has texts: {plan.argv}"
        assert plan.argv[0], "the program has no name"
        values = [value for value in plan.environ.values() if not isinstance(value, str | Secret)]
        assert not values, f"LaunchPlan.environ has values that are neither text nor Secret: {values}"
        both = sorted(set(plan.environ) & set(plan.without))
        assert not both, f"{', '.join(both)} is in LaunchPlan.environ and in LaunchPlan.without"
        assert plan.folder is None or plan.folder.is_dir(), f"LaunchPlan.folder is no folder: {plan.folder}"
        assert 0 < plan.stop_seconds <= _MOST_SECONDS, f"stop_seconds is {plan.stop_seconds}: SIGTERM needs a moment"

    @case("backend")
    def test_paths_begin_with_a_slash(self, bench: BackendBench) -> None:
        """Core's front asks for them, and lets clients use them."""
        plan = bench.plan()
        paths = {"health_path": plan.health_path, "metrics_path": plan.metrics_path}
        wrong = [f"{name}={path!r}" for name, path in paths.items() if path is not None and path[:1] != "/"]
        wrong += [f"routes: {path!r}" for path in plan.routes if path[:1] != "/"]
        assert not wrong, f"paths begin with a slash, {', '.join(wrong)} does not"

    @case("backend")
    def test_host_and_port_are_used(self, bench: BackendBench) -> None:
        """Core's front waits there, and nobody else may reach it."""
        words = " ".join((*shown(bench.plan(host=HOST, port=_PORT)).words, *shown(bench.plan()).variables))
        for name, value in (("host", HOST), ("port", str(_PORT))):
            assert value in words, f"LaunchRequest.{name} ({value}) is neither in argv nor in environ: {words}"

    @case("backend")
    def test_names_are_kept(self, bench: BackendBench) -> None:
        """Clients use the names that users gave."""
        assert bench.plan().served_names == NAMES, (
            f"LaunchPlan.served_names is {bench.plan().served_names}, and {NAMES} were asked for"
        )
        assert bench.plan(served_names=()).served_names, "without names, the plan makes one up: clients need one"

    @case("backend")
    def test_the_same_request_is_the_same_plan(self, bench: BackendBench) -> None:
        """``--dry-run`` shows what would be started."""
        first = bench.plan()
        assert bench.plan() == first, "plan_launch() gives another plan when it is asked again"
        assert bench.plan(bench.open()) == first, "another backend object gives another plan for the same request"

    @case("backend")
    def test_the_model_is_left_as_it_is(self, bench: BackendBench) -> None:
        """The folder may be links into the cache, and the cache read-only."""
        before = _tree(bench.model.workspace)
        bench.plan()
        assert _tree(bench.model.workspace) == before, "the backend changes the model's folder"

    @case("backend")
    def test_secrets_are_not_shown(self, bench: BackendBench) -> None:
        """Everybody on a machine sees command lines; core logs the rest."""
        canary, environment = canaries(bench)
        with bench.without(canary):
            seen = shown(bench.plan(bench.open(environment), environment=environment))
            bare = [word.partition("=")[0] for word in seen.variables if canary in word]
            assert not bare, f"{', '.join(bare)} in LaunchPlan.environ is a secret: wrap it in Secret"
            assert not any(canary in word for word in seen.words), "argv, title or routes show a secret: use environ"

    # ------------------------------------------------------------------------------- what not every engine can do
    @case("backend")
    def test_clients_that_reach_the_engine(self, bench: BackendBench, certificates: Certificates) -> None:
        """With TLS, the certificate is used or the request refused; never is it left out."""
        plain = Exposure()
        bench.asked_for("clients that reach the engine", exposure=plain)
        secure = Exposure(certificate=certificates.certificate, key=certificates.key)
        plan = bench.asked_for("clients that reach the engine by TLS", exposure=secure)
        assert plan is None or _mentions(plan, str(certificates.certificate)), (
            "Exposure.certificate is left out: clients would talk in the clear; refuse in probe() what cannot be done"
        )

    @case("backend")
    def test_adapters(self, bench: BackendBench, tmp_path: Path) -> None:
        """They are served, or the request is refused; never are they left out."""
        adapter = Adapter(name="kit-adapter", folder=tmp_path, rank=8)
        plan = bench.asked_for("LoRA adapters", adapters=(adapter,))
        assert plan is None or _mentions(plan, "kit-adapter"), (
            "LaunchRequest.adapters is left out of the plan; refuse in probe() what cannot be done"
        )
        bench.asked_for("LoRA adapters that come and go", changing_adapters=True)

    @case("backend")
    @pytest.mark.parametrize("rank", [0, 1])
    def test_several_machines(self, bench: BackendBench, rank: int) -> None:
        """They serve together, or the request is refused; never does each serve by itself."""
        plan = bench.asked_for("two nodes", nodes=Nodes(count=2, rank=rank, leader="127.0.0.3", port=43128))
        assert plan is None or plan != bench.plan(), (
            "LaunchRequest.nodes is left out of the plan; refuse in probe() what cannot be done"
        )

    @case("backend")
    def test_adapters_that_come_and_go(self, bench: BackendBench, tmp_path: Path) -> None:
        """The calls are requests that core can send."""
        if not bench.backend.loads_adapters:
            pytest.skip("not declared: AdapterLoader, adapters while the engine serves")
        adapter, request = Adapter(name="kit-adapter", folder=tmp_path), bench.resolved(changing_adapters=True)
        for call in (bench.backend.load_adapter(adapter, request), bench.backend.unload_adapter(adapter, request)):
            _check_call(call)

    @case("backend")
    def test_what_is_read_from_afar(self, bench: BackendBench) -> None:
        """A model that has no URI is nowhere but here."""
        assert not bench.backend.reads_remotely(evolve(bench.resolved(), model_uri=None)), (
            "reads_remotely() says that the engine reads a model without a URI by itself: nothing would be downloaded"
        )


def _check_call(call: EngineCall) -> None:
    assert call.path.startswith("/"), f"EngineCall.path begins with a slash: {call.path!r}"
    json.dumps(dict(call.content))
    assert "kit-adapter" in json.dumps(dict(call.content)), "the call does not name the adapter"
    bare = [name for name, value in call.headers.items() if not isinstance(value, Secret)]
    assert not bare, f"EngineCall.headers are Secret: {', '.join(bare)}"


def _mentions(plan: LaunchPlan, text: str) -> bool:
    seen = shown(plan)
    hidden = (value.reveal() for value in plan.environ.values() if isinstance(value, Secret))
    return any(text in word for word in (*seen.words, *seen.variables, *hidden))


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return sizes and times of all files beneath a folder."""
    found = {file: file.lstat() for file in sorted(folder.rglob("*"))}
    return {str(file): (facts.st_size, facts.st_mtime_ns) for file, facts in found.items()}
