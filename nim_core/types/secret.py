"""Text that must not be seen."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """
    Text that must not be seen: a key, a token, a signed URL.

    ``str``, ``repr`` and formatting never show it, and it refuses to be pickled; :meth:`reveal` returns it, so that
    every place that needs the text can be found by searching for that one word.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: that would write it in the clear")

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def as_secret(value: str | Secret) -> Secret:
    """Return ``value`` itself when it is a secret already, else wrapped."""
    return value if isinstance(value, Secret) else Secret(value)
