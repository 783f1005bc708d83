"""Plugins that load, and plugins that do not: each broken one is set aside alone, with its reason."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from nim_core.errors import PluginError, PluginIncompatibleError, PluginLoadError
from nim_core.registry import load_registry
from nim_core.settings import Settings

SOURCES = "@hookimpl\ndef nim_register_sources():\n    "


def states(registry):
    return {plugin.name: plugin.status for plugin in registry.plugins}


def only_quarantined(registry):
    (plugin,) = [plugin for plugin in registry.plugins if plugin.status == "quarantined"]
    return plugin


def test_a_good_plugin_brings_what_it_declares(site):
    site.plugin(
        "all",
        """
import nim_core
import nim_core.types as nim_types

TOKEN = EnvVar(name="ALL_TOKEN", summary="token", secret=True)

@hookimpl
def nim_register_sources():
    return [source("all", "all", "all2", environment=(TOKEN,))]

@hookimpl
def nim_register_sinks():
    return [SinkSpec(name="all", summary="a sink", scheme="all", factory=print)]

@hookimpl
def nim_register_backends():
    return [BackendSpec(name="all", summary="a backend", factory=print)]

@hookimpl
def nim_register_checks():
    return [CheckSpec(name="all", summary="a check", run=print)]

@hookimpl
def nim_register_environment():
    return [EnvVar(name="ALL_MORE", summary="more")]
