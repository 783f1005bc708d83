"""What a plugin requires of core is checked before it is imported."""

from __future__ import annotations

import sys

import pytest

from nim_core.errors import PluginIncompatibleError
from nim_core.registry.checks import check_requirements
from nim_core.registry.discovery import Candidate


def check(core_version, *requires):
    check_requirements(Candidate(name="p", distribution="dist-p", version="1", requires=requires), core_version)


@pytest.mark.parametrize(
    ("core_version", "requires"),
    [
        ("1.0.0.dev0", "nim-core>=1.0.0.dev0,<2"),
        ("1.0.0.dev0", "nim-core<2,>=1.0.0.dev0"),
        ("1.0.0.dev0+local.1", "nim-core>=1.0.0.dev0"),
        ("1.1.0rc1", "nim-core>=1"),
        ("1.2", "nim_core (>=1,<2)"),
        ("1.2", "NIM.Core[testing]>=1 ; python_version >= '3'"),
        ("1.2", "nim-core"),
        ("1.2", "nim-core>=99 ; python_version < '3'"),
        ("1.2", "nim-core[testing]>=99 ; extra == 'testing'"),
        ("1.2", "nim-core-extras>=99"),
        ("1.2", "nim-core @ https://example.com/nim_core.whl"),
        ("1.2", "another >>> malformed"),
        (None, "attrs>=25"),
    ],
)
def test_satisfied(core_version, requires):
    check(core_version, requires)


@pytest.mark.parametrize(
    ("core_version", "requires"),
    [
        ("1.0.0.dev0", "nim-core>=1.0.0"),
        ("1.2", "nim-core>=2"),
        ("1.2", "nim-core<1"),
        ("2.0.0.dev0", "nim-core>=1,<2"),
        ("1.2", "Nim_Core==1.1"),
        (None, "nim-core"),
    ],
)
def test_not_satisfied(core_version, requires):
    with pytest.raises(PluginIncompatibleError, match="installed is") as caught:
        check(core_version, "attrs", requires)

    assert requires in caught.value.message
    assert caught.value.hint == "pip install --upgrade nim-core dist-p"


def test_malformed():
    with pytest.raises(PluginIncompatibleError, match="malformed Requires-Dist: 'nim-core >>> 1'"):
        check("1.2", "nim-core >>> 1")


@pytest.mark.parametrize("requires", ["nim-core<0.1", "nim-core>=99", "nim-core ~~ 1"])
def test_an_incompatible_plugin_is_not_imported(site, requires, logged):
    site.plugin("old", "raise SystemExit", requires=[requires])

    registry = site.load()

    (plugin,) = registry.plugins
    assert (plugin.status, type(plugin.error)) == ("quarantined", PluginIncompatibleError)
    assert "installed_dist_old_old" not in sys.modules
    with pytest.raises(PluginIncompatibleError, match=r"old \(dist-old 1\.0\)"):
        registry.source_spec("old")


def test_the_installed_core_satisfies_its_own_plugins(site):
    site.plugin("mine", requires=["nim-core>=1.0.0.dev0,<2"])

    assert [plugin.status for plugin in site.load().plugins] == ["active"]
