"""What is wrong with a manifest and where, before file and line are put to it."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

__all__ = ["FaultError", "Place", "Step", "is_profile_id", "shown"]

Step = str | int
_SHOWN: Final = 100
_ID = re.compile(r"[0-9a-f]{64}")


class FaultError(Exception):
    """
    Something is wrong with a manifest. Internal: loading turns it into a ManifestError.

    Args:
        message: As for :class:`~nim_core.errors.NimError`.
        hint: As for :class:`~nim_core.errors.NimError`.
        line: Where it is, from 1. None when only ``place`` is known, or nothing.
        place: The value that is wrong. None when the text could not be read so far.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, line: int | None = None, place: Place | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.line = line
        self.place = place


class Place(NamedTuple):
    """A value in a manifest: the keys and indices that lead to it, and the profile it belongs to, once known."""

    path: tuple[Step, ...] = ()
    profile: str | None = None

    def child(self, *steps: Step) -> Place:
        """Return the place of a value inside this one."""
        return Place((*self.path, *steps), self.profile)

    def fault(self, message: str, hint: str | None = None) -> FaultError:
        """Return the error to raise about the value here."""
        return FaultError(message, hint=hint, place=self)


def is_profile_id(value: object) -> bool:
    """Return whether ``value`` is the text of a profile's id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def shown(value: Any) -> str:
    """Return ``value`` for a message: escaped, and cut when it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
