from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nim_core.cli.profile_list import ranking_as_text
from nim_core.manifest import Manifest, Profile, dump_manifest
from nim_core.profiles.hardware import Hardware
from nim_core.profiles.selection import Candidate, rank
from tests.profiles.conftest import gpu, model, profile

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

SCRIPTS = Path(sysconfig.get_path("scripts"))
GIB = 2**30
SECONDS = 2.0
L40 = {"name": "NVIDIA L40", "device_id": "26b5:10de", "memory_total": 100 * GIB, "memory_free": 99 * GIB}
H100 = {"name": "NVIDIA H100 80GB HBM3", "device_id": "2330:10de", "memory_total": 100 * GIB, "memory_free": 85 * GIB}

FP8 = profile("vllm-fp8-tp1-pp1", 1, vram="34.0")
BF16 = profile("vllm-bf16-tp1-pp1", 2, vram="63.0")
FP8_LORA = profile("vllm-fp8-tp1-pp1-feat_lora", 3, vram="34.0")
TP8 = profile("vllm-fp8-tp8-pp1", 4, vram="8.0")
# what the public harness reads of a line, as the notes on the product have it
PUBLIC = re.compile(r"- ([0-9a-f]{64}) \(([^)]+)\) \[requires >=\s*(\d+) GB/gpu")


def lines(hardware: Hardware, *profiles: Profile, **models: Any) -> list[str]:
    candidates = (Candidate(profile=one, model=models.get(f"m{int(one.id, 16)}")) for one in profiles)
    return ranking_as_text(rank(candidates, hardware))


def test_the_sample_to_the_letter() -> None:
    hardware = Hardware(gpus=(gpu(100, 99, name="NVIDIA L40", device_id="26b5:10de"),))
    assert lines(hardware, TP8, FP8_LORA, BF16, FP8) == [
        "SYSTEM INFO",
        "- Free GPUs:",
        "  -  [26b5:10de] (0) NVIDIA L40 [current utilization: 1%]",
        "MODEL PROFILES",
        "- Compatible with system and runnable:",
        f"  - {FP8.id} (vllm-fp8-tp1-pp1-34.0) [requires >=34 GB/gpu]",
        f"  - {BF16.id} (vllm-bf16-tp1-pp1-63.0) [requires >=63 GB/gpu]",
        "  - With LoRA support:",
        f"    - {FP8_LORA.id} (vllm-fp8-tp1-pp1-feat_lora-34.0) [requires >=34 GB/gpu]",
        "- Compatible with system but low memory: <None>",
        "- Compilable to TRT-LLM using just-in-time compilation of HF models to TRTLLM engines: <None>",
        "- Incompatible with system:",
        f"    - {TP8.id} (vllm-fp8-tp8-pp1-8.0) [requires >=8 GB/gpu]",
    ]


def test_low_memory_as_the_product_printed_it() -> None:
    low = profile("vllm-bf16-tp1-pp1", 1, vram="33.0")
    hardware = Hardware(gpus=(gpu(32, 29_846 / 1024),))
    wanted = " [requires >=33 GB/gpu, try --max-model-len=84992 to reduce to >=28 GB/gpu]"
    assert lines(hardware, low, m1=model("Llama-3.1-8B")) == [
        "SYSTEM INFO",
        "- Free GPUs: <None>",
        "- Non-free GPUs:",
        "  -  [2330:10de] (0) NVIDIA H100 80GB HBM3 [current utilization: 8%]",
        "MODEL PROFILES",
        "- Compatible with system and runnable: <None>",
        "- Compatible with system but low memory:",
        f"    - {low.id} (vllm-bf16-tp1-pp1-33.0){wanted}",
        "- Compilable to TRT-LLM using just-in-time compilation of HF models to TRTLLM engines: <None>",
        "- Incompatible with system: <None>",
    ]


