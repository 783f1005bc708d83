"""Requests as core makes them, and a record of every command line that comes out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

import pytest
from attrs import evolve
from nim_backend_vllm.environment import ENVIRONMENT
from nim_backend_vllm.launching import plan
from nim_backend_vllm.proposing import Machine, propose
from nim_backend_vllm.snapshots import flags_of
from packaging.version import Version

from nim_core.types import Argument, LaunchPlan, LaunchRequest, Layer, Variables

Plan = Callable[..., LaunchPlan]
NEWEST = flags_of(Version("0.33.0"))
GPUS = Machine(flags=NEWEST)


def strongest(arguments: Iterable[Argument]) -> dict[str, Argument]:
    """Return one argument of each name as core does: the strongest, JSON objects merged."""
    found: dict[str, Argument] = {}
    for argument in sorted(arguments, key=lambda it: -it.layer):
        weaker = found.get(argument.name)
        value = argument.value
        if weaker is not None and isinstance(weaker.value, Mapping) and isinstance(value, Mapping):
            value = {**weaker.value, **value}
        found[argument.name] = evolve(argument, value=value)
    return found


def user(name: str, value: object) -> Argument:
    """Return an argument that a user gave."""
    return Argument(name=name, value=value, layer=Layer.COMMAND_LINE)


def asked(*arguments: Argument, machine: Machine = GPUS, environment: Mapping[str, str] | None = None, **fields):
    """Return a request whose arguments have come out."""
    variables = Variables(ENVIRONMENT, environment or {})
    request = LaunchRequest(variables=variables, **{"workspace": Path("/w"), "served_names": ("m",), **fields})
    return evolve(request, arguments=strongest([*propose(request, machine), *arguments]))


def record(launch: LaunchPlan, machine: Machine = GPUS) -> None:
    """Keep a command line for the official parser, by version, where NIM_TEST_VLLM_ARGV names a folder."""
    if folder := os.environ.get("NIM_TEST_VLLM_ARGV"):
        text = json.dumps(launch.argv[1:])
        place = Path(folder, str(machine.flags.version))
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{sha256(text.encode()).hexdigest()[:16]}.json").write_text(text, encoding="utf-8")


@pytest.fixture
def make_request():
    """Make a request whose arguments have come out."""
    return asked


@pytest.fixture
def user_argument():
    """Make an argument that a user gave."""
    return user


@pytest.fixture
def make_plan() -> Plan:
    """Make the plan for what ``make_request`` takes."""

    def make(*arguments: Argument, machine: Machine = GPUS, **fields) -> LaunchPlan:
        launch = plan(asked(*arguments, machine=machine, **fields), Path("/bin/vllm"), machine.flags)
        record(launch, machine)
        return launch

    return make
