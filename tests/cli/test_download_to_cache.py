from __future__ import annotations

import hashlib
import json
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nim_core.download import DownloadOptions
from nim_core.errors import AuthenticationError
from nim_core.manifest import load_manifest

if TYPE_CHECKING:
    from tests.cli.conftest import Cli, Ended, FakeDownload

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
EXCLUSIVE = (("--all",), ("--profiles", A), ("--lora",), ("--model-uri", "store://org/model"))


@pytest.fixture
def get(cli: Cli, manifest_file: Path, downloads: FakeDownload):
    """Run ``download-to-cache`` with the manifest of three profiles."""

    def call(*arguments: str, **environ: str) -> Ended:
        environ = {"NIM_MANIFEST_PATH": str(manifest_file)} | environ
        return cli(*arguments, name="download-to-cache", environ=environ)

    return call


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["--profiles", A], [A]),
        (["--profile", B], [B]),
        (["-p", B, A], [B, A]),
        (["--profiles", A, "--profiles", B], [A, B]),
        (["-p", "vllm-fp8-tp2-pp1"], [B]),
        (["--all"], [A, B, C]),
        (["--lora"], [C]),
    ],
)
def test_profiles(arguments: list[str], ids: list[str], get, downloads: FakeDownload, tmp_path: Path) -> None:
    ended = get(*arguments)
    assert [target.id for target in downloads.targets] == ids
    assert (ended.code, ended.out.splitlines()) == (0, [f"{i}\t{tmp_path}/cache/receipts/{i}.json" for i in ids])


@pytest.mark.parametrize("arguments", [[], ["--profiles"], ["--profiles", ""], ["-p", "", "--use-cache"]])
def test_no_profile_means_the_variable(arguments: list[str], get, downloads: FakeDownload) -> None:
    assert get(*arguments, NIM_MODEL_PROFILE=B).code == 0
    assert [target.id for target in downloads.targets] == [B]


def test_a_target_has_the_files_of_its_profile(get, downloads: FakeDownload) -> None:
    get("-p", A)
    (target,) = downloads.targets
    assert target.label == "vllm-bf16-tp1-pp1"
    assert [(file.path, str(file.uri)) for file in target.files] == [
        ("config.json", "store://org/model:a?file=config.json")
    ]


def test_an_unknown_profile_lists_those_there_are(get, manifest_file: Path) -> None:
    ended = get("--profiles", "nope")
    assert (ended.code, ended.out) == (13, "")
    assert ended.err.splitlines() == [
        f"All valid profiles of {manifest_file}:",
        f"  {A}  vllm-bf16-tp1-pp1",
        f"  {C}  vllm-bf16-tp1-pp1-feat_lora",
        f"  {B}  vllm-fp8-tp2-pp1",
        "error: Unknown profiles provided: nope (exit 13); hint: give an id or a name of the list above to --profiles",
    ]


def hardware(tmp_path: Path, *gpus: dict[str, object]) -> str:
    """Return a description of hardware."""
    path = tmp_path / "hardware.json"
    path.write_text(json.dumps({"gpus": gpus}))
    return str(path)


def test_several_profiles_and_no_gpu_to_choose_by(get, tmp_path: Path) -> None:
    ended = get(NIM_HARDWARE_FILE=hardware(tmp_path))
    assert ended.code == 13
    message = "error: no profile given, and there are 3 to choose from, but no GPU to choose by (exit 13); hint: "
    assert ended.last_line.startswith(message)


H100 = {"name": "NVIDIA H100 80GB HBM3", "device_id": "2330:10de", "memory_total": 80 * 2**30}


@pytest.mark.parametrize(
    ("count", "arguments", "variables", "chosen"),
    [
        (1, (), {}, A),
        (2, (), {}, B),
        (2, (), {"NIM_MODEL_PROFILE": "default"}, B),
        (2, ("--lora",), {}, C),
        (2, (), {"NIM_PEFT_SOURCE": "/adapters"}, C),
    ],
)
def test_the_best_profile_for_the_gpus(
    count: int,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    chosen: str,
    get,
    downloads: FakeDownload,
    tmp_path: Path,
) -> None:
    ended = get(*arguments, NIM_HARDWARE_FILE=hardware(tmp_path, H100 | {"count": count}), **variables)
    assert (ended.code, [target.id for target in downloads.targets]) == (0, [chosen])
    assert arguments or f"Selected profile: {chosen} (" in ended.err


def test_a_pasted_line_counts_as_its_id(get, downloads: FakeDownload) -> None:
    ended = get(NIM_MODEL_PROFILE=f"{B} (vllm-fp8-tp2-pp1) [requires >=34 GB/gpu]")
    assert [target.id for target in downloads.targets] == [B]
    assert "WARNING" in ended.err
    assert f"Matched profile_id in manifest from env NIM_MODEL_PROFILE: {B}" in ended.err


