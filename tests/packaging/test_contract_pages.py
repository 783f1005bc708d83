"""The pages of the contract are those that its source makes, and each hook's example does what its page says."""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pluggy
import pytest

from nim_core.errors import AuthenticationError, OverrideUnsupportedError
from nim_core.hookspecs import PROJECT_NAME, NimHookSpecs
from nim_core.types import (
    BearerToken,
    CredentialRequest,
    ModelUri,
    OverrideTarget,
    TransferEvent,
    UriStyle,
    Variables,
)

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
HOOKS = [name for name in vars(NimHookSpecs) if name.startswith("nim_")]
HOST = "https://models.acme.example"
URI = ModelUri(scheme="ngc", location="org/team/model", revision="1", file="config.json")


def module_of(file: Path) -> ModuleType:
    """Return a file as a module."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plugin(name: str) -> Any:
    """Return the hooks of a plugin that is one of the examples, checked against the contract as core does."""
    manager = pluggy.PluginManager(PROJECT_NAME)
    manager.add_hookspecs(NimHookSpecs)
    manager.register(module_of(ROOT / "examples" / "hooks" / f"{name}.py"))
    manager.check_pending()
    return manager.hook


def test_pages_are_up_to_date() -> None:
    made = module_of(ROOT / "docs" / "contract.py").pages()
    there = {path.relative_to(REFERENCE).as_posix() for path in REFERENCE.glob("hooks/*")}
    assert there == {name for name in made if name.startswith("hooks/")} == {f"hooks/{name}.md" for name in HOOKS}
    differing = [name for name, text in made.items() if (REFERENCE / name).read_text(encoding="utf-8") != text]
    assert differing == [], "run: python docs/contract.py docs/reference"


def test_the_suites_take_what_the_page_about_them_gives() -> None:
    page = (ROOT / "docs" / "plugins" / "kit.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"(?ms)^```python\n(.*?)^```", page):
        exec(compile(block, "kit.md", "exec"), names)
    suites = {name: each for name, each in names.items() if name.startswith("Test")}
    assert sorted(suites) == ["TestAcme", "TestBackend", "TestCredentials", "TestSink", "TestSource"]
    assert "test_what_is_missing_is_not_found" in suites["TestAcme"].set_aside
    for made in re.findall(r"(Served|Stored|ServedModel|CredentialCase)\(([^()]*)\)", page):
        given = set(re.findall(r"(\w+)=", made[1]))
        assert given <= {field.name for field in attrs.fields(names[made[0]])}, made


def test_the_kit_s_page_has_every_test() -> None:
    from nim_core.testing import conformance

    text = (REFERENCE / "kit.md").read_text(encoding="utf-8")
    suites = [getattr(conformance, name) for name in conformance.__all__ if name.endswith("Suite") and name != "Suite"]
    assert len(suites) == 5
    assert [(suite, name) for suite in suites for name in suite.cases() if f"\n| `{name}` | " not in text] == []


def test_records_tell_of_everything_that_is_exported() -> None:
    from nim_core import types

    text = (REFERENCE / "records.md").read_text(encoding="utf-8")
    assert [name for name in types.__all__ if f"\n### {name}\n" not in text] == []
    assert "| `schemes` | `tuple[str, ...]` |  | URI schemes it owns, lower case |" in text


@pytest.mark.parametrize("name", HOOKS)
def test_core_accepts_every_example(name, site) -> None:
    site.plugin("acme", (ROOT / "examples" / "hooks" / f"{name}.py").read_text(encoding="utf-8"))
    (info,) = site.load().plugins
    assert (info.status, info.reason) == ("active", None)
    assert name in info.hooks


def test_sources() -> None:
    ((spec,),) = plugin("nim_register_sources").nim_register_sources()
    assert (spec.name, spec.schemes, spec.capabilities.pins_revisions) == ("acme", ("acme",), True)
    assert [it.name for it in spec.environment if it.secret] == ["ACME_TOKEN"]


def test_sinks() -> None:
    ((spec,),) = plugin("nim_register_sinks").nim_register_sinks()
    assert (spec.name, spec.scheme) == ("depot", "depot")


def test_backends() -> None:
    ((spec,),) = plugin("nim_register_backends").nim_register_backends()
    assert (spec.name, spec.engines, spec.without_gpu) == ("bell", ("bell",), True)


def test_environment() -> None:
    ((variable,),) = plugin("nim_register_environment").nim_register_environment()
    assert Variables([variable], {}).text(variable.name) == "/run/secrets/acme/token"


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({}, "not-applicable"),
        ({"ACME_URL": "http://models.acme.example"}, "warning"),
        ({"ACME_URL": HOST}, "ok"),
    ],
)
def test_checks(environ, status) -> None:
    hooks = plugin("nim_register_checks")
    (declared,), ((check,),) = hooks.nim_register_environment(), hooks.nim_register_checks()
    assert check.run(Variables(declared, environ)).status == status


def test_credentials(tmp_path) -> None:
    hooks = plugin("nim_provide_credential")
    (declared,) = hooks.nim_register_environment()
    file = tmp_path / "token"

    def asked(endpoint: str, environ: dict[str, str]) -> object:
        variables = Variables(declared, environ)
        return hooks.nim_provide_credential(
            request=CredentialRequest(source="acme", endpoint=endpoint, variables=variables)
        )

    environ = {"ACME_TOKEN_FILE": str(file)}
    assert asked(HOST, {}) is None
    assert asked("https://elsewhere.example", environ) is None
    with pytest.raises(AuthenticationError):
        asked(HOST, environ)
    file.write_text("secret\n")
    answer = asked(HOST, environ)
    assert isinstance(answer, BearerToken)
    assert answer.token.reveal() == "secret"


def test_overrides() -> None:
    rewrite = plugin("nim_rewrite_uri").nim_rewrite_uri
    target = OverrideTarget(scheme="acme", location="mirror", key="org%2Fmodel")
    found = ModelUri(scheme="acme", location="mirror/org%2Fmodel", style=UriStyle.OBJECT)
    assert rewrite(uri=URI, override=target) == found
    assert rewrite(uri=URI, override=OverrideTarget(scheme="s3", location="b", key="k")) is None
    with pytest.raises(OverrideUnsupportedError):
        rewrite(uri=ModelUri(scheme="ngc", location="org/team/model"), override=target)


def test_events(caplog) -> None:
    told = plugin("nim_transfer_event").nim_transfer_event
    with caplog.at_level(logging.WARNING):
        told(event=TransferEvent(kind="progress", uri="u", file="a", bytes=1))
        told(event=TransferEvent(kind="retry", uri="u", file="a", host="h", reason="HTTP 503"))
    assert caplog.messages == ["retry: a from h: HTTP 503"]
