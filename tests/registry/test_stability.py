"""The contract as it grows: plugins of an older one go on working, and hear of what will go before it does."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import warnings
from pathlib import Path

import httpx
import pytest

from nim_core.hookspecs import NimHookSpecs, hookspec
from nim_core.registry import load_registry
from nim_core.registry.discovery import discover
from nim_core.registry.loading import load_plugins, make_manager
from nim_core.settings import Settings
from nim_core.types import (
    BearerToken,
    CredentialRequest,
    OverrideTarget,
    RemoteFile,
    Secret,
    TransferEvent,
    Variables,
)

OLDER = Path(__file__).with_name("older")


@pytest.fixture
def older(monkeypatch):
    """The pinned distribution, importable."""
    monkeypatch.syspath_prepend(OLDER)
    importlib.invalidate_caches()
    yield lambda: importlib.metadata.distributions(path=[str(OLDER)])
    sys.modules.pop("older_plugin", None)


class TestOlderPlugin:
    """``older/`` is what pip would have installed of a plugin written for 1.0."""

    def test_it_loads_and_nothing_is_to_be_said_of_it(self, older, logged):
        (plugin,) = load_registry(Settings({}), distributions=older()).plugins

        assert (plugin.name, plugin.status, plugin.reason) == ("older", "active", None)
        assert len(plugin.hooks) == len([name for name in vars(NimHookSpecs) if name.startswith("nim_")])
        assert logged == []

    def test_its_source_and_backend_work(self, older):
        registry = load_registry(Settings({"OLDER_URL": "https://h"}), distributions=older())
        uri = registry.parse_uri("older://team/model:1")
        with httpx.Client() as http:
            source = registry.open_source("older", http)
            listing = source.list_files(uri)
            location = source.locate(uri, listing.files[0])

        assert listing.files == (RemoteFile(path="config.json"),)
        assert location.url == Secret("https://h/team/model/config.json")
        assert registry.open_backend("older").options() == ()
        assert registry.open_backend("older").abilities == ()

    def test_its_hooks_that_take_less_are_asked(self, older):
        registry = load_registry(Settings({}), distributions=older())
        uri = registry.parse_uri("older://team/model:1")
        request = CredentialRequest(source="older", endpoint="https://h", uri=uri, variables=Variables((), {}))
        registry.notify(TransferEvent(kind="progress", uri=str(uri), file="x", bytes=1))
        registry.finish_telling()

        import older_plugin

        assert registry.provide_credential(request) == BearerToken(token="older-token", origin="older")
        assert registry.rewrite_uri(uri, OverrideTarget(scheme="older", location="b", key="k")) == (uri,)
        assert older_plugin.heard == ["told"]

    def test_a_later_minor_version_adds_arguments_and_hooks(self, older):
        class Later(NimHookSpecs):
            @hookspec(firstresult=True)
            def nim_provide_credential(self, request, reason):
                """Has got an argument."""

            @hookspec
            def nim_of_the_future(self, thing):
                """Is new."""

        manager = make_manager(Later)
        (plugin,) = load_plugins(manager, discover(older()), frozenset())

        assert (plugin.status, plugin.deprecations) == ("active", ())
        assert manager.hook.nim_provide_credential(request=None, reason="new").origin == "older"


class Deprecating(NimHookSpecs):
    """The contract with a hook, and an argument of another one, that will go."""

    @hookspec(warn_on_impl=DeprecationWarning("nim_rewrite_uri goes in 3.0; use nim_place_uri"))
    def nim_rewrite_uri(self, uri, override):
        """Will go."""

    @hookspec(warn_on_impl_args={"event": DeprecationWarning("the argument event goes in 3.0; use fact")})
    def nim_transfer_event(self, event, fact):
        """One of its arguments will go."""


class TestDeprecation:
    @pytest.fixture(autouse=True)
    def _contract(self, monkeypatch):
        monkeypatch.setattr("nim_core.registry.manager.make_manager", lambda: make_manager(Deprecating))

    def test_a_plugin_that_implements_what_will_go_is_named_in_the_log_and_works(self, site, logged):
        site.plugin("new", "@hookimpl\ndef nim_transfer_event(fact):\n    pass\n")
        site.plugin(
            "old",
            "@hookimpl\ndef nim_rewrite_uri(uri):\n    return uri\n"
            "@hookimpl\ndef nim_transfer_event(event):\n    pass\n",
            version="0.7",
        )
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            registry = site.load()

        assert [plugin.status for plugin in registry.plugins] == ["active", "active"]
        assert logged == [
            {
                "event": "plugin_uses_deprecated",
                "log_level": "warning",
                "plugin": "old",
                "distribution": "dist-old",
                "version": "0.7",
                "uses": [
                    "nim_rewrite_uri goes in 3.0; use nim_place_uri",
                    "the argument event goes in 3.0; use fact",
                ],
                "hint": "upgrade dist-old, or report this to its authors",
            }
        ]
        assert seen == []

    def test_a_user_who_makes_errors_of_warnings_keeps_the_plugin(self, site, logged):
        site.plugin("old", "@hookimpl\ndef nim_rewrite_uri(uri):\n    return uri\n")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (plugin,) = site.load().plugins

        assert plugin.status == "active"
