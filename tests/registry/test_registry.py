"""What the registry answers about schemes and variables, and in which order it asks plugins."""

from __future__ import annotations

import subprocess
import sys

import attrs
import httpx
import pytest

from nim_core.errors import (
    InvalidUriError,
    NoPluginForSchemeError,
    OverrideUnsupportedError,
    PluginError,
    PluginLoadError,
)
from nim_core.types import Anonymous, CredentialRequest, ModelUri, OverrideTarget, UriStyle

TARGET = OverrideTarget(scheme="mirror", location="bucket", key="k")


@pytest.fixture
def http():
    with httpx.Client() as client:
        yield client


class TestSchemes:
    def test_a_uri_is_parsed_by_its_owners_style(self, site):
        site.plugin("o", "@hookimpl\ndef nim_register_sources():\n    return [source('o', style=UriStyle.OBJECT)]")
        site.source_plugin("r")
        registry = site.load()

        assert dict(registry.styles) == {"o": UriStyle.OBJECT, "r": UriStyle.REPOSITORY}
        assert registry.parse_uri("o://b/k?file=x").location == "b/k?file=x"
        assert registry.parse_uri("R://a/b:c?file=x") == ModelUri(
            scheme="r", location="a/b", revision="c", file="x", style=UriStyle.REPOSITORY
        )

    def test_text_that_is_no_uri(self, site):
        with pytest.raises(InvalidUriError):
            site.load().parse_uri("/a/path")

    def test_an_unknown_scheme_names_the_distribution_to_install(self, site):
        registry = site.load()

        for ask in (registry.parse_uri, lambda text: registry.source_spec(text.partition(":")[0])):
            with pytest.raises(NoPluginForSchemeError) as caught:
                ask("s3://bucket/key")
            assert caught.value.hint == "pip install nim-source-s3"

    def test_a_plugin_that_never_loaded_is_known_by_its_distribution(self, site, logged):
        site.plugin("cloud", "1 / 0", distribution="Nim_Source_S3", version="3.1")

        with pytest.raises(PluginLoadError, match=r"plugin for s3:// cannot be used: cloud \(Nim_Source_S3 3\.1\)"):
            site.load().parse_uri("s3://bucket/key")

    def test_a_scheme_it_declared_itself_comes_first(self, site, logged):
        site.source_plugin("a", "x", "s3")
        site.source_plugin("b", "x")
        site.plugin("s3", "1 / 0")

        with pytest.raises(PluginError, match="plugin for s3:// cannot be used: a "):
            site.load().parse_uri("s3://bucket/key")

    def test_a_working_plugin_is_not_blamed_for_its_name(self, site):
        site.plugin("s3", "", distribution="nim-source-s3")

        with pytest.raises(NoPluginForSchemeError):
            site.load().parse_uri("s3://bucket/key")

    def test_an_active_owner_is_not_bothered_by_a_broken_namesake(self, site, logged):
        site.source_plugin("a", "s3")
        site.plugin("s3", "1 / 0")

        assert site.load().owner("s3").name == "a"

    def test_the_mappings_cannot_be_changed(self, site):
        registry = site.load()

        for mapping in (registry.styles, registry.sinks, registry.backends):
            with pytest.raises(TypeError):
                mapping["x"] = None


class TestVariables:
    def test_a_source_reads_what_it_declares_and_no_more(self, site, http):
        site.plugin(
            "s",
            """
@hookimpl
def nim_register_sources():
    declared = (EnvVar(name="S_HOST", summary="host", default="h"), EnvVar(name="S_KEY", summary="key", secret=True))
    made = []
    def factory(context):
        if context.variables.text("S_HOST") != "h" or context.variables.secret("S_KEY").reveal() != "k":
            raise AssertionError
        context.variables.text("S_OTHER")
    return [source("s", factory=factory, environment=declared)]
""",
        )

        with pytest.raises(PluginError, match="failed in factory: KeyError"):
            site.load(S_KEY="k", S_OTHER="o").open_source("s", http)

    def test_each_name_once_and_secret_if_anyone_says_so(self, site):
        for name, secret in (("a", False), ("b", True)):
            site.plugin(
                name,
                "@hookimpl\ndef nim_register_environment():\n"
                f"    return [EnvVar(name='TOKEN', summary='of {name}', secret={secret})]",
            )

        (variable,) = site.load().declared_variables

        assert (variable.name, variable.summary, variable.secret) == ("TOKEN", "of a", True)

    def test_variables_of_sinks_and_backends_count(self, site):
        site.plugin(
            "p",
            """
@hookimpl
def nim_register_sinks():
    return [SinkSpec(name="p", summary="", scheme="p", factory=print, environment=(EnvVar(name="SINK", summary=""),))]

@hookimpl
def nim_register_backends():
    return [BackendSpec(name="p", summary="", factory=print, environment=(EnvVar(name="BACKEND", summary=""),))]
""",
        )

        assert [variable.name for variable in site.load().declared_variables] == ["SINK", "BACKEND"]


