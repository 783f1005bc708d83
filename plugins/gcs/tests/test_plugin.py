"""What the plugin declares, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from nim_source_gcs import plugin
from nim_source_gcs.credentials import ENVIRONMENT, endpoint

from nim_core.errors import ConfigError
from nim_core.hookspecs import PROJECT_NAME
from nim_core.types import Ambient, Anonymous, CachePlacement, CredentialRequest, UriStyle, Variables


def request(source, **environment):
    variables = Variables(ENVIRONMENT, environment)
    return CredentialRequest(source=source, endpoint="https://storage.example.test", variables=variables)


def test_declares_one_source():
    [spec] = plugin.nim_register_sources()
    assert (spec.name, spec.schemes, spec.uri_style) == ("gcs", ("gs",), UriStyle.OBJECT)
    assert (spec.capabilities.overridable, spec.capabilities.pins_revisions) == (False, False)


def test_declares_its_variables_in_priority_order():
    [spec] = plugin.nim_register_sources()
    assert [(variable.name, variable.kind) for variable in spec.environment] == [
        ("GOOGLE_APPLICATION_CREDENTIALS", "path"),
        ("CLOUDSDK_CONFIG", "path"),
        ("GCE_METADATA_HOST", "text"),
        ("NO_GCE_CHECK", "text"),
        ("GOOGLE_CLOUD_QUOTA_PROJECT", "text"),
        ("STORAGE_EMULATOR_HOST", "url"),
        ("API_ENDPOINT_OVERRIDE", "url"),
    ]


def test_credential_hook_answers_for_gcs_only_and_last():
    assert plugin.nim_provide_credential(request("s3")) is None
    assert isinstance(plugin.nim_provide_credential(request("gcs")), Ambient)
    assert isinstance(plugin.nim_provide_credential(request("gcs", STORAGE_EMULATOR_HOST="h:1")), Anonymous)
    assert getattr(plugin.nim_provide_credential, f"{PROJECT_NAME}_impl")["trylast"] is True


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "https://storage.googleapis.com"),
        ({"API_ENDPOINT_OVERRIDE": "https://storage-x.p.googleapis.com/"}, "https://storage-x.p.googleapis.com"),
        ({"API_ENDPOINT_OVERRIDE": "storage-x.p.googleapis.com"}, "https://storage-x.p.googleapis.com"),
        ({"STORAGE_EMULATOR_HOST": "localhost:4443", "API_ENDPOINT_OVERRIDE": "https://x"}, "http://localhost:4443"),
        ({"STORAGE_EMULATOR_HOST": "http://[::1]:4443"}, "http://[::1]:4443"),
    ],
)
def test_the_emulator_wins_over_the_endpoint(environment, url):
    assert endpoint(Variables(ENVIRONMENT, environment)) == url


@pytest.mark.parametrize("text", ["ftp://x", "https://u:hunter2@x", "https://x/storage/v1", "a b"])
def test_what_is_no_endpoint_is_refused_by_its_variable(text):
    with pytest.raises(ConfigError, match="API_ENDPOINT_OVERRIDE") as caught:
        endpoint(Variables(ENVIRONMENT, {"API_ENDPOINT_OVERRIDE": text}))
    assert "hunter2" not in str(caught.value)


def test_source_places_its_files_in_the_cache(source):
    assert isinstance(source, CachePlacement)


def test_declaring_and_making_a_source_imports_none_of_googles_libraries():
    code = (
        "import sys, nim_source_gcs.plugin, nim_source_gcs.source\n"
        "[spec] = nim_source_gcs.plugin.nim_register_sources()\n"
        "from nim_core.types import SourceContext, Variables\n"
        "variables = Variables(spec.environment, {})\n"
        "spec.factory(SourceContext(http=None, variables=variables, credential=None))\n"
        "print([name for name in ('google.auth', 'google.cloud', 'requests', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
