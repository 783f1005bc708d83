from __future__ import annotations

import json

import pytest

from nim_core.errors import BackendError, ConfigError
from nim_core.serving.adapters import AdapterWatch, find_adapters


def adapter(folder, name, rank=8, weights="adapter_model.safetensors", content=b"weights"):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (folder / name / weights).write_bytes(content)


def test_adapters_are_folders_with_configuration_and_weights(tmp_path):
    adapter(tmp_path, "b", 16)
    adapter(tmp_path, "a", "large", "adapter_model.bin")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden").mkdir()
    found = find_adapters(tmp_path)
    assert [(it.name, it.folder, it.rank) for it, _ in found.adapters.values()] == [
        ("a", tmp_path / "a", None),
        ("b", tmp_path / "b", 16),
    ]
    assert found.refused == {}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "it has no adapter_model.safetensors or adapter_model.bin"),
        ({"adapter_model.bin": "x"}, "it has no adapter_config.json"),
        ({"adapter_model.bin": "x", "adapter_config.json": "{"}, "its adapter_config.json is not JSON"),
        ({"adapter_model.bin": "x", "adapter_config.json": "[]"}, "its adapter_config.json is not a JSON object"),
    ],
)
def test_other_folders_are_refused(tmp_path, files, reason):
    (tmp_path / "x").mkdir()
    for name, text in files.items():
        (tmp_path / "x" / name).write_text(text)
    found = find_adapters(tmp_path)
    assert found.adapters == {}
    assert found.refused == {"x": reason}


def test_a_folder_that_cannot_be_read(tmp_path):
    adapter(tmp_path, "x")
    (tmp_path / "x" / "adapter_config.json").unlink()
    (tmp_path / "x" / "adapter_config.json").mkdir()
    assert find_adapters(tmp_path).refused == {"x": "it cannot be read: is a directory"}


def test_no_folder_at_all(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the folder of LoRA adapters") as caught:
        find_adapters(tmp_path / "missing")
    assert "NIM_PEFT_SOURCE" in caught.value.hint


class Engine:
    def __init__(self):
        self.calls = []
        self.fails = False

    def load(self, it):
        self._call("load", it)

    def unload(self, it):
        self._call("unload", it)

    def _call(self, what, it):
        self.calls.append((what, it.name))
        if self.fails:
            raise BackendError("busy")

    def taken(self):
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def watch(tmp_path, engine):
    adapter(tmp_path, "first")
    return AdapterWatch(tmp_path, find_adapters(tmp_path), engine.load, engine.unload, seconds=0.01)


def test_nothing_is_done_while_nothing_changes(watch, engine):
    watch.look()
    assert engine.taken() == []


def test_adapters_come_and_go(watch, engine, tmp_path):
    adapter(tmp_path, "second")
    watch.look()
    assert engine.taken() == [("load", "second")]
    (tmp_path / "first" / "adapter_config.json").unlink()
    watch.look()
    assert engine.taken() == [("unload", "first")]
    watch.look()
    assert engine.taken() == []


def test_one_that_changes_is_loaded_anew(watch, engine, tmp_path):
    adapter(tmp_path, "first", content=b"other weights")
    watch.look()
    assert engine.taken() == [("unload", "first"), ("load", "first")]


def test_a_call_that_fails_is_made_again(watch, engine, tmp_path):
    adapter(tmp_path, "second")
    engine.fails = True
    watch.look()
    engine.fails = False
    watch.look()
    watch.look()
    assert engine.taken() == [("load", "second"), ("load", "second")]


def test_a_folder_that_goes_away_for_a_while_changes_nothing(watch, engine, tmp_path):
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    watch.look()
    moved.rename(tmp_path)
    assert engine.taken() == []


def test_it_looks_by_itself(watch, engine, tmp_path):
    adapter(tmp_path, "second")
    watch.start()
    while not engine.calls:
        pass
    watch.stop()
    assert engine.taken() == [("load", "second")]
