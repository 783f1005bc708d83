from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))
ADDRESS = re.compile(r"(?m)://|^\s*-{1,2}(i|f|index-url|extra-index-url|find-links|trusted-host)\b|\s@\s|git\+")


def entries(name: str) -> dict[str, Requirement]:
    """Return the pinned requirements of a lock file by canonical name."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    pinned = [Requirement(line) for line in re.findall(r"(?m)^([^\s#].*?) *\\?$", text)]
    return {canonicalize_name(one.name): one for one in pinned}


def declared(project: dict[str, Any], *, development: bool) -> list[Requirement]:
    """Return what a pyproject.toml asks of others, with its test and tool groups where ``development``."""
    found = list(project["project"]["dependencies"])
    if development:
        found += project["project"].get("optional-dependencies", {}).get("testing", [])
        groups = project.get("dependency-groups", {}).values()
        found += [entry for group in groups for entry in group if isinstance(entry, str)]
    return [Requirement(entry) for entry in found]


def unmet(pins: dict[str, Requirement], asked: list[Requirement], own: set[str]) -> list[str]:
    """Return those of ``asked`` that ``pins`` lacks or holds at a version that does not fit; ``own`` are built here."""
    wrong = []
    for requirement in asked:
        name = canonicalize_name(requirement.name)
        if name in own:
            continue
        pin = next(iter(pins[name].specifier)).version if name in pins else None
        if pin is None or not requirement.specifier.contains(pin, prereleases=True):
            wrong.append(f"{requirement} (locked: {pin})")
    return wrong


def test_the_lock_files_are_the_ones_documented() -> None:
    assert LOCKS == ["dev.txt", "oracle.txt", "runtime.txt"]


@pytest.mark.parametrize("name", LOCKS)
def test_no_addresses(name: str) -> None:
    assert ADDRESS.findall((ROOT / "requirements" / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    ["--index-url https://x/simple", "-i x", "--find-links y", "name @ file.whl", "a @ git+ssh", "# from http://x"],
)
def test_an_address_would_be_seen(line: str) -> None:
    assert ADDRESS.search(f"packaging==1.0\n{line}\n")


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_is_one_version_with_hashes(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    blocks = re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)[1:]
    loose = [
        block.splitlines()[0]
        for block in blocks
        if not re.match(r"[\w.\[\],-]+==[\w.!+]+( ;.*)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+$", block)
    ]
    assert blocks
    assert loose == []


def test_runtime_holds_every_dependency(projects: dict[str, dict[str, Any]]) -> None:
    asked = [requirement for project in projects.values() for requirement in declared(project, development=False)]
    assert unmet(entries("runtime.txt"), asked, set(projects)) == []


def test_dev_holds_every_dependency_and_tool(projects: dict[str, dict[str, Any]]) -> None:
    asked = [requirement for project in projects.values() for requirement in declared(project, development=True)]
    assert unmet(entries("dev.txt"), asked, set(projects)) == []


def test_a_missing_or_unfitting_version_would_be_seen() -> None:
    pins = {"attrs": Requirement("attrs==25.3")}
    asked = [Requirement("attrs>=26"), Requirement("attrs>=25"), Requirement("rich>=13"), Requirement("nim-core")]
    assert unmet(pins, asked, {"nim-core"}) == ["attrs>=26 (locked: 25.3)", "rich>=13 (locked: None)"]


def test_runtime_and_dev_agree() -> None:
    dev, runtime = entries("dev.txt"), entries("runtime.txt")  # where a tool needs it, too, a marker may be gone
    assert {name: pin.specifier for name, pin in runtime.items()} == {name: dev[name].specifier for name in runtime}


@pytest.mark.parametrize("name", LOCKS)
def test_our_own_projects_are_not_locked(name: str, projects: dict[str, dict[str, Any]]) -> None:
    assert set(entries(name)) & set(projects) == set()
