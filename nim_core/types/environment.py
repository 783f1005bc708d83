"""Environment variables, declared as data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.types.secret import Secret


@frozen(kw_only=True)
class EnvVar:
    """
    One environment variable, declared once: drives reading, reference pages, ``doctor`` and redaction.

    Attributes:
        name: As in the environment.
        summary: One line for the reference page.
        kind: How the text is read. ``flag`` takes 1/0, true/false, yes/no, on/off in any case. ``seconds`` and
            ``integer`` are not negative. ``url`` names an endpoint of the user's own choice.
        default: Text used when the variable is unset or empty. None: absent.
        secret: Whether its value must never be shown.
    """

    name: str
    summary: str
    kind: Literal["text", "flag", "integer", "seconds", "path", "url"] = "text"
    default: str | None = None
    secret: bool = False


_FLAGS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


class Variables:
    """
    Declared environment variables and their values; an undeclared name is a ``KeyError``, the plugin's bug.

    An empty variable counts as unset: container tools cannot always leave one out.

    Args:
        declared: The variables that may be asked for.
        values: The environment.
    """

    def __init__(self, declared: Sequence[EnvVar], values: Mapping[str, str]) -> None:
        self._declared = {variable.name: variable for variable in declared}
        self._values = {name: values[name] for name in self._declared if values.get(name)}

    def __repr__(self) -> str:
        return f"Variables({sorted(self._values)!r} are set)"

    @property
    def declared(self) -> tuple[EnvVar, ...]:
        """Every declared variable, in the order of declaration."""
        return tuple(self._declared.values())

    def is_set(self, name: str) -> bool:
        """Whether the variable has a value of its own, not only a default."""
        return self._declared[name].name in self._values

    def text(self, name: str) -> str | None:
        """Return the value or the default. None when there is neither."""
        return self._values.get(name, self._declared[name].default)

    def secret(self, name: str) -> Secret | None:
        """Return the value, wrapped and without surrounding blanks. None when there is none."""
        value = (self.text(name) or "").strip()
        return Secret(value) if value else None

    def flag(self, name: str) -> bool:
        """Return the value read as a boolean, False when absent. Raises ConfigError naming the variable."""
        value = self.text(name)
        if value is None:
            return False
        try:
            return _FLAGS[value.strip().lower()]
        except KeyError:
            words = "1/0, true/false, yes/no or on/off"
            raise ConfigError(f"{name} is not a boolean: {value!r}", hint=f"set {name} to {words}") from None

    def number(self, name: str) -> float | None:
        """Return the value read as a number of at least 0. None when absent. Raises ConfigError naming the variable."""
        value = self.text(name)
        if value is None:
            return None
        digits = r"\d{1,18}"
        pattern = digits if self._declared[name].kind == "integer" else rf"{digits}(\.\d*)?|\.\d+"
        if not re.fullmatch(pattern, value.strip(), re.ASCII):
            what = "a whole number" if self._declared[name].kind == "integer" else "a number of seconds"
            raise ConfigError(f"{name} is not {what}: {value!r}", hint=f"set {name} to {what} of at least 0")
        return float(value)
