from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nim_core import errors
from nim_core.cli.app import command
from nim_core.cli.errors import OTHER_EXIT_CODES
from nim_core.cli.reference import core_section, environment_page, exit_codes_page, plugin_section
from nim_core.registry import PluginInfo, load_registry
from nim_core.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "reference"
REMEDY = "run: python -m nim_core.cli.reference docs/reference"


def ours() -> list[PluginInfo]:
    """Return the plugins of this repository that are installed and work."""
    projects = (tomllib.loads(path.read_text())["project"]["name"] for path in ROOT.glob("plugins/*/pyproject.toml"))
    names = set(projects)
    return [it for it in load_registry(Settings({})).plugins if it.distribution in names and it.status == "active"]


def page(name: str) -> str:
    return (PAGES / name).read_text(encoding="utf-8")


def test_exit_codes_are_up_to_date() -> None:
    assert page("exit-codes.md") == exit_codes_page(), REMEDY


def test_core_s_variables_are_up_to_date() -> None:
    assert core_section() in page("environment.md"), REMEDY


def test_variables_of_installed_plugins_are_up_to_date() -> None:
    assert [plugin.name for plugin in ours() if plugin_section(plugin) not in page("environment.md")] == [], REMEDY


def test_the_page_of_variables_has_no_other_section() -> None:
    projects = (tomllib.loads(path.read_text())["project"]["name"] for path in ROOT.glob("plugins/*/pyproject.toml"))
    assert set(re.findall("(?m)^## (.*)$", page("environment.md"))) == {"nim-core", *projects}, REMEDY


def test_pages_say_everything() -> None:
    text = exit_codes_page()
    codes = {int(code) for code in re.findall(r"(?m)^\| (\d+) \|", text)}
    declared = {getattr(errors, name).exit_code for name in errors.__all__}
    assert codes == declared | set(OTHER_EXIT_CODES)
    assert environment_page([]).endswith(core_section())


OWN_NAMES = [
    "create-model-store",
    "download-model",
    "download-to-cache",
    "list-model-profiles",
    "nim-serve",
    "nim-serve-ray",
]


@pytest.mark.parametrize("name", [*OWN_NAMES, "doctor", "hardware", "mirror", "plan"])
def test_every_option_is_on_the_page_of_commands(name: str) -> None:
    assert undocumented(command(name), name) == set()


def undocumented(one: Any, name: str) -> set[str]:
    """Return the options of a command that the page does not have."""
    params = one.make_context(name, [], obj=None, resilient_parsing=True).command.params
    named = {option for param in params for option in (*param.opts, *param.secondary_opts)}
    options = {option for option in named if option.startswith("-")}
    return options - set(re.findall(r"`(--?[a-z-]+)", page("cli.md")))


def test_every_command_about_plugins_is_on_the_page_of_commands() -> None:
    group: Any = command("plugins")
    sections = set(re.findall("(?m)^## plugins (.*)$", page("cli.md")))
    assert sections == set(group.commands)
    assert [name for name, one in group.commands.items() if undocumented(one, name)] == []
