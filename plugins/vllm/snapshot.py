"""
Write down which arguments a version of vLLM takes, for ``nim_backend_vllm/flags``.

Run with the Python that has that version, from anywhere::

    VLLM_TARGET_DEVICE=cpu PYTHON plugins/vllm/snapshot.py plugins/vllm/nim_backend_vllm/flags

What a value may be is found out by handing the parser's own functions a few: what takes ``7`` and not ``7.5`` takes
integers. Functions that refuse nothing leave no trace of that, so an option of kind ``text`` may be refused later.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

_INVERSES = ("--no-", "--disable-", "--enable-")
_LEFT_OUT = {"help"}


def serve_parser() -> argparse.ArgumentParser:
    """Return the parser of ``vllm serve``, got at in the way that is the same in 0.26, 0.32 and 0.33."""
    from vllm.entrypoints.cli import serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    commands = FlexibleArgumentParser(prog="vllm").add_subparsers(dest="subparser")
    for command in serve.cmd_init():
        command.subparser_init(commands)
    parser: argparse.ArgumentParser = commands.choices["serve"]
    return parser


def describe(action: argparse.Action, spellings: Iterable[str]) -> dict[str, Any]:
    """
    Return what is worth knowing of one option, without what is as usual.

    Args:
        action: The option.
        spellings: All that the parser takes for it, shown in its help or not.
    """
    name = next(spelling for spelling in action.option_strings if spelling.startswith("--")).removeprefix("--")
    switch = action.nargs == 0
    kind, form = kind_of(action)
    off = [it for it in spellings if switch and it != f"--{name}" and it.startswith(_INVERSES)]
    found = {
        "name": name,
        "aliases": [it for it in spellings if it not in {f"--{name}", *off}],
        "kind": "switch" if switch else kind,
        "form": form,
        "negations": sorted(set(off) - {f"--no-{name}"}),
        "on_only": switch and f"--no-{name}" not in off,
        "many": action.nargs == "+",
        "optional": action.nargs == "?",
        "choices": [str(choice) for choice in action.choices or ()],
    }
    return {key: value for key, value in found.items() if value and value != "text"}


def kind_of(action: argparse.Action) -> tuple[str, str]:
    """
    Return what an option's own function takes: ``integer``, ``number``, ``json`` or ``text``, and the form of text.

    That is ``amount`` for ``8k`` and the like, ``value`` for JSON of any kind, and empty for other text.
    """
    if action.choices or action.type is None:
        return "text", ""
    takes = {text: _takes(action.type, text) for text in ("7", "7.5", "7k", "word", "{}")}
    if takes["{}"] and (not takes["word"] or isinstance(action.default, Mapping)):
        return ("text", "value") if isinstance(action.default, list) else ("json", "")
    if takes["7k"] or takes["word"]:
        return "text", "" if takes["word"] else "amount"
    if takes["7.5"]:
        return "number", ""
    return "integer" if takes["7"] else "text", ""


def _takes(function: Any, text: str) -> bool:
    try:
        function(text)
    except Exception:  # noqa: BLE001  # whatever a type function raises, it refuses
        return False
    return True


def snapshot() -> dict[str, Any]:
    """Return all that is kept of the version that is installed."""
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
    from vllm.model_executor.model_loader import _LOAD_FORMAT_TO_MODEL_LOADER

    parser = serve_parser()
    spellings: dict[int, list[str]] = {}
    for spelling, action in parser._option_string_actions.items():  # noqa: SLF001  # argparse has no other list
        spellings.setdefault(id(action), []).append(spelling)
    options = [describe(it, spellings[id(it)]) for it in parser._actions if it.option_strings]  # noqa: SLF001
    return {
        "version": version("vllm").partition("+")[0],
        "load_formats": sorted(_LOAD_FORMAT_TO_MODEL_LOADER),
        "quantizations": sorted(QUANTIZATION_METHODS),
        "options": sorted((it for it in options if it["name"] not in _LEFT_OUT), key=lambda it: str(it["name"])),
    }


def write(content: Mapping[str, Any], file: Path) -> None:
    """Write one option a line, so that the difference between two versions can be read."""
    options = ",\n".join(f"  {json.dumps(option)}" for option in content["options"])
    head = json.dumps({key: value for key, value in content.items() if key != "options"}, indent=1).removesuffix("\n}")
    file.write_text(f'{head},\n "options": [\n{options}\n ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    found = snapshot()
    write(found, Path(sys.argv[1], f"{found['version']}.json"))
