"""What the plugin declares, and what importing it costs."""

from __future__ import annotations

from nim_source_ngc import plugin
from nim_source_ngc.credentials import ENVIRONMENT

from nim_core.hookspecs import PROJECT_NAME
from nim_core.types import Anonymous, BearerToken, CachePlacement, CredentialRequest, UriStyle, Variables


def request(source, **environment):
    variables = Variables(ENVIRONMENT, environment)
    return CredentialRequest(source=source, endpoint="https://api.example.test", variables=variables)


def test_declares_one_source():
    [spec] = plugin.nim_register_sources()
    assert (spec.name, spec.schemes, spec.uri_style) == ("ngc", ("ngc",), UriStyle.REPOSITORY)
    assert (spec.capabilities.overridable, spec.capabilities.pins_revisions) == (True, True)


def test_declares_its_variables_in_priority_order():
    [spec] = plugin.nim_register_sources()
    assert [(variable.name, variable.kind, variable.secret) for variable in spec.environment] == [
        ("NGC_CLI_API_KEY", "text", True),
        ("NGC_API_KEY", "text", True),
        ("NGC_CLI_HOME", "path", False),
        ("NGC_API_ENDPOINT", "url", False),
        ("NGC_AUTH_ENDPOINT", "url", False),
        ("NGC_API_SCHEME", "text", False),
    ]


def test_credential_hook_answers_for_ngc_only_and_last():
    assert plugin.nim_provide_credential(request("hf", NGC_API_KEY="nvapi-1")) is None
    assert plugin.nim_provide_credential(request("ngc", NGC_API_KEY="nvapi-1")) == BearerToken(
        token="nvapi-1", origin="NGC_API_KEY"
    )
    assert plugin.nim_provide_credential(request("ngc")) == Anonymous()
    assert getattr(plugin.nim_provide_credential, f"{PROJECT_NAME}_impl")["trylast"] is True


def test_source_places_its_files_in_the_cache(source):
    assert isinstance(source, CachePlacement)
