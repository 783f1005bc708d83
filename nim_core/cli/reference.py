"""
Reference pages made from declarations: ``python -m nim_core.cli.reference docs/reference`` writes them.

A page is never edited by hand. The page of variables has a section for each plugin that is installed and works, so it
is written where all of this repository's are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from nim_core.cli.errors import OTHER_EXIT_CODES
from nim_core.cli.session import TERMINAL_VARIABLES
from nim_core.errors import NimError
from nim_core.registry import PluginInfo, load_registry
from nim_core.serving.nodes import NODE_VARIABLES
from nim_core.serving.ray_plans import RAY_VARIABLES
from nim_core.serving.settings import SERVING_VARIABLES
from nim_core.settings import CORE_VARIABLES, Settings
from nim_core.types import EnvVar

__all__ = ["core_section", "environment_page", "exit_codes_page", "main", "plugin_section"]

_MADE = "<!-- Made by `python -m nim_core.cli.reference docs/reference`; do not edit. -->"
_KINDS = {
    "text": "text",
    "flag": "1/0, true/false, yes/no, on/off",
    "integer": "whole number",
    "seconds": "seconds",
    "path": "path",
    "url": "URL",
}


def environment_page(plugins: Sequence[PluginInfo]) -> str:
    """Return the page of all variables that core and ``plugins`` declare."""
    introduction = (
        f"# Environment variables\n\n{_MADE}\n\n"
        "An empty variable counts as unset. Where an option says the same, the option wins. The value of a variable\n"
        "marked secret is not shown anywhere; of a URL among them, user and password are not.\n"
    )
    return "\n".join([introduction, core_section(), *map(plugin_section, plugins)])


def core_section() -> str:
    """Return the section of the variables that core itself reads."""
    serving = (*SERVING_VARIABLES, *NODE_VARIABLES, *RAY_VARIABLES)
    return _section("nim-core", (*CORE_VARIABLES, *serving, *TERMINAL_VARIABLES))


def plugin_section(plugin: PluginInfo) -> str:
    """Return the section of the variables that ``plugin`` declares."""
    return _section(plugin.distribution, plugin.variables)


def _section(title: str, variables: Sequence[EnvVar]) -> str:
    if not variables:
        return f"## {title}\n\nNone.\n"
    rows = "\n".join(_row(variable) for variable in variables)
    return f"## {title}\n\n| variable | value | default | meaning |\n|---|---|---|---|\n{rows}\n"


def _row(variable: EnvVar) -> str:
    default = "" if variable.default is None else f"`{variable.default}`"
    kind = _KINDS[variable.kind] + (", secret" if variable.secret else "")
    return f"| `{variable.name}` | {kind} | {default} | {_cell(variable.summary)} |"


def exit_codes_page() -> str:
    """Return the page of all exit codes."""
    introduction = (
        f"# Exit codes\n\n{_MADE}\n\n"
        "The last line on stderr of a command that fails is `error: WHAT HAPPENED (exit CODE); hint: WHAT TO DO`.\n"
        "Retryable: the same command may succeed later without any change.\n"
    )
    codes = {code: f"| {code} | | {meaning} | |" for code, meaning in OTHER_EXIT_CODES.items()}
    codes |= {kind.exit_code: _error_row(kind) for kind in _errors(NimError)}
    rows = "\n".join(row for _code, row in sorted(codes.items()))
    return f"{introduction}\n| code | error | meaning | retryable |\n|---|---|---|---|\n{rows}\n"


def _errors(kind: type[NimError]) -> Iterator[type[NimError]]:
    """Yield the subclasses of ``kind`` that core declares."""
    for subclass in kind.__subclasses__():
        if subclass.__module__ == NimError.__module__:
            yield subclass
        yield from _errors(subclass)


def _error_row(kind: type[NimError]) -> str:
    meaning = next(line.strip() for line in (kind.__doc__ or "").splitlines() if line.strip())
    return f"| {kind.exit_code} | `{kind.__name__}` | {_cell(meaning)} | {'yes' if kind.retryable else ''} |"


def _cell(text: str) -> str:
    """Return a sentence as the cell of a table: no full stop, nothing that ends the cell."""
    return text.rstrip(".").replace("|", "\\|")


def main() -> None:
    """Write the pages into the folder that the command line names. Raises PluginError when a plugin does not work."""
    folder = Path(sys.argv[1])
    plugins = load_registry(Settings({"NIM_PLUGIN_STRICT": "1"})).plugins
    (folder / "environment.md").write_text(environment_page(plugins), encoding="utf-8")
    (folder / "exit-codes.md").write_text(exit_codes_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
