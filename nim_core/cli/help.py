"""Pieces of help texts that come from declarations."""

from __future__ import annotations

from nim_core.settings import CORE_VARIABLES

__all__ = ["from_variable"]


def from_variable(name: str, default: str | None = None) -> str:
    """
    Return the words on the variable that an option's value comes from when it is not given.

    Args:
        name: One of core's variables.
        default: What happens when that is unset, too. None: the variable's own default.
    """
    variable = next(item for item in CORE_VARIABLES if item.name == name)
    return f"[env: {name}; default: {default or variable.default}]"