class TestRewrite:
    def rewriter(self, name, answer, marker="@hookimpl"):
        return f"{marker}\ndef nim_rewrite_uri(uri, override):\n    {answer}\n"

    def answer(self, name):
        return f"return ModelUri(scheme=override.scheme, location='{name}')"

    @pytest.fixture
    def uri(self):
        return ModelUri(scheme="x", location="a/b")

    def test_none_when_nobody_knows_the_target(self, site, uri):
        site.plugin("a", self.rewriter("a", "return None"))

        assert site.load().rewrite_uri(uri, TARGET) == ()

    def test_plain_ones_by_name_then_those_that_want_to_be_last(self, site, uri):
        site.plugin("a", self.rewriter("a", self.answer("a"), "@hookimpl(trylast=True)"))
        site.plugin("b", self.rewriter("b", self.answer("b"), "@hookimpl(trylast=True)"))
        site.plugin("c", self.rewriter("c", "return None"))
        site.plugin("d", self.rewriter("d", self.answer("d")))
        site.plugin("e", self.rewriter("e", self.answer("e")))
        order = []
        disabled = set()
        while (answer := site.load(NIM_PLUGINS_DISABLED=",".join(disabled)).rewrite_uri(uri, TARGET)) != ():
            order.append(answer[0].location)
            disabled.add(answer[0].location)

        assert order == ["d", "e", "a", "b"]

    def test_one_that_wants_to_be_first_is(self, site, uri):
        site.plugin("a", self.rewriter("a", self.answer("a")))
        site.plugin("z", self.rewriter("z", self.answer("z"), "@hookimpl(tryfirst=True)"))

        assert site.load().rewrite_uri(uri, TARGET)[0].location == "z"

    def test_a_refusal_stops(self, site, uri):
        site.plugin(
            "a",
            "from nim_core.errors import OverrideUnsupportedError\n"
            + self.rewriter("a", "raise OverrideUnsupportedError('no')"),
        )
        site.plugin("b", self.rewriter("b", self.answer("b")))

        with pytest.raises(OverrideUnsupportedError, match="no"):
            site.load().rewrite_uri(uri, TARGET)

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            ("raise ValueError", r"plugin a \(dist-a 1\.0\) failed in nim_rewrite_uri: ValueError"),
            ("return str(uri)", r"plugin a \(dist-a 1\.0\) returned str from nim_rewrite_uri, expected ModelUri"),
            ("return ''", r"plugin a \(dist-a 1\.0\) returned str from nim_rewrite_uri"),
        ],
    )
    def test_a_bug_of_the_targets_own_plugin_stops_and_is_named(self, site, uri, answer, message):
        own = f"@hookimpl\ndef nim_register_sources():\n    return [source('own', {TARGET.scheme!r})]\n"
        site.plugin("a", own + self.rewriter("a", answer))
        site.plugin("b", self.rewriter("b", self.answer("b")))

        with pytest.raises(PluginError, match=message):
            site.load().rewrite_uri(uri, TARGET)

    def test_a_bug_of_a_foreign_plugin_is_reported_once_and_the_next_one_is_asked(self, site, uri, logged):
        site.plugin("a", self.rewriter("a", "raise ValueError"))
        site.plugin("b", self.rewriter("b", self.answer("b")))
        registry = site.load()

        assert [registry.rewrite_uri(uri, TARGET)[0].location for _ in range(3)] == ["b"] * 3
        assert [(it["event"], it["plugin"]) for it in logged] == [("plugin_hook_failed", "a")]


def test_without_any_plugin_every_hook_has_an_answer(site):
    registry = site.load()
    request = CredentialRequest(source="s", endpoint="https://h", variables=None)

    assert registry.provide_credential(request) == Anonymous()
    assert registry.rewrite_uri(ModelUri(scheme="x", location="a"), TARGET) == ()
    registry.notify(None)


def test_records_of_plugins_are_left_as_they_are(site):
    site.source_plugin("s")
    registry = site.load()

    assert registry.source_spec("s") is registry.plugins[0].sources[0]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        registry.plugins[0].status = "disabled"


def test_loading_imports_nothing_slow():
    slow = "['structlog', 'httpx', 'importlib.metadata', 'packaging', 'asyncio']"
    code = f"import sys, nim_core.registry\nprint(*[name for name in {slow} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


def test_loading_a_good_plugin_imports_neither_log_nor_http(site):
    site.source_plugin("good")
    code = (
        "import sys; from importlib.metadata import distributions\n"
        "from nim_core.registry import load_registry; from nim_core.settings import Settings\n"
        f"sys.path.insert(0, {str(site.folder)!r})\n"
        f"registry = load_registry(Settings({{}}), distributions=distributions(path=[{str(site.folder)!r}]))\n"
        "print(*registry.styles, *[name for name in ('structlog', 'httpx', 'difflib') if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["good"]