""",
        version="2.5",
    )

    registry = site.load()

    (plugin,) = registry.plugins
    assert (plugin.name, plugin.distribution, plugin.version) == ("all", "dist-all", "2.5")
    assert (plugin.status, plugin.reason, plugin.hint) == ("active", None, None)
    assert plugin.hooks == (
        "nim_register_backends",
        "nim_register_checks",
        "nim_register_environment",
        "nim_register_sinks",
        "nim_register_sources",
    )
    assert [spec.name for spec in plugin.sources] == ["all"]
    assert list(registry.styles) == ["all", "all2"]
    assert list(registry.sinks) == ["all"]
    assert list(registry.backends) == ["all"]
    assert [check.name for check in registry.checks] == ["all"]
    assert [variable.name for variable in registry.declared_variables] == ["ALL_TOKEN", "ALL_MORE"]


def test_no_plugin_at_all(site):
    registry = site.load()

    assert registry.plugins == ()
    assert dict(registry.styles) == {}


def test_a_distribution_given_by_its_folder(site):
    site.source_plugin("good")
    (info,) = site.folder.glob("*.dist-info")

    registry = load_registry(Settings({}), distributions=[importlib.metadata.Distribution.at(info)])

    assert states(registry) == {"good": "active"}


def test_installed_distributions_are_the_default(site):
    site.source_plugin("found-by-default")

    assert "found-by-default" in states(load_registry(Settings({})))


IMPORT_FAULTS = [
    pytest.param("import module_that_is_missing", "ModuleNotFoundError: No module named", id="import-error"),
    pytest.param("def broken(:", "SyntaxError: ", id="syntax-error"),
    pytest.param("raise SystemExit(3)", "SystemExit: 3", id="system-exit"),
    pytest.param("raise BaseException", "cannot import installed_dist_bad_bad: BaseException", id="base-exception"),
    pytest.param("raise ValueError('two\\n lines')", "ValueError: two lines", id="one-line"),
    pytest.param(
        "import sys\nsys.modules[__name__] = 3", "must name a module: installed_dist_bad_bad is int", id="int"
    ),
]

HOOK_FAULTS = [
    pytest.param(
        "@hookimpl\ndef nim_provide_credentials(request):\n    return None",
        "there is no hook nim_provide_credentials; did you mean nim_provide_credential?",
        id="typo",
    ),
    pytest.param("@hookimpl\ndef whatever():\n    return None", "there is no hook whatever", id="no-hook"),
    pytest.param(
        "def nim_register_sources():\n    return []",
        "nim_register_sources is not a function marked with @hookimpl",
        id="no-marker",
    ),
    pytest.param(
        "def nim_register_source():\n    return []",
        "nim_register_source is not a function marked with @hookimpl; did you mean nim_register_sources?",
        id="no-marker-and-typo",
    ),
    pytest.param(
        "@hookimpl\nclass nim_register_sources:\n    pass",
        "nim_register_sources is not a function marked with @hookimpl",
        id="marked-class",
    ),
    pytest.param(
        "@hookimpl\ndef nim_provide_credential(request, sources):\n    return None",
        "registration failed: PluginValidationError",
        id="unknown-argument",
    ),
    pytest.param(
        "@hookimpl\ndef nim_provide_credential(*, request):\n    return None",
        "nim_provide_credential must take request as a plain parameter without default",
        id="keyword-only",
    ),
    pytest.param(
        "@hookimpl\ndef nim_provide_credential(request=None):\n    return None",
        "nim_provide_credential must take request as a plain parameter without default",
        id="default",
    ),
    pytest.param(
        "@hookimpl\nasync def nim_register_sources():\n    return []",
        "nim_register_sources is async; hooks are synchronous",
        id="async",
    ),
    pytest.param(
        "@hookimpl\ndef nim_register_sources():\n    yield source('bad')",
        "nim_register_sources is a generator; hooks return their answer",
        id="generator",
    ),
    pytest.param(
        "@hookimpl(wrapper=True)\ndef nim_provide_credential(request):\n    return (yield)",
        "nim_provide_credential is a hook wrapper; the contract has none",
        id="wrapper",
    ),
    pytest.param(
        "@hookimpl\ndef nim_register_sources():\n    return []\n"
        "@hookimpl(specname='nim_register_sources')\ndef more():\n    return []",
        "nim_register_sources is implemented twice: more, nim_register_sources",
        id="twice",
    ),
]

ANSWER_FAULTS = [
    pytest.param("raise KeyError('x')", "nim_register_sources failed: KeyError: 'x'", id="raises"),
    pytest.param("raise SystemExit", "nim_register_sources failed: SystemExit", id="exits"),
    pytest.param("return None", "returned NoneType, expected a list of SourceSpec", id="none"),
    pytest.param("return 'bad'", "returned str, expected a list of SourceSpec", id="string"),
    pytest.param("return (source('bad') for _ in 'x')", "returned generator, expected a list", id="generator-object"),
    pytest.param("return source('bad')", "returned SourceSpec, expected a list", id="one-spec"),
    pytest.param("return [{}]", "returned dict in its list, expected SourceSpec", id="dicts"),
    pytest.param(
        "return [SinkSpec(name='bad', summary='', scheme='bad', factory=print)]",
        "SinkSpec in its list",
        id="another-hooks-record",
    ),
    pytest.param("return [source('bad', 'Bad')]", "has an invalid scheme: 'Bad'", id="upper-case"),
    pytest.param("return [source('bad', 'a b')]", "has an invalid scheme: 'a b'", id="blank-in-scheme"),
    pytest.param("return [source('bad', 's3\\n')]", "has an invalid scheme: 's3\\n'", id="newline-in-scheme"),
    pytest.param("return [source('bad', '')]", "has an invalid scheme: ''", id="empty-scheme"),
    pytest.param("return [source('bad', 3)]", "has an invalid scheme: 3", id="number-as-scheme"),
    pytest.param("return [source('bad', 'file')]", "has an invalid scheme: 'file'", id="reserved-scheme"),
    pytest.param(
        "return [SourceSpec(name='bad', schemes='bad', uri_style=UriStyle.PATH, summary='', factory=print)]",
        "SourceSpec 'bad' has str as schemes, expected tuple",
        id="schemes-string",
    ),
    pytest.param("return [source('bad', style='object')]", "has str as uri_style, expected UriStyle", id="style"),
    pytest.param("return [source('bad', factory='x')]", "has a factory that cannot be called", id="factory"),
    pytest.param("return [source('../bad', 'bad')]", "has a name with other characters", id="name"),
    pytest.param("return [source(None, 'bad')]", "SourceSpec None has NoneType as name, expected str", id="no-name"),
    pytest.param("return [source('bad', environment=('A',))]", "has str in environment, expected EnvVar", id="env"),
    pytest.param(
        "return [source('bad', environment=(EnvVar(name='A B', summary=''),))]",
        "EnvVar 'A B' has a name with other characters",
        id="env-name",
    ),
    pytest.param(
        "return [source('bad', 'a'), source('bad', 'b')]", "nim_register_sources declares twice: bad", id="twin"
    ),
    pytest.param("return [source('a', 'x'), source('b', 'x')]", "nim_register_sources declares twice: x", id="scheme"),
    pytest.param("return [source('a', 'x', 'x')]", "nim_register_sources declares twice: x", id="scheme-in-one-spec"),
    pytest.param("return [source([], 'x')]", "SourceSpec [] has list as name, expected str", id="unhashable-name"),
]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *IMPORT_FAULTS,
        *HOOK_FAULTS,
        *(pytest.param(SOURCES + it.values[0], it.values[1], id=f"answer-{it.id}") for it in ANSWER_FAULTS),
    ],
)
def test_a_broken_plugin_is_set_aside_alone(site, code, reason, logged):
    site.source_plugin("aaa")
    site.plugin("bad", code, version="0.7")
    site.source_plugin("zzz")

    registry = site.load()

    assert states(registry) == {"aaa": "active", "bad": "quarantined", "zzz": "active"}
    assert reason in only_quarantined(registry).reason
    assert "\n" not in only_quarantined(registry).reason
    assert "dist-bad" in only_quarantined(registry).hint
    assert isinstance(only_quarantined(registry).error, PluginLoadError)
    assert sorted(registry.styles) == ["aaa", "zzz"]
    assert [entry["event"] for entry in logged] == ["plugin_quarantined"]
    assert (logged[0]["plugin"], logged[0]["distribution"], logged[0]["version"]) == ("bad", "dist-bad", "0.7")
    with pytest.raises(PluginLoadError, match=r"plugin for bad:// cannot be used: bad \(dist-bad 0\.7\): "):
        registry.parse_uri("bad://a/b")


def test_an_interrupt_while_a_plugin_loads_interrupts(site):
    site.plugin("bad", "raise KeyboardInterrupt")

    with pytest.raises(KeyboardInterrupt):
        site.load()


@pytest.mark.parametrize("hook", ["nim_register_sinks", "nim_register_backends", "nim_register_checks"])
def test_every_collect_hook_is_checked(site, hook, logged):
    site.plugin("bad", f"@hookimpl\ndef {hook}():\n    return [3]")

    assert f"{hook} returned int in its list" in only_quarantined(site.load()).reason


def test_a_quarantined_plugin_answers_no_hook(site, logged):
    site.plugin(
        "bad",
        """
