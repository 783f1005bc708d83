"""What the plugin declares, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from nim_source_gcs import plugin
from nim_source_gcs.credentials import ENVIRONMENT, endpoint

from nim_core.errors import ConfigError, OverrideUnsupportedError
from nim_core.hookspecs import PROJECT_NAME
from nim_core.types import (
    Ambient,
    Anonymous,
    CachePlacement,
    CopyingSink,
    CredentialRequest,
    ModelUri,
    OverrideTarget,
    PartedSink,
    UriStyle,
    Variables,
)

NGC = ModelUri(scheme="ngc", location="nim/meta/llama3-8b-instruct", revision="hf", file="config.json")
KEY = "nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json"


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


def test_declares_one_sink_that_reads_the_same_variables():
    [spec] = plugin.nim_register_sinks()
    assert (spec.name, spec.scheme, spec.environment) == ("gcs", "gs", ENVIRONMENT)


def test_the_sink_writes_in_parts_and_copies(open_sink):
    sink = open_sink({})
    assert isinstance(sink, PartedSink)
    assert isinstance(sink, CopyingSink)


@pytest.mark.parametrize(
    ("place", "key", "location"),
    [
        ("nim_bucket", KEY, f"nim_bucket/{KEY}"),
        ("models/a/b", KEY, f"models/a/b/{KEY}"),
        ("models.example.com", "hf%3A%2F%2Fa%2Fb", "models.example.com/hf%3A%2F%2Fa%2Fb"),
        ("models/%2F a", "%25", "models/%2F a/%25"),
    ],
)
def test_a_mirrors_key_is_taken_to_the_letter(place, key, location):
    override = OverrideTarget(scheme="gs", location=place, key=key)
    assert plugin.nim_rewrite_uri(NGC, override) == ModelUri(scheme="gs", location=location, style=UriStyle.OBJECT)


@pytest.mark.parametrize("scheme", ["s3", "https", "gcs", "gs2"])
def test_other_targets_are_left_to_others(scheme):
    assert plugin.nim_rewrite_uri(NGC, OverrideTarget(scheme=scheme, location="models", key=KEY)) is None


@pytest.mark.parametrize("place", ["B", "ab", "bücket/x", "a b", "user:hunter2@models"])
def test_targets_that_are_no_buckets_are_refused(place):
    with pytest.raises(OverrideUnsupportedError, match="not a bucket") as caught:
        plugin.nim_rewrite_uri(NGC, OverrideTarget(scheme="gs", location=place, key=KEY))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        ModelUri(scheme="hf", location="org/name", revision="main"),
        ModelUri(scheme="local", location="/models/llama", style=UriStyle.PATH),
    ],
)
def test_a_whole_repository_has_no_key(uri):
    with pytest.raises(OverrideUnsupportedError, match="files and no repositories") as caught:
        plugin.nim_rewrite_uri(uri, OverrideTarget(scheme="gs", location="models", key="x"))
    assert "--manifest-file" in caught.value.hint


def test_an_object_has_a_key():
    uri = ModelUri(scheme="s3", location="bucket/x", style=UriStyle.OBJECT)
    override = OverrideTarget(scheme="gs", location="models", key="s3%3A%2F%2Fbucket%2Fx")
    assert plugin.nim_rewrite_uri(uri, override).location == "models/s3%3A%2F%2Fbucket%2Fx"


def test_rewriting_hook_answers_last():
    assert getattr(plugin.nim_rewrite_uri, f"{PROJECT_NAME}_impl")["trylast"] is True


def test_source_places_its_files_in_the_cache(source):
    assert isinstance(source, CachePlacement)


def test_declaring_and_making_source_and_sink_imports_none_of_googles_libraries():
    code = (
        "import sys, nim_source_gcs.plugin, nim_source_gcs.source, nim_source_gcs.sink\n"
        "[source] = nim_source_gcs.plugin.nim_register_sources()\n"
        "[sink] = nim_source_gcs.plugin.nim_register_sinks()\n"
        "from nim_core.types import SinkContext, SourceContext, Variables\n"
        "variables = Variables(source.environment, {})\n"
        "source.factory(SourceContext(http=None, variables=variables, credential=None))\n"
        "sink.factory(SinkContext(bucket='models', http=None, variables=variables, credential=None, send=None))\n"
        "print([name for name in ('google.auth', 'google.cloud', 'requests', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
