"""What the backend suite works with: backends as core opens them, and the requests that core makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import evolve, field, frozen

from nim_core.errors import BackendError, ConfigError, NimError
from nim_core.registry.guard import GuardedBackend
from nim_core.serving.arguments import merge
from nim_core.settings import Settings
from nim_core.testing.conformance.machine import registry_for
from nim_core.types import BackendSpec, LaunchPlan, LaunchRequest, Secret, Verdict

__all__ = ["HOST", "NAMES", "BackendBench", "ServedModel", "Shown", "canaries", "check_verdict", "shown"]

HOST: Final = "127.0.0.2"
NAMES: Final = ("nim-kit/first", "second")
_PORT: Final = 43127


@frozen(kw_only=True)
class ServedModel:
    """
    A model that a backend serves, and what is on this machine to serve it.

    Attributes:
        workspace: Folder that has its files.
        files: Their paths in there. Empty: all there are.
        tags: Tags of its profile.
        environment: Variables of the backend; ``PATH`` too, where that is declared.
        installed: True: the engine is here and serves it, also without a GPU; it is started. False: it is not here, and
            ``probe`` has to say so. None: something stands in for its program; plans are made, and nothing is started.
        asks: Path that answers 200 to a GET once the engine is ready.
    """

    workspace: Path
    files: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(factory=dict)
    environment: Mapping[str, str] = field(factory=dict)
    installed: bool | None = False
    asks: str = "/v1/models"

    @property
    def paths(self) -> tuple[str, ...]:
        """The files' paths."""
        found = (file for file in sorted(self.workspace.rglob("*")) if file.is_file())
        return self.files or tuple(str(file.relative_to(self.workspace)) for file in found)


@frozen(kw_only=True)
class Shown:
    """What a plan shows to who looks: at the process list, at a log, at ``--dry-run``."""

    words: tuple[str, ...]
    variables: tuple[str, ...]


class BackendBench:
    """
    One backend and one model.

    Args:
        spec: The backend's.
        model: The model.
    """

    def __init__(self, spec: BackendSpec, model: ServedModel) -> None:
        self.spec = spec
        self.model = model
        self.backend = self.open()

    def open(self, environment: Mapping[str, str] | None = None) -> GuardedBackend:
        """Return the backend, made by core; None stands for the model's environment."""
        return registry_for(self._settings(environment)).open_backend(self.spec.name)

    def request(self, *, environment: Mapping[str, str] | None = None, **fields: Any) -> LaunchRequest:
        """Return a request without arguments; ``fields`` are those that differ from the usual."""
        usual: dict[str, Any] = {
            "workspace": self.model.workspace,
            "files": self.model.paths,
            "tags": self.model.tags,
            "served_names": NAMES,
            "host": HOST,
            "port": _PORT,
        }
        variables = self._settings(environment).read(self.spec.environment)
        return LaunchRequest(**usual | fields, variables=variables)

    def resolved(self, backend: GuardedBackend | None = None, **fields: Any) -> LaunchRequest:
        """Return a request with the arguments that come out when users give none."""
        request = self.request(**fields)
        return evolve(request, arguments=merge((backend or self.backend).propose(request)))

    def plan(self, backend: GuardedBackend | None = None, **fields: Any) -> LaunchPlan:
        """Return the plan for a request; skips the test where there is no engine to plan for."""
        backend = backend or self.backend
        try:
            return backend.plan_launch(self.resolved(backend, **fields))
        except BackendError as exc:
            if self.model.installed:
                pytest.fail(f"plan_launch() raises {type(exc).__name__} ({exc}), though the engine is installed")
            pytest.skip(f"not declared: an engine to plan for ({exc})")

    def asked_for(self, what: str, **fields: Any) -> LaunchPlan | None:
        """Return the plan for something that not every engine can do. None: the backend said so, in words."""
        with self.in_words(what):
            request = self.resolved(**fields)
            verdict = self.backend.probe(request)
            check_verdict(verdict, f"probe() of a request with {what}")
            if verdict.can_serve or verdict == self.backend.probe(self.resolved()):  # which has other reasons
                return self.backend.plan_launch(request)
        return None

    @contextmanager
    def in_words(self, what: str) -> Iterator[list[NimError]]:
        """Take a refusal by BackendError or ConfigError; anything else fails the test."""
        refusals: list[NimError] = []
        try:
            yield refusals
        except (BackendError, ConfigError) as exc:
            refusals.append(exc)
        except NimError as exc:
            pytest.fail(
                f"a request with {what} ends with {exc} from {exc.__cause__!r}; serve it, answer a Verdict with a "
                "reason, or raise BackendError"
            )

    @contextmanager
    def without(self, canary: str) -> Iterator[None]:
        """Take an error of the contract; fails the test where a secret is in it."""
        try:
            yield
        except NimError as exc:
            if canary in f"{exc} {exc!r} {exc.hint}":
                pytest.fail(f"{type(exc).__name__} shows the value of a secret variable; name the variable instead")

    def _settings(self, environment: Mapping[str, str] | None) -> Settings:
        return Settings(self.model.environment if environment is None else environment)


def canaries(bench: BackendBench) -> tuple[str, dict[str, str]]:
    """Return a text nobody uses, and variables in which every secret has it; skips where there is no secret."""
    canary = "nim-kit-" + "canary"
    names = [variable.name for variable in bench.spec.environment if variable.secret]
    if not names:
        pytest.skip("not declared: a secret variable")
    return canary, {**bench.model.environment, **dict.fromkeys(names, canary)}


def check_verdict(verdict: Verdict, what: str) -> None:
    """Check that a refusal says why."""
    if not verdict.can_serve and (not verdict.reason.strip() or "\n" in verdict.reason):
        pytest.fail(f"{what} answers can_serve=False with the reason {verdict.reason!r}; say why, in one line")


def shown(plan: LaunchPlan) -> Shown:
    """Return what can be seen of a plan."""
    variables = tuple(f"{name}={value}" for name, value in plan.environ.items() if not isinstance(value, Secret))
    return Shown(words=(*plan.argv, plan.title, repr(plan)), variables=variables)
