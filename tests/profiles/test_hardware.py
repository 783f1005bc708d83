from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nim_core.errors import ConfigError
from nim_core.profiles.hardware import Hardware, as_record, read_hardware, visible
from nim_core.profiles.judging import find_hardware
from nim_core.profiles.nvml import detect
from nim_core.settings import Settings
from nim_core.types import Gpu
from tests.profiles.conftest import GIB, gpu

STUB = Path(__file__).with_name("nvml_stub.c")
DRIVER = any(Path(folder, "libnvidia-ml.so.1").exists() for folder in ("/usr/lib64", "/usr/lib/x86_64-linux-gnu"))
MINIMAL = {"name": "NVIDIA L40", "device_id": "26B5:10DE", "memory_total": 48 * GIB}


def hardware(**environ: str) -> Any:
    """Return what ``nim-llm hardware --json`` prints in a process of its own."""
    program = "import sys; sys.argv = ['nim-llm', 'hardware', '--json']; from nim_core.cli.app import main; main()"
    path = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=path | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture
def driver(tmp_path: Path) -> Any:
    """Return what builds the invented driver and gives back its folder."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for the invented driver")

    def build(*options: str) -> str:
        library = tmp_path / "libnvidia-ml.so.1"
        subprocess.run([compiler, "-shared", "-fPIC", *options, "-o", library, STUB], check=True, timeout=60)
        return str(tmp_path)

    return build


@pytest.mark.skipif(DRIVER, reason="this machine has a driver")
def test_without_a_driver_there_is_nothing_and_no_error() -> None:
    assert detect() == Hardware(origin="no driver: libnvidia-ml.so.1 is not there")
    assert hardware() == {"gpus": [], "driver": None, "origin": "no driver: libnvidia-ml.so.1 is not there"}


@pytest.mark.skipif(DRIVER, reason="this machine has a driver")
def test_without_a_driver_the_bindings_are_not_imported() -> None:
    program = "import sys; from nim_core.profiles.nvml import detect; detect(); print('pynvml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_a_library_that_is_no_driver(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("text")
    assert hardware(LD_LIBRARY_PATH=str(tmp_path))["gpus"] == []


FIRST = {
    "name": "NVIDIA H100 80GB HBM3",
    "device_id": "2330:10de",
    "memory_total": 80 * GIB,
    "memory_free": 79 * GIB,
    "index": 0,
    "uuid": "GPU-a",
    "utilisation": 42,
    "compute_capability": None,
    "mig": False,
}
INSTANCE = FIRST | {
    "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    "memory_total": 10 * GIB,
    "memory_free": 9 * GIB,
    "index": 1,
    "uuid": "MIG-b",
    "utilisation": None,
    "mig": True,
}


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("", [FIRST, INSTANCE]),
        ("0", [FIRST]),
        ("1,0", [INSTANCE, FIRST]),
        ("MIG-b", [INSTANCE]),
        ("GPU-a,7,1", [FIRST]),
    ],
)
def test_the_bindings_ask_a_driver(variable: str, expected: list[dict[str, object]], driver: Any) -> None:
    found = hardware(LD_LIBRARY_PATH=driver(), CUDA_VISIBLE_DEVICES=variable)
    assert found == {"gpus": expected, "driver": "570.00", "origin": "NVML"}


def test_all_gpus_hidden(driver: Any) -> None:
    found = hardware(LD_LIBRARY_PATH=driver(), CUDA_VISIBLE_DEVICES="none")
    assert (found["gpus"], found["origin"]) == ([], "CUDA_VISIBLE_DEVICES leaves no GPU")


def test_a_driver_that_does_not_answer(driver: Any) -> None:
    found = hardware(LD_LIBRARY_PATH=driver("-DBROKEN"))
    assert found["gpus"] == []
    assert found["origin"].startswith("the driver does not answer: ")


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    found = detect()
    if not found.gpus:
        pytest.skip(f"needs a GPU; {found.origin}")
    for one in found.gpus:
        assert one.name
        assert len(one.device_id) == len("2330:10de")
        assert one.uuid.startswith(("GPU-", "MIG-"))
        assert one.memory_total is None or 0 <= (one.memory_free or 0) <= one.memory_total


def write(tmp_path: Path, value: object) -> Path:
    path = tmp_path / "hardware.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_file_stands_in_for_a_machine(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"gpus": [MINIMAL | {"count": 2}, MINIMAL | {"memory_free": 0, "compute_capability": [8, 9]}]}
    )
    found = find_hardware(Settings({"NIM_HARDWARE_FILE": str(path), "CUDA_VISIBLE_DEVICES": "7"}))
    free = Gpu(name="NVIDIA L40", device_id="26b5:10de", memory_total=48 * GIB, memory_free=48 * GIB)
    assert found == Hardware(
        gpus=(
            free,
            Gpu(name=free.name, device_id=free.device_id, memory_total=48 * GIB, memory_free=48 * GIB, index=1),
            Gpu(
                name=free.name,
                device_id=free.device_id,
                memory_total=48 * GIB,
                memory_free=0,
                index=2,
                compute_capability=(8, 9),
            ),
        ),
        origin=str(path),
    )


gpus = st.builds(
    Gpu,
    name=st.text(max_size=20),
    device_id=st.from_regex("[0-9a-f]{4}:[0-9a-f]{4}", fullmatch=True),
    memory_total=st.none() | st.integers(0, 2**50),
    memory_free=st.none() | st.integers(0, 2**50),
    index=st.integers(0, 99),
    uuid=st.text(max_size=20),
    utilisation=st.none() | st.integers(0, 100),
    compute_capability=st.none() | st.tuples(st.integers(0, 99), st.integers(0, 99)),
    mig=st.booleans(),
)


@given(st.lists(gpus, max_size=4))
def test_what_is_printed_reads_back(tmp_path_factory: pytest.TempPathFactory, found: list[Gpu]) -> None:
    path = tmp_path_factory.getbasetemp() / "printed.json"
    path.write_text(json.dumps(as_record(Hardware(gpus=tuple(found), driver="1", origin="NVML"))))
    assert read_hardware(path) == Hardware(gpus=tuple(found), driver="1", origin=str(path))


@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[]",
        "{}",
        {"gpus": 3},
        {"gpus": [3]},
        {"gpus": [{}]},
        {"gpus": [MINIMAL | {"memory_total": "80 GB"}]},
        {"gpus": [MINIMAL | {"memory_total": True}]},
        {"gpus": [MINIMAL | {"memory_free": -1}]},
        {"gpus": [MINIMAL | {"count": 10**9}]},
        {"gpus": [MINIMAL | {"compute_capability": "9"}]},
    ],
)
def test_a_file_of_another_form(value: object, tmp_path: Path) -> None:
    path = write(tmp_path, value)
    with pytest.raises(ConfigError, match="not a description of hardware") as caught:
        read_hardware(path)
    assert str(path) in caught.value.message
    assert "hardware --json" in (caught.value.hint or "")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read NIM_HARDWARE_FILE"):
        read_hardware(tmp_path / "none")


TWO = (gpu(index=0, uuid="GPU-aa"), gpu(index=1, uuid="GPU-ab"))


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, TWO),
        ("0,1", TWO),
        ("1", TWO[1:]),
        (" 1 , 0 ", TWO[::-1]),
        ("GPU-ab", TWO[1:]),
        ("1,1", TWO[1:]),
        ("-1", ()),
        ("1,-1,0", TWO[1:]),
        ("", ()),
    ],
)
def test_visible_devices(variable: str | None, expected: tuple[Gpu, ...]) -> None:
    assert visible(TWO, variable) == expected


@pytest.mark.parametrize(("free", "is_free"), [(80, True), (79.2, True), (76.1, True), (74.4, False), (0, False)])
def test_a_gpu_that_somebody_uses(free: float, is_free: bool) -> None:
    assert gpu(80, free).is_free is is_free
