from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

Projects = dict[str, dict[str, Any]]


def plugins(projects: Projects) -> Projects:
    """Return the projects of the plugin folders."""
    return {name: project for name, project in projects.items() if name != "nim-core"}


def project_folder(name: str) -> str:
    """Return the name of a plugin's folder."""
    return name.removeprefix("nim-source-").removeprefix("nim-backend-")


def test_projects_agree_on_what_users_filter_by(projects: Projects) -> None:
    core = projects["nim-core"]["project"]
    pythons = [line for line in core["classifiers"] if line.startswith("Programming Language")]
    for name, project in plugins(projects).items():
        facts = project["project"]
        assert facts["requires-python"] == core["requires-python"], name
        assert facts["license"] == core["license"], name
        assert [line for line in facts["classifiers"] if line.startswith("Programming Language")] == pythons, name
        assert "Typing :: Typed" in facts["classifiers"], name
        assert facts["readme"] == "README.md", name


def test_every_plugin_says_which_core_it_works_with(projects: Projects) -> None:
    for name, project in plugins(projects).items():
        core = [Requirement(line) for line in project["project"]["dependencies"] if line.startswith("nim-core")]
        assert len(core) == 1, name
        assert core[0].specifier.contains(projects["nim-core"]["project"]["version"], prereleases=True), name
        assert not core[0].specifier.contains("2.0"), name


def test_every_plugin_comes_in_by_the_entry_point_of_its_folder_name(projects: Projects) -> None:
    for name, project in plugins(projects).items():
        folder = project_folder(name)
        package = name.replace("-", "_")
        assert project["project"]["entry-points"] == {"nim_core.plugins": {folder: f"{package}.plugin"}}, name
        assert (ROOT / "plugins" / folder / package / "py.typed").is_file(), name


def test_extras_name_plugins_and_all_names_every_source(projects: Projects) -> None:
    extras = dict(projects["nim-core"]["project"]["optional-dependencies"])
    everything = Requirement(extras.pop("all")[0])
    others = {"ray", "serve", "template", "testing"}
    of_plugins = {extra: names for extra, names in extras.items() if extra not in others}
    assert sorted(of_plugins.values()) == sorted([name] for name in plugins(projects))
    for extra, (name,) in of_plugins.items():
        assert project_folder(name) == extra
    assert everything.name == "nim-core"
    assert everything.extras == {
        "serve",
        *(extra for extra, (name,) in of_plugins.items() if name.startswith("nim-source-")),
    }


def test_licence_is_the_same_everywhere() -> None:
    core = (ROOT / "LICENSE").read_bytes()
    copies = list((ROOT / "plugins").glob("*/LICENSE"))
    assert len(copies) == len(list((ROOT / "plugins").glob("*/pyproject.toml")))
    assert [path for path in copies if path.read_bytes() != core] == []


def test_import_contracts_name_every_module_of_the_core(projects: Projects) -> None:
    contract = {"errors", "hookspecs", "testing", "types"}
    layers, plugins_only, _ = projects["nim-core"]["tool"]["importlinter"]["contracts"]
    entries = [
        path for path in (ROOT / "nim_core").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    ]
    modules = {path.stem for path in entries} - {"__init__", "__main__"}
    layered = {name.strip().removeprefix("nim_core.") for row in layers["layers"] for name in re.split("[|:]", row)}
    forbidden = {name.removeprefix("nim_core.") for name in plugins_only["forbidden_modules"]}
    assert layered == modules - {"testing"}
    assert forbidden == modules - contract


def test_pytest_is_strict(projects: Projects) -> None:
    options = projects["nim-core"]["tool"]["pytest"]["ini_options"]
    assert options["filterwarnings"][0] == "error"
    assert options["timeout"] > 0
    assert options["xfail_strict"] is True


TAKEN_UP = {"httptools"}
"""What another library takes up where it is installed: uvicorn's parser in C."""


def imported(folder: Path) -> set[str]:
    """Return the top-level names that the modules below ``folder`` import when they run, anywhere in them."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        nodes = [ast.parse(path.read_text(encoding="utf-8"))]
        for node in nodes:
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add((node.module or "").partition(".")[0])
            for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            nodes += [] if for_types else ast.iter_child_nodes(node)
    return names - set(sys.stdlib_module_names)


def test_what_is_imported_is_declared(projects: Projects) -> None:
    distributions = packages_distributions()
    for name, project in projects.items():
        package = name.replace("-", "_")
        folder = ROOT / package if name == "nim-core" else ROOT / "plugins" / project_folder(name) / package
        extras = project["project"].get("optional-dependencies", {})
        imported_ones = (lines for extra, lines in extras.items() if extra != "engine")  # a program, started
        lines = [*project["project"]["dependencies"], *(line for extra in imported_ones for line in extra)]
        declared = {canonicalize_name(Requirement(line).name) for line in lines} - projects.keys()
        used: set[str] = set()
        for module in imported(folder) - {package}:
            owners = [canonicalize_name(owner) for owner in distributions.get(module, [module])]
            used |= set(owners) & declared or {owners[0]}  # a namespace, such as google, has several
        assert used - declared - projects.keys() == set(), name
        assert declared - used - TAKEN_UP == set(), name
