"""What all suites have in common: how the plugin is found, which tests apply, and that none is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal, TypeVar

import pytest
from attrs import frozen

from nim_core.registry import PluginInfo, load_registry
from nim_core.settings import Settings

__all__ = ["LEVELS", "Case", "Level", "Suite", "case", "case_of", "installed_plugin"]

Level = Literal["hygiene", "reading", "credentials", "faults", "writing", "backend"]

LEVELS: Final[tuple[Level, ...]] = ("hygiene", "reading", "credentials", "faults", "writing", "backend")

_ATTRIBUTE: Final = "__conformance_case__"
_KIT: Final = __name__.rpartition(".")[0]

F = TypeVar("F", bound=Callable[..., Any])


@frozen(kw_only=True)
class Case:
    """A test of a suite: its level, and what a plugin has to declare for it to apply."""

    level: Level
    needs: tuple[str, ...] = ()


def case(level: Level, *, needs: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Mark a method of a suite as one of its tests."""

    def mark(function: F) -> F:
        setattr(function, _ATTRIBUTE, Case(level=level, needs=needs))
        return function

    return mark


def case_of(function: object) -> Case | None:
    """Return what :func:`case` said of a test. None: it is no test of a suite."""
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, Case) else None


@lru_cache
def installed_plugin(name: str) -> PluginInfo:
    """
    Return the installed plugin ``name``, as core loads it.

    Fails the test when it is not installed, or set aside; the message has core's reason.
    """
    plugins = load_registry(Settings({})).plugins
    found = [plugin for plugin in plugins if plugin.name == name]
    if not found:
        names = ", ".join(plugin.name for plugin in plugins) or "none"
        pytest.fail(
            f"no plugin is called {name!r}; installed are: {names}. Install the project (pip install -e .), and look "
            'at the entry point in its pyproject.toml: [project.entry-points."nim_core.plugins"]',
            pytrace=False,
        )
    plugin = found[0]
    if plugin.status != "active":
        pytest.fail(f"core sets {plugin.label} aside: {plugin.reason} ({plugin.hint})", pytrace=False)
    return plugin


class Suite:
    """
    A class to inherit from.

    Attributes:
        plugin: Name of the plugin's entry point.
        set_aside: Tests that are known to fail, and why, by name. They are run; one that passes after all fails.
    """

    plugin: ClassVar[str]
    set_aside: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        """Raise TypeError for a class that would lose a test, or that names one that does not exist."""
        super().__init_subclass__()
        if cls.__module__.startswith(f"{_KIT}."):
            return
        tests = cls.cases()
        lost = sorted(name for name in tests if any(name in vars(base) for base in _outside(cls)))
        if lost:
            raise TypeError(
                f"{cls.__name__} replaces tests of the kit: {', '.join(lost)}. A test that cannot pass is set aside, "
                'with its reason: set_aside = {"NAME": "REASON"}'
            )
        unknown = sorted(set(cls.set_aside) - set(tests))
        if unknown:
            raise TypeError(f"{cls.__name__} sets tests aside that the kit does not have: {', '.join(unknown)}")
        if any(not reason.strip() for reason in cls.set_aside.values()):
            raise TypeError(f"{cls.__name__} sets tests aside without saying why")
        if vars(cls).get("__test__") is False:
            raise TypeError(f"{cls.__name__} has __test__ = False, so that none of its tests would run")

    @classmethod
    def cases(cls) -> dict[str, Case]:
        """Return the kit's tests in this class, by name."""
        found: dict[str, Case] = {}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items():
                marked = case_of(value)
                if marked is not None:
                    found[name] = marked
        return found

    def info(self) -> PluginInfo:
        """Return the plugin; see :func:`installed_plugin`."""
        return installed_plugin(self.plugin)

    def declares(self, what: str) -> bool:
        """Say whether the plugin, or the author's fixture, has what a test needs; suites know more words than this."""
        raise NotImplementedError(f"{type(self).__name__} does not know what {what} means")

    @pytest.fixture(autouse=True)
    def _applies(self, request: pytest.FixtureRequest) -> None:
        """Skip a test that needs what is not declared."""
        self._request = request
        marked = case_of(getattr(request.node, "function", None))
        for what in marked.needs if marked else ():
            if not self.declares(what):
                pytest.skip(f"not declared: {what}")


def _outside(cls: type) -> list[type]:
    """Return the classes of ``cls`` that are not the kit's."""
    return [base for base in cls.__mro__ if not base.__module__.startswith(_KIT) and base is not object]
