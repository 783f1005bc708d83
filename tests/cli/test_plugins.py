from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from nim_core.cli.plugins import as_record, plugins_as_text
from nim_core.cli.session import Session
from nim_core.errors import PluginLoadError
from nim_core.registry import PluginInfo
from nim_core.types import BackendSpec, Capabilities, EnvVar, SinkSpec, SourceSpec, UriStyle

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

SOURCE = SourceSpec(
    name="store",
    schemes=("store", "stores"),
    uri_style=UriStyle.REPOSITORY,
    summary="a store",
    factory=lambda _context: None,  # type: ignore[arg-type, return-value]
    capabilities=Capabilities(pins_revisions=True, overridable=True),
    environment=(EnvVar(name="STORE_KEY", summary="", secret=True),),
)
PLUGINS = (
    PluginInfo(
        name="store",
        distribution="nim-source-store",
        version="1.2.3",
        sources=(SOURCE,),
        sinks=(SinkSpec(name="store", summary="", scheme="store", factory=lambda _context: None),),  # type: ignore[arg-type, return-value]
        backends=(BackendSpec(name="fast", summary="", factory=lambda _variables: None),),  # type: ignore[arg-type, return-value]
        hooks=("nim_provide_credential", "nim_register_sources", "nim_rewrite_uri"),
    ),
    PluginInfo(
        name="odd",
        distribution="nim-odd",
        version="0.1",
        status="quarantined",
        error=PluginLoadError("cannot import nim_odd: \x1b[31mhunter22", hint="reinstall nim-odd"),
    ),
    PluginInfo(
        name="off",
        distribution="nim-off",
        version="2",
        status="disabled",
        error=PluginLoadError("named in NIM_PLUGINS_DISABLED"),
    ),
)


class FakeRegistry:
    """Three plugins, of which one works."""

    plugins = PLUGINS


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nim_core.registry.load_registry", lambda _settings: FakeRegistry())


ABILITIES = "overridable, pins-revisions, credentials, override-target, sink store, backend fast"
TABLE = f"""\
NAME   DISTRIBUTION      VERSION  STATUS       SCHEMES        CAPABILITIES
store  nim-source-store  1.2.3    active       store, stores  {ABILITIES}
odd    nim-odd           0.1      quarantined  -              -
    reason: cannot import nim_odd: \\x1b[31m***
    hint: reinstall nim-odd
off    nim-off           2        disabled     -              -
    reason: named in NIM_PLUGINS_DISABLED
"""


def test_the_list(cli: Cli) -> None:
    ended = cli("plugins", "list", environ={"STORE_KEY": "hunter22"})
    assert (ended.code, ended.out, ended.err) == (0, TABLE, "")


def test_the_list_as_json(cli: Cli) -> None:
    ended = cli("plugins", "list", "--json", environ={"STORE_KEY": "hunter22"})
    store, odd, off = json.loads(ended.out)["plugins"]
    assert store == as_record(PLUGINS[0])
    assert (odd["status"], odd["reason"], odd["hint"]) == (
        "quarantined",
        "cannot import nim_odd: \x1b[31m***",
        "reinstall nim-odd",
    )
    assert (off["status"], off["hint"]) == ("disabled", None)


def test_no_plugins() -> None:
    assert plugins_as_text([]) == "no plugins installed"


def test_a_session_hides_what_plugins_call_secret() -> None:
    from nim_core.settings import Settings

    session = Session(Settings({"STORE_KEY": "hunter22"}))
    assert session.redactor.text("hunter22") == "hunter22"
    session.load_registry()
    assert session.redactor.text("hunter22") == "***"
