"""Backends that are broken on purpose: each fails the test that is meant for it, and no other."""

from __future__ import annotations

from textwrap import indent

import pytest

from tests.testing.conformance.broken_session import Failures, run_broken

PLUGIN = """
import subprocess
import sys
from attrs import evolve
from nim_core import hookimpl
from nim_core.errors import BackendMissingError
from nim_core.types import Argument, BackendSpec, EnvVar, LaunchPlan, Layer, Option, Secret, Verdict
from tests.testing.conformance.bell_backend import VARIABLES, Bell

{broken}

@hookimpl
def nim_register_backends():
    return [BackendSpec(name="{name}", summary="a bell", factory=Broken, without_gpu=True, environment=VARIABLES)]
"""
SUITES = """
import pytest
from nim_core.testing.conformance import BackendSuite, ServedModel

class Bell(BackendSuite):
    @pytest.fixture
    def model(self, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "model.bell").write_text("ding")
        return ServedModel(workspace=tmp_path / "model", installed=True, environment={"BELL_KEY": "key-of-the-kit"})
"""
BROKEN = {
    "nothing": ("pass", (), ""),
    "starts": (
        """
def __init__(self, variables):
    super().__init__(variables)
    subprocess.run(["true"], check=True)
""",
        ("test_making_a_backend_does_nothing",),
        "the factory does: process: subprocess.Popen",
    ),
    "writes": (
        """
def plan_launch(self, request):
    open("/dev/null", "w").close()
    return super().plan_launch(request)
""",
        ("test_asking_starts_and_writes_nothing",),
        "what has to be written, the process writes",
    ),
    "imports": (
        """
def probe(self, request):
    sys.modules.setdefault("torch", sys)
    return super().probe(request)
""",
        ("test_the_engine_is_not_imported",),
        "asking the backend imports torch into core's own process",
    ),
    "dashes": (
        """
def options(self):
    return [*super().options(), Option(name="--loud")]
""",
        ("test_options_are_well_formed",),
        "a name has no leading dashes",
    ),
    "insists": (
        """
def propose(self, request):
    return [evolve(it, layer=Layer.COMMAND_LINE) for it in super().propose(request)]
""",
        ("test_what_users_say_is_stronger",),
        "proposed as COMMAND_LINE, which belongs to users",
    ),
    "early": (
        """
def probe(self, request):
    (request.workspace / "model.bell").read_text()
    return super().probe(request)
""",
        ("test_judging_before_the_download", "test_judging_what_is_no_model"),
        "answer a Verdict with a reason, or raise BackendError",
    ),
    "shows": (
        """
def plan_launch(self, request):
    plan = super().plan_launch(request)
    return evolve(plan, argv=(*plan.argv, f"--key={self.key.reveal()}"), environ={})
""",
        ("test_secrets_are_not_shown",),
        "argv, title or routes show a secret: use environ",
    ),
    "deaf": (
        """
def plan_launch(self, request):
    return super().plan_launch(evolve(request, host="127.0.0.1"))
""",
        ("test_host_and_port_are_used",),
        "LaunchRequest.host (127.0.0.2) is neither in argv nor in environ",
    ),
    "plain": (
        """
def probe(self, request):
    return super().probe(evolve(request, exposure=None))
""",
        ("test_clients_that_reach_the_engine",),
        "Exposure.certificate is left out: clients would talk in the clear",
    ),
    "alone": (
        """
def probe(self, request):
    return super().probe(evolve(request, nodes=None))
""",
        ("test_several_machines",),
        "LaunchRequest.nodes is left out of the plan",
    ),
    "crashes": (
        """
def probe(self, request):
    return super().probe(request) if not request.adapters else {}["adapters"]
""",
        ("test_adapters",),
        "serve it, answer a Verdict with a reason, or raise BackendError",
    ),
    "stays": (
        """
def plan_launch(self, request):
    plan = super().plan_launch(request)
    return evolve(plan, argv=(*plan.argv, "--stay"), stop_seconds=0.5)
""",
        ("test_the_engine_serves_and_ends",),
        "the engine does not end within stop_seconds (0.5) of SIGTERM",
    ),
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory) -> Failures:
    plugins = {
        name: PLUGIN.format(name=name, broken=f"class Broken(Bell):\n{indent(text.strip(), '    ')}\n")
        for name, (text, _, _) in BROKEN.items()
    }
    classes = "".join(f'class Test{name}(Bell):\n    plugin = "{name}"\n\n' for name in BROKEN)
    return run_broken(tmp_path_factory.mktemp("backends"), plugins, SUITES + classes)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_backend_fails_the_test_for_it(failures, name):
    _, tests, message = BROKEN[name]
    assert sorted(failures[name]) == sorted(tests), failures[name]
    for test in tests:
        assert message in failures[name][test]
