"""The environment, read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from nim_core.errors import ConfigError
from nim_core.settings import CORE_VARIABLES, Settings
from nim_core.types import EnvVar


def test_the_process_is_read_once(monkeypatch):
    monkeypatch.setenv("NIM_CACHE_PATH", "/before")
    settings = Settings.from_process()
    monkeypatch.setenv("NIM_CACHE_PATH", "/after")

    assert settings.cache_path == Path("/before")


def test_a_callers_mapping_is_copied():
    environ = {"NIM_CACHE_PATH": "/before", "MINE": "before"}
    settings = Settings(environ)
    environ.update(NIM_CACHE_PATH="/after", MINE="after")

    assert settings.cache_path == Path("/before")
    assert settings.read([EnvVar(name="MINE", summary="")]).text("MINE") == "before"


class TestCache:
    @pytest.mark.parametrize("environ", [{}, {"NIM_CACHE_PATH": ""}])
    def test_default(self, environ):
        assert Settings(environ).cache_path == Path("/opt/nim/.cache")

    def test_given(self):
        assert Settings({"NIM_CACHE_PATH": "/data cache"}).cache_path == Path("/data cache")


def test_manifest():
    assert Settings({}).manifest_path is None
    assert Settings({"NIM_MANIFEST_PATH": ""}).manifest_path is None
    assert Settings({"NIM_MANIFEST_PATH": "/m.yaml"}).manifest_path == Path("/m.yaml")


class TestPlugins:
    @pytest.mark.parametrize(
        ("value", "names"),
        [("", set()), ("a", {"a"}), (" a , b-c,, ", {"a", "b-c"}), (",", set()), ("a,a", {"a"})],
    )
    def test_disabled(self, value, names):
        assert Settings({"NIM_PLUGINS_DISABLED": value}).disabled_plugins == names

    def test_none_disabled(self):
        assert Settings({}).disabled_plugins == frozenset()

    @pytest.mark.parametrize(("value", "strict"), [("1", True), ("true", True), ("0", False), ("", False)])
    def test_strict(self, value, strict):
        assert Settings({"NIM_PLUGIN_STRICT": value}).strict_plugins is strict

    def test_strict_that_is_no_flag(self):
        with pytest.raises(ConfigError, match="NIM_PLUGIN_STRICT is not a boolean: 'maybe'"):
            _ = Settings({"NIM_PLUGIN_STRICT": "maybe"}).strict_plugins


class TestDeclarations:
    def test_each_name_once(self):
        names = [variable.name for variable in CORE_VARIABLES]

        assert sorted(set(names)) == sorted(names)

    @pytest.mark.parametrize("variable", CORE_VARIABLES, ids=lambda variable: variable.name)
    def test_every_default_can_be_read(self, variable):
        variables = Settings({}).variables
        if variable.kind == "flag":
            assert variables.flag(variable.name) in {True, False}
        elif variable.kind in {"integer", "seconds"}:
            number = variables.number(variable.name)
            assert number is None or number >= 0

    @pytest.mark.parametrize("variable", CORE_VARIABLES, ids=lambda variable: variable.name)
    def test_every_summary_is_one_line(self, variable):
        assert variable.summary.strip() == variable.summary != ""
        assert "\n" not in variable.summary

    def test_proxies_may_hold_passwords(self):
        secret = {variable.name for variable in CORE_VARIABLES if variable.secret}

        assert {"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"} <= secret
        assert "no_proxy" not in secret


def test_nothing_shows_the_environment():
    settings = Settings({"https_proxy": "http://user:pass-word@proxy", "OTHER": "pass-word"})

    assert "pass-word" not in f"{settings!r} {settings} {settings.variables!r} {settings.variables}"
