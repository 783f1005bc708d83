from pathlib import Path

import pytest

from nim_core.errors import ManifestError
from nim_core.manifest import DEFAULT_PATHS, find_manifest


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("flag", "variable", "first", "second")]
    for path in paths:
        path.touch()
    return paths


def test_flag_wins_over_variable_over_defaults_in_order(files):
    flag, variable, *defaults = files
    assert find_manifest(flag, variable, defaults) == flag
    assert find_manifest(None, variable, defaults) == variable
    assert find_manifest(None, None, defaults) == defaults[0]
    defaults[0].unlink()
    assert find_manifest(None, None, defaults) == defaults[1]


def test_defaults_are_those_of_images():
    assert [str(path) for path in DEFAULT_PATHS] == [
        "/opt/nim/etc/default/model_manifest.yaml",
        "/etc/nim/config/model_manifest.yaml",
    ]


def test_nothing_found_names_all_that_was_looked_at(tmp_path):
    with pytest.raises(ManifestError) as caught:
        find_manifest(None, None, [tmp_path / "a", tmp_path / "b"])
    assert caught.value.message == f"no manifest found, looked at: {tmp_path}/a, {tmp_path}/b"
    assert (
        caught.value.hint
        == "name one by NIM_MANIFEST_PATH (or --manifest-file), or a model without one by NIM_MODEL_PATH"
    )


@pytest.mark.parametrize("by", ["--manifest-file", "NIM_MANIFEST_PATH"])
def test_a_missing_file_that_was_named_is_not_replaced_by_a_default(by, files, tmp_path):
    missing = tmp_path / "missing"
    named = (missing, None) if by == "--manifest-file" else (None, missing)
    with pytest.raises(ManifestError) as caught:
        find_manifest(*named, files)
    assert caught.value.message == f"no manifest file at {by}: {missing}"
    assert caught.value.hint == f"{by} must name a file that exists"


@pytest.mark.parametrize("name", ["flag/below", "nul\0byte", "dangling"])
def test_what_cannot_be_there_is_missing(name, files, tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match="no manifest file at --manifest-file"):
        find_manifest(tmp_path / name, None, files)


def test_what_cannot_be_looked_at_is_left_to_reading(files, tmp_path):
    endless = tmp_path / "loop"
    endless.symlink_to(endless)
    assert find_manifest(endless, None, files) == endless
    assert find_manifest(Path("x" * 300), None, files) == Path("x" * 300)
