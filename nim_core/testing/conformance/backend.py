"""
The backend level: what a backend owes those who serve models by it.

The backend is opened and asked as ``nim-serve`` does it. Where its engine is installed, the process that it describes
is really started, by the same code of core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from nim_core.settings import CORE_VARIABLES
from nim_core.testing.conformance.backend_bench import BackendBench, ServedModel, canaries, check_verdict
from nim_core.testing.conformance.backend_plans import PlanCases
from nim_core.testing.conformance.backend_running import RunningCases
from nim_core.testing.conformance.hygiene import PluginSuite
from nim_core.testing.conformance.machine import nobodys_machine
from nim_core.testing.conformance.suite import case
from nim_core.types import Argument, BackendSpec, Layer, Option

__all__ = ["BackendSuite", "ServedModel"]

_SECONDS: Final = 120
_ENGINES: Final = frozenset({
    "ctranslate2", "exllamav2", "jax", "llama_cpp", "lmdeploy", "mlx", "onnxruntime", "openvino", "ray", "sglang",
    "tensorflow", "tensorrt_llm", "torch", "transformers", "vllm", "xllamacpp",
})  # fmt: skip


class BackendSuite(PlanCases, RunningCases, PluginSuite):
    """
    The tests of a backend; the author's fixture ``model`` gives a :class:`ServedModel`.

    Attributes:
        backend: Name of the backend, as in its spec. Empty: that of the plugin.
    """

    backend: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def _alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Keep what this machine has set out of the tests; programs are still found."""
        path = os.environ.get("PATH", os.defpath)
        nobodys_machine(self.info(), monkeypatch, tmp_path_factory.mktemp("home"))
        monkeypatch.setenv("PATH", path)

    @pytest.fixture
    def bench(self, model: ServedModel) -> BackendBench:
        """The backend, and what it is asked."""
        return BackendBench(self._spec(), model)

    def _spec(self) -> BackendSpec:
        name = self.backend or self.plugin
        found = {spec.name: spec for spec in self.info().backends}
        if name not in found:
            pytest.fail(f"the plugin brings no backend {name!r} but: {', '.join(found) or 'none'}", pytrace=False)
        return found[name]

    # ------------------------------------------------------------------------------------------- it describes, no more
    @case("backend")
    def test_making_a_backend_does_nothing(self, bench: BackendBench) -> None:
        """Every installed backend is made when one is looked for."""
        actions = _observed(bench)["making"]
        assert not actions, f"the factory does: {'; '.join(actions[:5])}. Do it in probe() or plan_launch()"

    @case("backend")
    def test_asking_starts_and_writes_nothing(self, bench: BackendBench) -> None:
        """``--dry-run`` asks all of it; core starts the engine, nobody else."""
        actions = _observed(bench)["asking"]
        assert not actions, (
            f"options(), propose(), probe() and plan_launch() do: {'; '.join(actions[:5])}. A backend looks at files, "
            "and describes the process; what has to be written, the process writes"
        )

    @case("backend")
    def test_the_engine_is_not_imported(self, bench: BackendBench) -> None:
        """It takes seconds and gigabytes, and its process imports it anyway."""
        engines = _ENGINES | {bench.spec.name, *bench.spec.engines}
        found = sorted(engines & set(_observed(bench)["modules"]))
        assert not found, (
            f"asking the backend imports {', '.join(found)} into core's own process; find out with "
            "importlib.util.find_spec or importlib.metadata whether it is there"
        )

    # ------------------------------------------------------------------------------------------------------- arguments
    @case("backend")
    def test_options_are_well_formed(self, bench: BackendBench) -> None:
        """Core reads users' words by them."""
        options = bench.backend.options()
        wrong = [fault for option in options for fault in _faults(option)]
        assert not wrong, "; ".join(wrong)
        words = Counter(word for option in options for word in _spellings(option))
        twice = sorted(word for word, count in words.items() if count > 1)
        assert not twice, f"several options are spelled {', '.join(twice)}: which one is meant cannot be told"
        assert tuple(bench.backend.options()) == options, "options() has to give the same answer each time"

    @case("backend")
    def test_what_is_proposed_is_taken(self, bench: BackendBench) -> None:
        """Arguments have the names and kinds of options."""
        options = {option.name: option for option in bench.backend.options()}
        for argument in bench.backend.propose(bench.request(context=4096)):
            if options:
                assert argument.name in options, (
                    f"propose() names {argument.name!r}, which is no option; use Option.name, without dashes"
                )
                fault = _unsuited(argument, options[argument.name])
                assert not fault, f"propose() gives {argument.name} {fault}"

    @case("backend")
    def test_what_users_say_is_stronger(self, bench: BackendBench) -> None:
        """A proposal is no word of the user's; at most it is a variable."""
        for argument in bench.backend.propose(bench.request(context=4096)):
            assert argument.layer >= Layer.VARIABLE, (
                f"{argument.name} is proposed as {argument.layer.name}, which belongs to users; proposals are "
                "VARIABLE, TAG, DERIVED or DEFAULT"
            )

    @case("backend")
    def test_origins_are_named(self, bench: BackendBench) -> None:
        """Users ask where a value comes from, and are told this."""
        known = {variable.name for variable in (*bench.spec.environment, *CORE_VARIABLES)}
        for argument in bench.backend.propose(bench.request(context=4096, names_layer=Layer.DERIVED)):
            assert argument.origin.strip(), f"{argument.name} is proposed without an origin"
            if argument.layer is Layer.VARIABLE:
                assert any(name in argument.origin for name in known), (
                    f"{argument.name} comes from {argument.origin!r}, says propose(): that names no variable which the "
                    "spec declares"
                )

    # --------------------------------------------------------------------------------------------------------- judging
    @case("backend")
    def test_judging_before_the_download(self, bench: BackendBench, tmp_path: Path) -> None:
        """What cannot be served is refused before hours of downloading; the folder is not there yet."""
        workspace = tmp_path / "not" / "downloaded"
        with bench.in_words("a workspace that does not exist yet") as refusals:
            verdict = bench.backend.probe(bench.resolved(workspace=workspace))
            check_verdict(verdict, "probe() before the download")
            if bench.model.installed:
                assert verdict.can_serve, (
                    f"probe() refuses before the download ({verdict.reason}): judge by LaunchRequest.files, and by the "
                    "content of files only where they are there"
                )
        assert not refusals, f"probe() raises {refusals[0]!r}; answer a Verdict with a reason and a hint"
        assert not workspace.exists(), "probe() makes the workspace; that is core's to do"

    @case("backend")
    def test_judging_what_is_no_model(self, bench: BackendBench, tmp_path: Path) -> None:
        """A folder without weights: a verdict with a reason, not a traceback."""
        (tmp_path / "README.md").write_text("no model", encoding="utf-8")
        with bench.in_words("a folder that has no model") as refusals:
            verdict = bench.backend.probe(bench.resolved(workspace=tmp_path, files=("README.md",)))
            assert not verdict.can_serve, "probe() says that it can serve a folder with nothing but a README.md"
            check_verdict(verdict, "probe() of a folder without a model")
        assert not refusals, f"probe() raises {refusals[0]!r}; answer a Verdict with a reason"

    @case("backend")
    def test_judging_the_model(self, bench: BackendBench) -> None:
        """Served where the engine is; else the way to get there is named."""
        verdict = bench.backend.probe(bench.resolved())
        if bench.model.installed:
            assert verdict.can_serve, f"the engine is installed, and probe() says: {verdict.reason}"
            return
        check_verdict(verdict, "probe()")
        if bench.model.installed is None:
            pytest.skip("not declared: ServedModel.installed, something stands in for the engine")
        assert not verdict.can_serve, "probe() says that it can serve, and ServedModel.installed says that nothing can"
        assert verdict.hint, f"probe() says {verdict.reason!r} and not what to do about it: give Verdict.hint"

    @case("backend")
    def test_without_a_gpu(self, bench: BackendBench) -> None:
        """Without BackendSpec.without_gpu, nobody asks it on such a machine."""
        verdict = bench.backend.probe(bench.resolved(gpus=()))
        check_verdict(verdict, "probe() of a request without GPUs")
        assert bench.spec.without_gpu or not verdict.can_serve, (
            "probe() can serve without a GPU, and the spec says that it cannot: set without_gpu=True"
        )

    @case("backend")
    def test_secrets_are_no_proposals(self, bench: BackendBench) -> None:
        """Arguments are shown to whoever asks, unless their option is declared secret."""
        canary, environment = canaries(bench)
        hidden = {option.name for option in bench.backend.options() if option.secret}
        backend = bench.open(environment)
        with bench.without(canary):
            proposed = backend.propose(bench.request(environment=environment))
            bare = [it.name for it in proposed if canary in str(it.value) and it.name not in hidden]
            assert not bare, f"{', '.join(bare)} is proposed with the value of a secret variable: declare Option.secret"


