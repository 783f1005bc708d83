"""``plugins show`` and ``plugins list`` of plugins that are really installed."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import TYPE_CHECKING

import pytest

from nim_core.cli.session import core_version

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

SECRET = "hunter22"

STORE = """
class Placing(EmptySource):
    def cache_key(self, uri, pinned):
        return None

class PartlySink:
    def head(self, key): pass
    def list_objects(self, prefix): return ()
    def put(self, new, body): pass
    def close(self): pass
    def part_bytes(self, size): pass
    def begin(self, new, token): pass
    def put_part(self, new, upload, part): pass
    def finish(self, new, upload, parts): pass
    def abort(self, new, upload): pass

class Engine:
    def options(self): return ()
    def options_are_exact(self): return True
    def propose(self, request): return ()
    def probe(self, request): pass
    def plan_launch(self, request): pass

VARIABLES = (
    EnvVar(name="STORE_KEY", summary="key", secret=True),
    EnvVar(name="STORE_URL", summary="address", kind="url", default="https://store.example.com"),
    EnvVar(name="STORE_SEEN", summary="said by another plugin to be secret"),
    EnvVar(name="STORE_NONE", summary="not set"),
)

@hookimpl
def nim_register_sources():
    return [
        SourceSpec(
            name="store", schemes=("store", "stores"), uri_style=UriStyle.REPOSITORY, summary="a store",
            factory=Placing, capabilities=Capabilities(pins_revisions=True), environment=VARIABLES,
        )
    ]

@hookimpl
def nim_register_sinks():
    return [SinkSpec(name="store", summary="its sink", scheme="store", factory=lambda context: PartlySink())]

@hookimpl
def nim_register_backends():
    return [BackendSpec(name="fast", summary="an engine", factory=lambda variables: Engine(), engines=("fast",))]

@hookimpl
def nim_provide_credential(request):
    return None

@hookimpl(trylast=True)
def nim_rewrite_uri(uri, override):
    return None
"""
OTHER = """
@hookimpl
def nim_register_environment():
    return [EnvVar(name="STORE_SEEN", summary="", secret=True)]

@hookimpl(tryfirst=True)
def nim_provide_credential(request):
    return None
"""


@pytest.fixture
def installed(site, monkeypatch: pytest.MonkeyPatch):
    """Nothing is installed but what the test installs, and core."""
    monkeypatch.setattr(
        "nim_core.registry.manager.installed_distributions",
        lambda: importlib.metadata.distributions(path=[str(site.folder)]),
    )
    site.plugin("store", STORE, version="1.2", requires=["nim-core>=1.0.0.dev0,<2", "attrs"])
    site.plugin("other", OTHER)
    site.plugin("broken", "raise ValueError('no')")
    return site


def test_everything_about_a_plugin(cli: Cli, installed) -> None:
    environ = {"STORE_KEY": SECRET, "STORE_URL": f"https://me:{SECRET}@h/?sig=abc", "STORE_SEEN": "x"}
    ended = cli("plugins", "show", "store", environ=environ)
    assert ended.code == 0
    assert (
        ended.out
        == f"""\
store (dist-store 1.2): active
  came from     {installed.folder}
  module        installed_dist_store_store
  requires      nim-core>=1.0.0.dev0,<2; installed is nim-core {core_version()}
  hooks         {", ".join(hooks())}
  source        store: a store
    schemes     store, stores (repository)
    can         pins-revisions
    abilities   cache-placement
  sink          store: its sink
    scheme      store
    abilities   parted-sink
  backend       fast: an engine
    engines     fast
    without GPU no
    abilities   nearby-options
  variables     STORE_KEY   is set (secret)
                STORE_URL   = https://***@h/?sig=***
                STORE_SEEN  is set (secret)
                STORE_NONE  not set
  asked         nim_provide_credential: other, [store]
"""
    )


def hooks() -> list[str]:
    collecting = [f"nim_register_{what}" for what in ("backends", "sinks", "sources")]
    return ["nim_provide_credential", *collecting, "nim_rewrite_uri"]


def test_the_same_as_json(cli: Cli, installed) -> None:
    ended = cli("plugins", "show", "store", "--json", environ={"STORE_KEY": SECRET})
    (store,) = json.loads(ended.out)["plugins"]
    assert [(it["name"], it["set"], it["secret"], it["value"]) for it in store["environment"]] == [
        ("STORE_KEY", True, True, None),
        ("STORE_URL", False, False, None),
        ("STORE_SEEN", False, True, None),
        ("STORE_NONE", False, False, None),
    ]
    assert store["asked"] == {"nim_provide_credential": ["other", "store"], "nim_rewrite_uri": ["store"]}
    assert [(it["kind"], it["abilities"]) for it in store["brings"]] == [
        ("source", ["cache-placement"]),
        ("sink", ["parted-sink"]),
        ("backend", ["nearby-options"]),
    ]
    assert (store["folder"], store["editable"], store["installer"]) == (str(installed.folder), False, None)


def test_a_source_that_cannot_be_made_says_why(cli: Cli, installed) -> None:
    installed.plugin(
        "late",
        "def make(context):\n    raise SystemExit('x')\n"
        "@hookimpl\ndef nim_register_sources():\n    return [source('late', factory=make)]\n",
    )
    ended = cli("plugins", "show", "late")
    assert (ended.code, ended.err) == (0, "")
    assert "    abilities   unknown: plugin late (dist-late 1.0) failed in factory: SystemExit\n" in ended.out


def test_who_installed_it_and_how(cli: Cli, installed) -> None:
    (info,) = installed.folder.glob("dist_other*.dist-info")
    (info / "INSTALLER").write_text("pip\n")
    (info / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable": true}}')
    ended = cli("plugins", "show", "other")
    assert f"  came from     {installed.folder} (editable, installed by pip)\n" in ended.out


def test_a_quarantined_plugin_has_its_reason_even_when_strict(cli: Cli, installed) -> None:
    ended = cli("plugins", "show", "broken", environ={"NIM_PLUGIN_STRICT": "1"})
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(
        "broken (dist-broken 1.0): quarantined\n"
        "  reason        cannot import installed_dist_broken_broken: ValueError: no\n"
        "  hint          upgrade, reinstall or uninstall dist-broken"
    )


def test_a_disabled_plugin_is_shown_and_not_imported(cli: Cli, installed) -> None:
    ended = cli("plugins", "show", "broken", environ={"NIM_PLUGINS_DISABLED": "broken"})
    assert ended.out.startswith("broken (dist-broken 1.0): disabled\n")
    assert f"  came from     {installed.folder}\n" in ended.out
    assert "installed_dist_broken_broken" not in sys.modules


def test_listing_is_how_one_finds_out(cli: Cli, installed) -> None:
    ended = cli("plugins", "list", "--json", environ={"NIM_PLUGIN_STRICT": "1"})
    listed = json.loads(ended.out)["plugins"]
    assert [(it["name"], it["status"]) for it in listed] == [
        ("broken", "quarantined"),
        ("other", "active"),
        ("store", "active"),
    ]


def test_an_unknown_name_is_refused_with_a_near_one(cli: Cli, installed) -> None:
    ended = cli("plugins", "show", "stor")
    assert (ended.code, ended.out) == (10, "")
    assert ended.last_line == "error: no plugin is called: stor (exit 10); hint: did you mean store?"


def test_a_name_like_no_other_lists_them(cli: Cli, installed) -> None:
    ended = cli("plugins", "show", "xyz")
    assert ended.last_line.endswith("hint: installed are: broken, other, store")
