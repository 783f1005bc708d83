from __future__ import annotations

import subprocess
import sys
import sysconfig
import time
from pathlib import Path

BUDGET = 1.0
HEAVY = {
    "boto3",
    "botocore",
    "google.auth",
    "google.cloud",
    "huggingface_hub",
    "modelscope",
    "modelscope_hub",
    "numpy",
    "pynvml",
    "torch",
    "vllm",
}


def seconds(*command: str | Path) -> float:
    """Return how long ``command`` takes."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return time.perf_counter() - start


def test_the_command_starts_within_its_budget() -> None:
    command = Path(sysconfig.get_path("scripts"), "nim-llm")
    assert min(seconds(command, "--version") for _ in range(5)) < BUDGET


def test_loading_every_plugin_imports_no_vendor_library() -> None:
    program = (
        "import sys; from nim_core.registry import load_registry; from nim_core.settings import Settings\n"
        "plugins = load_registry(Settings({})).plugins\n"
        "assert plugins and all(plugin.status == 'active' for plugin in plugins), plugins\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