@hookimpl
def nim_register_sources():
    raise ValueError

@hookimpl
def nim_rewrite_uri(uri, override):
    raise AssertionError("called")
""",
    )
    site.source_plugin("good")
    registry = site.load()

    assert registry.rewrite_uri(registry.parse_uri("good://a/b"), None) == ()


def test_the_cause_is_kept_for_the_author(site, logged):
    site.plugin("bad", "1 / 0")

    assert isinstance(only_quarantined(site.load()).error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("entry_point", "reason"),
    [
        ("bad = installed_nowhere", "cannot import installed_nowhere: ModuleNotFoundError"),
        ("bad = installed_m:thing", "its entry point must name a module: installed_m:thing"),
        ("bad = ", "cannot import : ValueError"),
        ("bad = .relative", "cannot import .relative: TypeError"),
    ],
)
def test_an_entry_point_that_names_no_module(site, entry_point, reason, logged):
    site.module("installed_m", "thing = 1")
    site.distribution("dist-bad", entry_points=[entry_point])

    assert reason in only_quarantined(site.load()).reason


def test_a_hook_of_a_later_core_may_be_implemented_if_marked_optional(site):
    site.plugin("new", "@hookimpl(optionalhook=True)\ndef nim_of_the_future(x):\n    return None")

    registry = site.load()

    assert states(registry) == {"new": "active"}
    assert registry.plugins[0].hooks == ()


def test_a_hook_may_take_fewer_arguments(site):
    site.plugin("less", "@hookimpl\ndef nim_rewrite_uri(uri):\n    return None")

    assert states(site.load()) == {"less": "active"}


class TestDisabled:
    def test_a_disabled_plugin_is_not_imported(self, site):
        site.plugin("bad", "raise SystemExit")
        site.source_plugin("good")

        registry = site.load(NIM_PLUGINS_DISABLED=" bad ,, ")

        assert states(registry) == {"bad": "disabled", "good": "active"}
        assert "installed_dist_bad_bad" not in sys.modules

    def test_asking_for_its_scheme_says_so(self, site):
        site.source_plugin("s")

        registry = site.load(NIM_PLUGINS_DISABLED="s")

        with pytest.raises(PluginLoadError, match="disabled by NIM_PLUGINS_DISABLED") as caught:
            registry.parse_uri("s://a/b")
        assert caught.value.hint == "take s out of NIM_PLUGINS_DISABLED"

    def test_an_unknown_name_is_logged_with_the_names_there_are(self, site, logged):
        site.source_plugin("a")
        site.source_plugin("b")

        site.load(NIM_PLUGINS_DISABLED="b,bb")

        assert logged == [
            {"event": "unknown_plugin_disabled", "log_level": "warning", "names": ["bb"], "installed": ["a", "b"]}
        ]


class TestStrict:
    def test_one_broken_plugin_raises_its_own_error(self, site, logged):
        site.plugin("bad", "", requires=["nim-core>=99"])
        site.source_plugin("good")

        with pytest.raises(PluginIncompatibleError, match=r"bad \(dist-bad 1\.0\): requires nim-core>=99") as caught:
            site.load(NIM_PLUGIN_STRICT="1")

        assert caught.value.hint == "pip install --upgrade nim-core dist-bad"

    def test_all_broken_plugins_are_named(self, site):
        site.plugin("bad1", "1 / 0")
        site.plugin("bad2", "", requires=["nim-core>=99"])

        with pytest.raises(PluginError, match=r"bad1 \(dist-bad1 1\.0\): .*; bad2 \(dist-bad2 1\.0\): ") as caught:
            site.load(NIM_PLUGIN_STRICT="yes")

        assert type(caught.value) is PluginError

    def test_a_disabled_plugin_is_no_failure(self, site):
        site.plugin("bad", "1 / 0")

        assert states(site.load(NIM_PLUGIN_STRICT="1", NIM_PLUGINS_DISABLED="bad")) == {"bad": "disabled"}


class TestMetadata:
    def test_a_foreign_distribution_that_is_malformed_is_passed_over(self, site):
        site.source_plugin("good")
        foreign = site.folder / "foreign-1.dist-info"
        foreign.mkdir()
        (foreign / "entry_points.txt").write_bytes(b"\xff\xfe[x]")

        assert states(site.load()) == {"good": "active"}

    def test_a_half_removed_plugin_is_named_by_its_folder(self, site, logged):
        remains = site.folder / "gone-1.0.dist-info"
        remains.mkdir()
        (remains / "entry_points.txt").write_text("[nim_core.plugins]\ngone = installed_gone\n")
        site.source_plugin("good")

        registry = site.load()

        assert states(registry) == {"gone-1.0.dist-info": "quarantined", "good": "active"}
        assert "its metadata cannot be read" in only_quarantined(registry).reason

    def test_entry_points_that_do_not_parse(self, site, logged):
        site.distribution("dist-bad", entry_points=["no equals sign"])

        assert "its metadata cannot be read" in only_quarantined(site.load()).reason

    def test_other_groups_do_not_matter(self, site):
        site.distribution("other", entry_points=["[nim_core.plugins.more]", "x = installed_x"])

        assert site.load().plugins == ()
