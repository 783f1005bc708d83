"""``create-model-store``, ``download-model`` and ``huggingface-cli download``: words to requests, results to text."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nim_core.cli import layouts
from nim_core.workspace.places import Made

if TYPE_CHECKING:
    from tests.cli.conftest import Cli, FakeDownload


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What was laid out, and how; nothing is."""
    seen: list[tuple[object, ...]] = []

    def fake(name: str) -> object:
        def lay_out(files: object, folder: Path, *cache: Path, **options: object) -> Made:
            seen.append((name, sorted(files), folder, *cache, options))
            return Made(folder=folder, files=2, bytes=3_000_000, ways=Counter(hardlink=1, copy=1), kept=0)

        return lay_out

    for name in ("make_store", "make_workspace", "put_files"):
        monkeypatch.setattr(layouts, name, fake(name))
    return seen


MODEL = "store://org/model"
PROFILE = "vllm-fp8-tp2-pp1"


def test_a_store_of_a_profile(cli: Cli, downloads: FakeDownload, calls: list, manifest_file: Path, tmp_path: Path):
    line = f"create-model-store -p {PROFILE} -m {tmp_path}/s --model-cache {tmp_path}/c --manifest {manifest_file}"
    ended = cli(*line.split(), "--use-cache")
    assert ended.out == f"{'b' * 64}\t{tmp_path}/s\n"
    options = {"share": True, "trust": True}
    assert calls == [("make_store", ["config.json"], tmp_path / "s", tmp_path / "c", options)]
    assert downloads.options.use_cache
    assert f"model store {tmp_path}/s: 2 files, 3.0 MB: 1 hard link, 1 copy" in ended.err
    assert "do not change it in place" in ended.err


def test_a_store_of_a_model_as_the_operator_asks(cli: Cli, downloads: FakeDownload, calls: list):
    ended = cli("--model-repo", MODEL, "--model-store", "/model-store", "--copy", "--json", name="create-model-store")
    assert calls[0][-1] == {"share": False, "trust": False}
    assert json.loads(ended.out) | {"id": ""} == {
        "id": "",
        "label": MODEL,
        "folder": "/model-store",
        "files": 2,
        "bytes": 3_000_000,
        "fetched": 2,
        "made": {"hardlink": 1, "copy": 1},
        "kept": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("", "--model-store is missing"),
        ("-p x", "--model-store is missing"),
        ("-m x", "give --profile or --model-repo"),
        ("-m x -p y --model-repo z", "give --profile or --model-repo"),
    ],
)
def test_stores_that_are_not_described(cli: Cli, calls: list, arguments: str, why: str):
    ended = cli("create-model-store", *arguments.split())
    assert ended.code == 2
    assert why in ended.last_line
    assert calls == []


def test_a_store_does_not_take_the_variable_s_profile(cli: Cli, manifest_file: Path):
    ended = cli("create-model-store", "-m", "x", environ={"NIM_MODEL_PROFILE": PROFILE})
    assert ended.code == 2


def test_a_workspace(cli: Cli, downloads: FakeDownload, calls: list, manifest_file: Path, tmp_path: Path):
    environ = {"NIM_MODEL_PROFILE": PROFILE, "NIM_MANIFEST_PATH": str(manifest_file)}
    ended = cli("download-model", "--workspace-path", "a/../ws", environ=environ)
    assert ended.out == f"{'b' * 64}\ta/../ws\n"
    assert calls == [("make_workspace", ["config.json"], Path("a/../ws"), tmp_path / "cache", {})]


def test_a_workspace_in_a_fresh_folder(cli: Cli, downloads: FakeDownload, calls: list, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for _ in range(2):
        assert cli("download-model", "--model-uri", MODEL).code == 0
    folders = [call[2] for call in calls]
    assert len(set(folders)) == 2
    assert all(folder.parent == tmp_path and folder.is_dir() for folder in folders)


def test_a_failed_download_makes_no_folder(cli: Cli, downloads: FakeDownload, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    downloads.error = KeyboardInterrupt()
    cli("download-model", "--model-uri", MODEL)
    assert list(tmp_path.iterdir()) == []


def test_a_profile_and_a_model_are_one_too_many(cli: Cli):
    ended = cli("download-model", "-p", "x", "--model-uri", MODEL)
    assert ended.code == 2
    assert "--profile cannot be combined with --model-uri" in ended.last_line


def test_another_hub_command_says_where_it_is(cli: Cli):
    ended = cli("login", name="huggingface-cli")
    assert (ended.code, ended.out) == (2, "")
    assert "hf of the package huggingface_hub" in ended.last_line
    assert "HF_TOKEN" in ended.last_line


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("download", "REPO"),
        ("download a/b --repo-type space", "only models and datasets"),
        ("download a/b c.json --include *.json", "files cannot be combined"),
    ],
)
def test_what_the_hub_command_refuses(cli: Cli, arguments: str, why: str):
    ended = cli(*arguments.split(), name="huggingface-cli")
    assert ended.code == 2
    assert why in ended.last_line
