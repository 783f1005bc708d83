"""Serving backends: what they are asked and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from attrs import frozen

from nim_core.types.environment import EnvVar, Variables
from nim_core.types.secret import Secret


@frozen(kw_only=True)
class LaunchRequest:
    """
    What a backend is asked to serve.

    Attributes:
        workspace: Folder that holds the model's files.
        tags: Tags of the chosen profile.
        served_names: Names clients may use, the first one preferred.
        host: Address the engine must listen on.
        port: Port the engine must listen on.
        arguments: The user's own engine arguments, passed through last.
        variables: The variables the backend's spec declares.
    """

    workspace: Path
    tags: Mapping[str, str]
    served_names: tuple[str, ...]
    host: str
    port: int
    arguments: tuple[str, ...] = ()
    variables: Variables


@frozen(kw_only=True)
class Verdict:
    """Whether a backend can serve a request, and if not, why in one line."""

    can_serve: bool
    reason: str = ""


@frozen(kw_only=True)
class LaunchPlan:
    """
    A process, described; core starts it.

    Attributes:
        argv: Program and arguments, no secrets among them.
        environ: Variables set on top of core's own environment.
        ready_url: Answers 200 once the engine can serve.
    """

    argv: tuple[str, ...]
    environ: Mapping[str, Secret]
    ready_url: str


class Backend(Protocol):
    """Describes how to serve a model; starts nothing itself."""

    def probe(self, request: LaunchRequest) -> Verdict:
        """Say whether this machine and this backend can serve the request."""

    def plan_launch(self, request: LaunchRequest) -> LaunchPlan:
        """Describe the process. Raises BackendError when it cannot be."""


@frozen(kw_only=True)
class BackendSpec:
    """A serving backend a plugin brings."""

    name: str
    summary: str
    factory: Callable[[Variables], Backend]
    environment: tuple[EnvVar, ...] = ()