_reports: Final[dict[str, dict[str, Any]]] = {}
"""What was observed, by the question; the folder of the model, which is another in each test, left out."""


def _observed(bench: BackendBench) -> dict[str, Any]:
    """Ask the backend in a process of its own, once; return what that did."""
    model = bench.model
    known = json.dumps([bench.spec.name, dict(model.environment), model.paths, dict(model.tags)], sort_keys=True)
    if known not in _reports:
        _reports[known] = _observe(bench)
    return _reports[known]


def _observe(bench: BackendBench) -> dict[str, Any]:
    model = bench.model
    question = {
        "backend": bench.spec.name,
        "environment": dict(model.environment),
        "workspace": str(model.workspace),
        "files": model.paths,
        "tags": dict(model.tags),
    }
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "nim_core.testing.conformance.observe_backend"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=_SECONDS,
    )
    lines = done.stderr.strip().splitlines()
    if done.returncode != 0 or not lines:
        pytest.fail(f"asking the backend ended with {done.returncode}: {done.stderr[-2000:]}", pytrace=False)
    report: dict[str, Any] = json.loads(lines[-1])
    return report


def _spellings(option: Option) -> tuple[str, ...]:
    return (f"--{option.name}", *option.aliases, *option.negations)


def _faults(option: Option) -> list[str]:
    """Return what is wrong with an option, in words."""
    found = []
    if not option.name or option.name.startswith("-") or any(sign in option.name for sign in " =\t\n"):
        found.append(f"option {option.name!r}: a name has no leading dashes, blanks or equals signs")
    bare = [word for word in (*option.aliases, *option.negations) if not word.startswith("-")]
    if bare:
        found.append(f"option {option.name!r}: aliases and negations have their dashes: {', '.join(bare)}")
    if option.kind == "switch" and (option.choices or option.many):
        found.append(f"option {option.name!r}: a switch takes no value, so it has neither choices nor many")
    if option.negations and option.kind != "switch":
        found.append(f"option {option.name!r}: only a switch has negations")
    if len(set(option.choices)) < len(option.choices) or not all(option.choices):
        found.append(f"option {option.name!r}: choices are different texts, none of them empty")
    return found


def _unsuited(argument: Argument, option: Option) -> str:
    """Return why the value of an argument is none of its option's. Empty when it is one."""
    value = argument.value
    if option.kind == "switch":
        return "" if isinstance(value, bool) else f"the value {value!r}, and it is a switch: True or False"
    if option.kind == "json":
        return "" if not isinstance(value, bool) else f"the value {value!r}, and it is a JSON object"
    texts = value if isinstance(value, tuple) else (value,)
    if isinstance(value, tuple) and not option.many:
        return "several values, and it takes one"
    if not all(isinstance(text, str) for text in texts):
        return f"the value {value!r}: values are texts"
    others = [text for text in texts if option.choices and text not in option.choices]
    return f"the value {others[0]!r}, which is none of its choices" if others else ""
