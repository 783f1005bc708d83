"""Two plugins that claim one thing: neither gets it, and both are named."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys

import pytest

from nim_core.errors import PluginConflictError
from nim_core.registry import load_registry
from nim_core.settings import Settings


def states(registry):
    return [(plugin.label, plugin.status) for plugin in registry.plugins]


@pytest.fixture(autouse=True)
def _quiet(logged):
    """Every test here quarantines."""


def test_one_name_in_two_distributions(site):
    site.source_plugin("s", distribution="dist-b", version="2.0")
    site.source_plugin("s", distribution="dist-a", version="1.0")

    registry = site.load()

    reason = "plugin name s is claimed by s (dist-a 1.0) and s (dist-b 2.0)"
    assert [(plugin.status, plugin.reason) for plugin in registry.plugins] == [("quarantined", reason)] * 2
    assert not [name for name in sys.modules if name.startswith("installed_dist_")]
    with pytest.raises(PluginConflictError, match=r"dist-a 1\.0.*dist-b 2\.0") as caught:
        registry.parse_uri("s://a/b")
    assert caught.value.hint == "uninstall all but one of these distributions"


def test_one_scheme_in_two_plugins(site):
    site.source_plugin("a", "x", "only-a")
    site.source_plugin("b", "x")
    site.source_plugin("c")

    registry = site.load()

    assert states(registry) == [
        ("a (dist-a 1.0)", "quarantined"),
        ("b (dist-b 1.0)", "quarantined"),
        ("c (dist-c 1.0)", "active"),
    ]
    reason = "scheme x:// is claimed by a (dist-a 1.0) and b (dist-b 1.0)"
    assert [plugin.reason for plugin in registry.plugins] == [reason, reason, None]
    for text in ("x://m/n", "only-a://m/n"):
        with pytest.raises(PluginConflictError, match=r"is claimed by a .* and b ") as caught:
            registry.parse_uri(text)
        assert "NIM_PLUGINS_DISABLED" in caught.value.hint


def test_disabling_one_of_them_settles_it(site):
    site.source_plugin("a", "x")
    site.source_plugin("b", "x")

    registry = site.load(NIM_PLUGINS_DISABLED="a")

    assert registry.owner("x").label == "b (dist-b 1.0)"


@pytest.mark.parametrize(
    ("code", "claim"),
    [
        ("def nim_register_sources():\n    return [source('x', SCHEME)]", "source x"),
        ("def nim_register_sinks():\n    return [SinkSpec(name='x', summary='', scheme='x', factory=print)]", "sink x"),
        ("def nim_register_backends():\n    return [BackendSpec(name='x', summary='', factory=print)]", "backend x"),
    ],
)
def test_one_name_of_a_record_in_two_plugins(site, code, claim):
    for name in ("a", "b"):
        site.plugin(name, f"SCHEME = '{name}'\n@hookimpl\n{code}")

    registry = site.load()

    reason = f"{claim} is claimed by a (dist-a 1.0) and b (dist-b 1.0)"
    assert [plugin.reason for plugin in registry.plugins] == [reason, reason]
    assert (dict(registry.sinks), dict(registry.backends)) == ({}, {})


def test_three_plugins_and_two_claims(site):
    site.source_plugin("a", "x", "y")
    site.source_plugin("b", "x")
    site.source_plugin("c", "x", "y")

    first = site.load().plugins[0]

    assert first.reason == (
        "scheme x:// is claimed by a (dist-a 1.0) and b (dist-b 1.0) and c (dist-c 1.0); "
        "scheme y:// is claimed by a (dist-a 1.0) and c (dist-c 1.0)"
    )


def test_a_plugin_in_conflict_answers_no_hook(site):
    code = "@hookimpl\ndef nim_transfer_event(event):\n    raise AssertionError('called')\n"
    for name in ("a", "b"):
        site.plugin(name, f"{code}\n@hookimpl\ndef nim_register_sources():\n    return [source('x{name}', 'x')]\n")

    registry = site.load()

    assert [plugin.status for plugin in registry.plugins] == ["quarantined", "quarantined"]
    registry.notify(None)


def test_a_broken_plugin_claims_nothing(site):
    site.source_plugin("a", "x")
    site.plugin("b", "@hookimpl\ndef nim_register_sources():\n    return [source('b', 'x'), 3]")

    assert site.load().owner("x").name == "a"


def test_two_entry_points_of_one_module(site):
    site.module("installed_m", "")
    site.distribution("dist-m", entry_points=["one = installed_m", "two = installed_m"])

    registry = site.load()

    reason = "module installed_m is claimed by one (dist-m 1.0) and two (dist-m 1.0)"
    assert [plugin.reason for plugin in registry.plugins] == [reason, reason]


def test_one_distribution_seen_twice_is_one(site, tmp_path):
    site.source_plugin("s", distribution="My.Dist")
    elsewhere = tmp_path / "editable"
    site.distribution("my-dist", entry_points=["s = installed_My.Dist_s"], folder=elsewhere)
    importlib.invalidate_caches()
    (site.folder / "installed_My.Dist_s.py").rename(site.folder / "installed_my.py")
    info = next(site.folder.glob("*.dist-info")) / "entry_points.txt"
    info.write_text("[nim_core.plugins]\ns = installed_my\n")

    path = [str(site.folder), str(elsewhere)]
    registry = load_registry(Settings({}), distributions=importlib.metadata.distributions(path=path))

    assert states(registry) == [("s (My.Dist 1.0)", "active")]


def test_the_order_does_not_depend_on_the_path(site):
    for name in ("c", "a", "b"):
        site.source_plugin(name)
    distributions = list(importlib.metadata.distributions(path=[str(site.folder)]))
    importlib.invalidate_caches()

    orders = [
        [plugin.name for plugin in load_registry(Settings({}), distributions=order).plugins]
        for order in (distributions, distributions[::-1])
    ]

    assert orders == [["a", "b", "c"]] * 2
