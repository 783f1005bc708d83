import json
import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nim_core.errors import ManifestError
from nim_core.manifest import Manifest, ManifestFile, Profile, dump_manifest, load_manifest
from nim_core.types import Digest

FILE = ManifestFile(path="d/config.json", uri="ngc://o/m:1?file=config.json", digest=Digest("blake3", "0f" * 32))
LOOSE = ManifestFile(path="on", uri="local:///models/x?file=on")
TAGS = {"tp": "1", "lora": "true", "date": "2024-01-31", "empty": "", "null": "null", "json": '{"a": ["b"]}'}
PROFILE = Profile(id="1" * 64, tags=TAGS, files=(FILE, LOOSE), model="m", release="1.10", container_url="r/i:1")
MANIFEST = Manifest(schema_version="2.0.0", selection="auto", profiles=(PROFILE, Profile(id="a" * 64)))


@pytest.mark.parametrize("name", ["m.yaml", "m.json", "m"])
def test_round_trip(name, tmp_path):
    path = tmp_path / name
    dump_manifest(MANIFEST, path)
    assert load_manifest(path) == MANIFEST
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_it_looks_like(tmp_path):
    profile = {
        "id": "1" * 64,
        "tags": TAGS,
        "model": "m",
        "release": "1.10",
        "container_url": "r/i:1",
        "workspace": {
            "files": {
                "d/config.json": {"uri": "ngc://o/m:1?file=config.json", "checksum": f"blake3:{'0f' * 32}"},
                "on": {"uri": "local:///models/x?file=on"},
            }
        },
    }
    empty = {"id": "a" * 64, "tags": {}, "workspace": {"files": {}}}
    expected = {"schema_version": "2.0.0", "profile_selection_criteria": "auto", "profiles": [profile, empty]}
    dump_manifest(MANIFEST, tmp_path / "m.json")
    dump_manifest(MANIFEST, tmp_path / "m.yaml")
    assert json.loads((tmp_path / "m.json").read_text()) == expected
    assert yaml.safe_load((tmp_path / "m.yaml").read_text()) == expected


def test_schema_1_becomes_schema_2(tmp_path):
    path = tmp_path / "m.yaml"
    dump_manifest(Manifest(schema_version="1", profiles=(PROFILE,)), path)
    assert load_manifest(path) == Manifest(schema_version="2.0.0", profiles=(PROFILE,))


def test_what_was_there_is_replaced(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text("before")
    dump_manifest(MANIFEST, path)
    assert load_manifest(path) == MANIFEST


@pytest.mark.parametrize(
    "profile",
    [
        Profile(id="x"),
        Profile(id="a" * 64, tags={"a": "\x1b"}),
        Profile(id="a" * 64, tags={"a": "\ud800"}),
        Profile(id="a" * 64, files=(ManifestFile(path="../x", uri="a://b"),)),
        Profile(id="a" * 64, files=(ManifestFile(path="x", uri="/b"),)),
        Profile(id="a" * 64, files=(LOOSE, LOOSE)),
    ],
)
@pytest.mark.parametrize("name", ["m.yaml", "m.json"])
def test_what_would_be_refused_is_not_written(profile, name, tmp_path):
    with pytest.raises(ManifestError):
        dump_manifest(Manifest(schema_version="2.0.0", profiles=(profile,)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "none" / "m.yaml"
    with pytest.raises(ManifestError) as caught:
        dump_manifest(MANIFEST, path)
    assert caught.value.message == f"cannot write manifest: {path} (No such file or directory)"


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "m.yaml"
    path.write_text("before")

    def fail(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ManifestError, match="No space left on device"):
        dump_manifest(MANIFEST, path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("m.yaml", "before")]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)


@given(tags=st.dictionaries(TEXT, TEXT, max_size=5), model=st.none() | TEXT)
@pytest.mark.parametrize("name", ["m.yaml", "m.json"])
def test_any_text_survives(name, tags, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("dump") / name
    manifest = Manifest(schema_version="2.0.0", profiles=(Profile(id="a" * 64, tags=tags, model=model),))
    dump_manifest(manifest, path)
    assert load_manifest(path) == manifest