def test_without_a_gpu() -> None:
    unknown = profile("vllm-bf16-tp1-pp1", 1)
    assert lines(Hardware(), unknown) == [
        "SYSTEM INFO",
        "- Free GPUs: <None>",
        "MODEL PROFILES",
        "- Compatible with system and runnable: <None>",
        "- Compatible with system but low memory: <None>",
        "- Compilable to TRT-LLM using just-in-time compilation of HF models to TRTLLM engines: <None>",
        "- Incompatible with system:",
        f"    - {unknown.id} (vllm-bf16-tp1-pp1)",
    ]


def test_only_lora_and_compilable_profiles() -> None:
    compilable = profile("tensorrt_llm-bf16-tp1-pp1", 4, trtllm_buildable="true")
    found = lines(Hardware(gpus=(gpu(),)), FP8_LORA, compilable)
    assert found[4:10] == [
        "- Compatible with system and runnable:",
        "  - With LoRA support:",
        f"    - {FP8_LORA.id} (vllm-fp8-tp1-pp1-feat_lora-34.0) [requires >=34 GB/gpu]",
        "- Compatible with system but low memory: <None>",
        "- Compilable to TRT-LLM using just-in-time compilation of HF models to TRTLLM engines:",
        f"  - {compilable.id} (tensorrt_llm-trtllm_buildable-bf16-tp1-pp1)",
    ]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine of two GPUs, one in use, and a manifest of four profiles."""
    manifest, hardware = tmp_path / "model_manifest.yaml", tmp_path / "hardware.json"
    dump_manifest(Manifest(schema_version="2.0.0", profiles=(TP8, FP8_LORA, BF16, FP8)), manifest)
    hardware.write_text(json.dumps({"gpus": [L40, H100]}))
    return {
        "NIM_MANIFEST_PATH": str(manifest),
        "NIM_HARDWARE_FILE": str(hardware),
        "NIM_CACHE_PATH": str(tmp_path / "c"),
    }


@pytest.mark.parametrize("command", [("nim-llm", "list-model-profiles"), ("list-model-profiles",)])
def test_both_ways_to_the_command_and_public_parsers(command: tuple[str, ...], files: dict[str, str]) -> None:
    done = subprocess.run(
        [SCRIPTS / command[0], *command[1:]],
        env={"PATH": os.environ["PATH"]} | files,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "SYSTEM INFO\n"
        "- Free GPUs:\n"
        "  -  [26b5:10de] (0) NVIDIA L40 [current utilization: 1%]\n"
        "- Non-free GPUs:\n"
        "  -  [2330:10de] (1) NVIDIA H100 80GB HBM3 [current utilization: 15%]\n"
        "MODEL PROFILES\n- Compatible with system and runnable:\n"
    )
    found = {match[1]: (match[2], int(match[3])) for match in PUBLIC.finditer(done.stdout)}
    assert found == {
        FP8.id: ("vllm-fp8-tp1-pp1-34.0", 34),
        BF16.id: ("vllm-bf16-tp1-pp1-63.0", 63),
        FP8_LORA.id: ("vllm-fp8-tp1-pp1-feat_lora-34.0", 34),
        TP8.id: ("vllm-fp8-tp8-pp1-8.0", 8),
    }


def test_explanations(cli: Cli, files: dict[str, str]) -> None:
    ended = cli("--explain", name="list-model-profiles", environ=files)
    assert ended.code == 0
    text = ended.out[ended.out.index("SELECTION") :]
    assert text.splitlines() == [
        "SELECTION",
        f"- Hardware: {files['NIM_HARDWARE_FILE']}",
        "- Profiles, best first:",
        f"  - {FP8.id} (vllm-fp8-tp1-pp1-34.0): selected: needs 34.0 GB per GPU, 99.0 GB are free",
        f"  - {BF16.id} (vllm-bf16-tp1-pp1-63.0): lost on precision: bf16, selected has fp8",
        f"  - {FP8_LORA.id} (vllm-fp8-tp1-pp1-feat_lora-34.0): lost on LoRA: for LoRA, selected has without LoRA",
        f"  - {TP8.id} (vllm-fp8-tp8-pp1-8.0): not possible: it needs 8 GPUs of one kind, there is 1",
    ]


@pytest.mark.parametrize(
    ("arguments", "variables", "selected"),
    [((), {}, FP8), (("--lora",), {}, FP8_LORA), ((), {"NIM_PEFT_SOURCE": "/adapters"}, FP8_LORA)],
)
def test_json(
    arguments: tuple[str, ...], variables: dict[str, str], selected: Profile, cli: Cli, files: dict[str, str]
) -> None:
    found = json.loads(cli("--json", *arguments, name="list-model-profiles", environ=files | variables).out)
    assert found["selected"] == selected.id
    assert [one["name"] for one in found["hardware"]["gpus"]] == ["NVIDIA L40", "NVIDIA H100 80GB HBM3"]
    by_id = {one["id"]: one for one in found["profiles"]}
    assert by_id[FP8.id] | {"explanation": ""} == {
        "id": FP8.id,
        "name": "vllm-fp8-tp1-pp1-34.0",
        "category": "runnable",
        "lora": False,
        "required": 34 * GIB,
        "available": 99 * GIB,
        "reduced": None,
        "gpus": [0],
        "explanation": "",
        "tags": dict(FP8.tags),
    }


@pytest.mark.parametrize("option", ["-m", "--manifest-file", "--manifest"])
def test_the_manifest_may_be_named(option: str, cli: Cli, files: dict[str, str]) -> None:
    path = files.pop("NIM_MANIFEST_PATH")
    assert cli(name="list-model-profiles", environ=files).code == 12
    assert cli(option, path, name="list-model-profiles", environ=files).code == 0


def test_hardware_of_a_file(cli: Cli, files: dict[str, str]) -> None:
    path = files["NIM_HARDWARE_FILE"]
    assert cli("hardware", environ=files).out == (
        f"2 GPUs ({path})\n"
        "0  [26b5:10de]  NVIDIA L40  99.0 of 100.0 GB free  busy -  compute capability -\n"
        "1  [2330:10de]  NVIDIA H100 80GB HBM3  85.0 of 100.0 GB free  busy -  compute capability -\n"
    )
    assert cli("hardware", environ={"NIM_HARDWARE_FILE": "/nowhere"}).code == 10


def test_a_name_that_would_move_the_cursor_is_escaped(cli: Cli, files: dict[str, str]) -> None:
    Path(files["NIM_HARDWARE_FILE"]).write_text(json.dumps({"gpus": [L40 | {"name": "\x1b[2J"}]}))
    for arguments in (("hardware",), ("list-model-profiles",)):
        assert "\x1b" not in cli(*arguments, environ=files).out


def test_a_large_manifest_is_listed_in_time(tmp_path: Path) -> None:
    """The bound is generous, as machines that run tests are busy; 0.5 s is meant, once the manifest was read before."""
    bench = Path(__file__).parents[2] / "bench"
    program = "import sys, manifest; open(sys.argv[1], 'w').writelines(manifest.manifest_lines())"
    path = tmp_path / "model_manifest.yaml"
    subprocess.run([sys.executable, "-c", program, path], cwd=bench, env={"PYTHONPATH": "."}, check=True, timeout=60)
    command = [SCRIPTS / "list-model-profiles", "-m", path]
    environ = {"PATH": os.environ["PATH"], "NIM_CACHE_PATH": str(tmp_path / "cache")}
    subprocess.run(command, env=environ, check=True, capture_output=True, timeout=60)
    start = time.perf_counter()
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=60)
    assert time.perf_counter() - start < SECONDS
    assert len(re.findall(r"(?m)^ +- [0-9a-f]{64} ", done.stdout)) == 122
