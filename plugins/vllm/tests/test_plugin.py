"""What the plugin declares, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

from nim_backend_vllm import plugin
from nim_backend_vllm.backend import VllmBackend
from nim_backend_vllm.environment import ENVIRONMENT

from nim_core.types import AdapterLoader, NearbyOptions, RemoteReader, Variables


def test_declares_one_backend():
    (spec,) = plugin.nim_register_backends()
    assert (spec.name, spec.engines, spec.without_gpu) == ("vllm", ("vllm",), True)
    assert spec.environment == ENVIRONMENT
    assert len({variable.name for variable in ENVIRONMENT}) == len(ENVIRONMENT)
    assert [variable.name for variable in ENVIRONMENT if variable.secret] == ["VLLM_API_KEY"]


def test_the_backend_can_do_what_is_optional():
    (spec,) = plugin.nim_register_backends()
    backend = spec.factory(Variables(ENVIRONMENT, {}))
    assert isinstance(backend, VllmBackend)
    assert isinstance(backend, AdapterLoader)
    assert isinstance(backend, NearbyOptions)
    assert isinstance(backend, RemoteReader)


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, nim_backend_vllm.plugin, nim_backend_vllm.backend; "
        "heavy = {'torch', 'vllm', 'numpy', 'transformers', 'httpx'} & set(sys.modules); "
        "raise SystemExit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
