"""vLLM as core asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from nim_backend_vllm.launching import api_keys, plan, reads_remotely
from nim_backend_vllm.locating import Installation, find_vllm
from nim_backend_vllm.memory import available_memory
from nim_backend_vllm.probing import probe
from nim_backend_vllm.proposing import Machine, propose
from nim_backend_vllm.snapshots import Flags, flags_of
from nim_core.errors import BackendMissingError
from nim_core.types import (
    Adapter,
    Argument,
    EngineCall,
    LaunchPlan,
    LaunchRequest,
    Option,
    Secret,
    Variables,
    Verdict,
)


class VllmBackend:
    """
    Describes ``vllm serve``.

    Args:
        variables: Those of the declared environment.
    """

    def __init__(self, variables: Variables) -> None:
        self._search_path = variables.text("PATH")

    def options(self) -> Sequence[Option]:
        """Return what the installed version takes, or the nearest one that is known."""
        return tuple(self._flags.options.values())

    def options_are_exact(self) -> bool:
        """Tell whether the installed version is among those that are known."""
        return self._flags.exact

    def propose(self, request: LaunchRequest) -> Sequence[Argument]:
        """Return what follows from variables, tags, adapters and nodes."""
        cpu = self._installation is not None and self._installation.cpu
        return propose(request, Machine(flags=self._flags, cpu=cpu, memory=available_memory() if cpu else None))

    def reads_remotely(self, request: LaunchRequest) -> bool:
        """Tell whether vLLM streams the model out of its bucket."""
        return reads_remotely(request)

    def probe(self, request: LaunchRequest) -> Verdict:
        """Say whether this machine's vLLM can serve the request."""
        return probe(request, self._installation, self._flags)

    def plan_launch(self, request: LaunchRequest) -> LaunchPlan:
        """Describe the process. Raises BackendMissingError when there is no vLLM."""
        if self._installation is None:
            raise BackendMissingError(
                "vLLM is not installed", hint="pip install 'nim-backend-vllm[engine]', or put the program vllm on PATH"
            )
        return plan(request, self._installation.executable, self._flags, str(self._installation.version or ""))

    def load_adapter(self, adapter: Adapter, request: LaunchRequest) -> EngineCall:
        """Return the call that takes an adapter up."""
        content = {"lora_name": adapter.name, "lora_path": str(adapter.folder)}
        return EngineCall(path="/v1/load_lora_adapter", content=content, headers=_headers(request))

    def unload_adapter(self, adapter: Adapter, request: LaunchRequest) -> EngineCall:
        """Return the call that lets go of one."""
        content = {"lora_name": adapter.name}
        return EngineCall(path="/v1/unload_lora_adapter", content=content, headers=_headers(request))

    @cached_property
    def _installation(self) -> Installation | None:
        return find_vllm(self._search_path)

    @cached_property
    def _flags(self) -> Flags:
        return flags_of(self._installation.version if self._installation else None)


def _headers(request: LaunchRequest) -> Mapping[str, Secret]:
    keys = api_keys(request)
    return {"Authorization": Secret(f"Bearer {keys[0].reveal()}")} if len(keys) == 1 else {}