def test_a_named_profile_needs_no_gpu(get, downloads: FakeDownload) -> None:
    assert get("-p", B, NIM_HARDWARE_FILE="/nowhere").code == 0
    assert [target.id for target in downloads.targets] == [B]


@pytest.mark.parametrize(("one", "other"), list(combinations(EXCLUSIVE, 2)))
def test_what_excludes_each_other(one: tuple[str, ...], other: tuple[str, ...], get, downloads: FakeDownload) -> None:
    ended = get(*one, *other)
    assert ended.code == 2
    assert ended.last_line == (
        f"error: {one[0]} cannot be combined with {other[0]} (exit 2); hint: see download-to-cache --help"
    )
    assert downloads.options is None


def test_options_reach_the_download(get, downloads: FakeDownload, tmp_path: Path) -> None:
    get("-p", A)
    assert downloads.options == DownloadOptions(cache_path=tmp_path / "cache")
    get("-p", A, "--use-cache", "--no-verify-checksums", "--force", "--model-cache-path", str(tmp_path / "other"))
    assert downloads.options == DownloadOptions(cache_path=tmp_path / "other", use_cache=True, verify=False, force=True)


def test_verify_reads_the_cache_again(get, downloads: FakeDownload, tmp_path: Path) -> None:
    get("-p", A, "--verify")
    assert downloads.options == DownloadOptions(cache_path=tmp_path / "cache", recheck=True)


@pytest.mark.parametrize("other", ["--force", "--no-verify-checksums"])
def test_what_cannot_be_verified(other: str, get, downloads: FakeDownload) -> None:
    ended = get("-p", A, "--verify", other)
    assert ended.code == 2
    assert f"--verify cannot be combined with {other}" in ended.last_line
    assert downloads.options is None


def test_relative_paths_are_those_of_the_user(get, downloads: FakeDownload, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert get("-p", A, "--model-cache-path", "here", "--manifest-file", "model_manifest.yaml").code == 0
    assert downloads.options is not None
    assert downloads.options.cache_path == tmp_path / "here"


def test_the_flag_wins_over_the_variable(get, downloads: FakeDownload, manifest_file: Path) -> None:
    assert get("-p", A, "--manifest", str(manifest_file), NIM_MANIFEST_PATH="/nowhere").code == 0


def test_no_manifest(get) -> None:
    ended = get("-p", A, "--manifest-file", "/nowhere/m.yaml")
    assert (ended.code, ended.out) == (12, "")
    assert "/nowhere/m.yaml" in ended.last_line


def test_json(get, tmp_path: Path) -> None:
    assert json.loads(get("-p", A, "--json").out) == {
        "targets": [
            {
                "id": A,
                "label": "vllm-bf16-tp1-pp1",
                "receipt": f"{tmp_path}/cache/receipts/{A}.json",
                "files": 1,
                "fetched": 1,
            }
        ],
        "bytes_fetched": 2_000_000,
        "seconds": 0.5,
        "damaged": [],
    }


def test_a_line_at_the_start_for_each(get, tmp_path: Path) -> None:
    lines = [line.partition("] ")[2] for line in get("--all").err.splitlines() if "Downloading" in line]
    assert lines[0] == f"Downloading manifest profile: {A} (vllm-bf16-tp1-pp1) to {tmp_path}/cache"
    assert len(lines) == 3


def test_one_line_at_the_end_for_each(get) -> None:
    (line,) = (line for line in get("-p", A).err.splitlines() if "complete" in line)
    assert line.endswith("] complete: vllm-bf16-tp1-pp1: 1 file, 1 fetched, 2.0 MB in 0 s (4.0 MB/s)")
    assert sum("complete" in line for line in get("--all").err.splitlines()) == 3


def test_a_model_uri(get, downloads: FakeDownload) -> None:
    uri = "store://org/model"
    ended = get("--model-uri", uri, NIM_MODEL_PROFILE=A, NIM_MANIFEST_PATH="/nowhere")
    (target,) = downloads.targets
    assert (target.id, target.label, str(target.uri)) == (hashlib.sha256(uri.encode()).hexdigest(), uri, uri)
    assert (ended.code, ended.out.split("\t")[0]) == (0, target.id)


@pytest.mark.parametrize(("uri", "code"), [("", 11), ("/a/path", 11), ("nope://x/y", 24)])
def test_a_uri_that_cannot_be_read(uri: str, code: int, get) -> None:
    assert get("--model-uri", uri).code == code


def test_the_operator_s_command(get, downloads: FakeDownload, tmp_path: Path) -> None:
    path = tmp_path / "model_manifest.json"
    command = ("--model-uri", "store://org/model", "--manifest-file", str(path))
    assert get(*command).code == 0
    first = load_manifest(path)
    assert [file.path for file in first.profiles[0].files] == ["a.json", "b.bin"]
    assert all(file.digest is not None for file in first.profiles[0].files)

    assert get(*command).code == 0
    (target,) = downloads.targets
    assert (target.id, target.label, target.uri) == (first.profiles[0].id, "store://org/model", None)
    assert [(file.path, file.digest) for file in target.files] == [
        (file.path, file.digest) for file in first.profiles[0].files
    ]
    assert load_manifest(path) == first


PATTERNS = [("--include", "*.json"), ("--exclude", "*.bin"), ("--include", "a*", "*.json", "--exclude", "b.bin")]


@pytest.mark.parametrize("chosen", PATTERNS)
def test_some_files_of_a_model(chosen: tuple[str, ...], get, downloads: FakeDownload) -> None:
    assert get("--model-uri", "store://org/model", *chosen).code == 0
    (target,) = downloads.targets
    assert downloads.options.patterns
    get("--model-uri", "store://org/model")
    assert not downloads.options.patterns
    assert target.id != downloads.targets[0].id


def test_empty_patterns_are_none(get, downloads: FakeDownload) -> None:
    assert get("--model-uri", "store://org/model", "--include", "", "--exclude").code == 0
    assert not downloads.options.patterns


@pytest.mark.parametrize("chosen", [("--include", "*"), ("--exclude", "*")])
def test_patterns_need_a_model(chosen: tuple[str, ...], get, downloads: FakeDownload) -> None:
    ended = get("-p", A, *chosen)
    assert (ended.code, downloads.targets) == (2, ())
    assert "--include and --exclude need --model-uri" in ended.err


def test_a_manifest_of_other_files_of_the_model(get, tmp_path: Path) -> None:
    path = str(tmp_path / "model_manifest.json")
    command = ("--model-uri", "store://org/model", "--manifest-file", path)
    assert get(*command, "--include", "*.json").code == 0
    assert get(*command, "--include", "*.json").code == 0
    for chosen in ((), ("--include", "*.bin"), ("--include", "*.json", "--exclude", "x")):
        ended = get(*command, *chosen)
        assert ended.code == 12
        assert "made with another --include or --exclude" in ended.last_line


def test_a_manifest_left_over_from_another_model(get, tmp_path: Path) -> None:
    path = str(tmp_path / "model_manifest.json")
    get("--model-uri", "store://org/model", "--manifest-file", path)
    ended = get("--model-uri", "store://org/other", "--manifest-file", path)
    assert ended.code == 12
    assert "is not of store://org/other but of store://org/model" in ended.last_line


def test_a_manifest_that_cannot_be_written_is_found_out_first(get, downloads: FakeDownload, tmp_path: Path) -> None:
    ended = get("--model-uri", "store://org/model", "--manifest-file", str(tmp_path / "no" / "m.json"))
    assert (ended.code, downloads.options) == (12, None)


def test_no_manifest_after_a_failure(get, downloads: FakeDownload, tmp_path: Path) -> None:
    downloads.error = AuthenticationError("who are you", hint="say it")
    path = tmp_path / "m.json"
    ended = get("--model-uri", "store://org/model", "--manifest-file", str(path))
    assert (ended.code, ended.out, path.exists()) == (32, "", False)
    assert ended.last_line == "error: who are you (exit 32); hint: say it"


def test_logs_as_json_lines(get, downloads: FakeDownload) -> None:
    downloads.error = AuthenticationError("who are you")
    lines = [json.loads(line) for line in get("-p", A, NIM_JSONL_LOGGING="true").err.splitlines()]
    assert all({"timestamp", "level", "message"} <= set(line) for line in lines)
    assert (lines[-1]["message"], lines[-1]["exit_code"]) == ("who are you", 32)


@pytest.mark.parametrize(("name", "value"), [("NIM_LOG_LEVEL", "LOUD"), ("NIM_JSONL_LOGGING", "maybe")])
def test_a_logging_variable_that_cannot_be_read(name: str, value: str, get) -> None:
    ended = get("-p", A, **{name: value})
    assert ended.code == 10
    assert name in ended.last_line


def test_help_says_where_values_come_from(cli: Cli) -> None:
    text = " ".join(cli("-h", name="download-to-cache").out.split())
    for words in (
        "[env: NIM_MODEL_PROFILE; default: the best one for the GPUs found, or the only one]",
        "[env: NIM_MANIFEST_PATH; default: the image's own]",
        "[env: NIM_CACHE_PATH; default: /opt/nim/.cache]",
    ):
        assert words in text
