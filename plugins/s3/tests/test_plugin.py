"""What the plugin declares and rewrites, and what importing it costs."""

from __future__ import annotations

import pytest
from nim_source_s3 import plugin
from nim_source_s3.credentials import ENVIRONMENT
from nim_source_s3.source import S3Source

from nim_core.errors import ConfigError, OverrideUnsupportedError
from nim_core.hookspecs import PROJECT_NAME
from nim_core.testing.harness import object_uri, repository_uri, source_context
from nim_core.types import (
    Ambient,
    Anonymous,
    Capabilities,
    CredentialRequest,
    KeyPair,
    ModelUri,
    OverrideTarget,
    Secret,
    UriStyle,
    Variables,
)


def request(source, **environment):
    variables = Variables(ENVIRONMENT, environment)
    return CredentialRequest(source=source, endpoint="https://s3.example", variables=variables)


def test_declares_one_source():
    [spec] = plugin.nim_register_sources()
    assert (spec.name, spec.schemes, spec.uri_style) == ("s3", ("s3",), UriStyle.OBJECT)
    assert spec.capabilities == Capabilities()


def test_declares_its_variables_in_priority_order():
    [spec] = plugin.nim_register_sources()
    assert [(variable.name, variable.kind) for variable in spec.environment] == [
        ("AWS_NO_SIGN_REQUEST", "flag"),
        ("AWS_ACCESS_KEY_ID", "text"),
        ("AWS_SECRET_ACCESS_KEY", "text"),
        ("AWS_SESSION_TOKEN", "text"),
        ("AWS_PROFILE", "text"),
        ("AWS_REGION", "text"),
        ("AWS_DEFAULT_REGION", "text"),
        ("AWS_ENDPOINT_URL_S3", "url"),
        ("AWS_ENDPOINT_URL", "url"),
        ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "flag"),
        ("AWS_S3_USE_PATH_STYLE", "flag"),
        ("AWS_S3_ADDRESSING_STYLE", "text"),
        ("AWS_REQUEST_PAYER", "text"),
        ("AWS_CA_BUNDLE", "path"),
    ]
    assert {variable.name for variable in spec.environment if variable.secret} == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    }


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Ambient(origin="the AWS credential chain")),
        ({"AWS_PROFILE": "site"}, Ambient(origin="AWS_PROFILE")),
        ({"AWS_NO_SIGN_REQUEST": "1", "AWS_PROFILE": "site"}, Anonymous(origin="AWS_NO_SIGN_REQUEST")),
        (
            {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "AWS_PROFILE": "x"},
            KeyPair(access_key="AKIA", secret_key="s", session_token=Secret("t"), origin="AWS_ACCESS_KEY_ID"),
        ),
    ],
)
def test_credentials(environment, expected):
    assert plugin.nim_provide_credential(request("s3", **environment)) == expected


def test_credential_hook_answers_for_s3_only_and_last():
    assert plugin.nim_provide_credential(request("gcs", AWS_ACCESS_KEY_ID="AKIA")) is None
    assert getattr(plugin.nim_provide_credential, f"{PROJECT_NAME}_impl")["trylast"] is True


def test_somebody_who_cannot_pay():
    [spec] = plugin.nim_register_sources()
    with (
        source_context(spec, {"AWS_REQUEST_PAYER": "me"}) as context,
        pytest.raises(ConfigError, match="no such payer: me") as caught,
    ):
        S3Source(context)
    assert "AWS_REQUEST_PAYER" in caught.value.hint


def test_declares_one_sink():
    [spec], [source] = plugin.nim_register_sinks(), plugin.nim_register_sources()
    assert (spec.name, spec.scheme, spec.environment) == ("s3", "s3", source.environment)


# ------------------------------------------------------------------------------------------------------------ overrides
LLAMA = repository_uri("ngc://nim/meta/llama3-8b-instruct:hf?file=config.json")
KEY = "nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json"


def rewritten(uri, location, key=KEY, scheme="s3"):
    answer = plugin.nim_rewrite_uri(uri, OverrideTarget(scheme=scheme, location=location, key=key))
    return None if answer is None else str(answer)


@pytest.mark.parametrize(
    ("uri", "location", "key", "expected"),
    [
        (LLAMA, "nim_bucket", KEY, f"s3://nim_bucket/{KEY}"),
        (LLAMA, "bucket/a/b%2F", KEY, f"s3://bucket/a/b%2F/{KEY}"),
        (object_uri("hf://x/y"), "bucket", "hf%3A%2F%2Fx%2Fy", "s3://bucket/hf%3A%2F%2Fx%2Fy"),
        (LLAMA, "bucket/with blank", "k%C3%A9", "s3://bucket/with blank/k%C3%A9"),
    ],
)
def test_rewriting(uri, location, key, expected):
    assert rewritten(uri, location, key) == expected


def test_a_rewritten_uri_is_an_object():
    answer = plugin.nim_rewrite_uri(LLAMA, OverrideTarget(scheme="s3", location="bucket", key=KEY))
    assert answer == ModelUri(scheme="s3", location=f"bucket/{KEY}", style=UriStyle.OBJECT)


def test_other_targets_are_others():
    assert rewritten(LLAMA, "bucket", scheme="gs") is None
    assert getattr(plugin.nim_rewrite_uri, f"{PROJECT_NAME}_impl")["trylast"] is True


@pytest.mark.parametrize(
    "uri",
    [repository_uri("ngc://nim/meta/llama:hf"), ModelUri(scheme="local", location="/models", style=UriStyle.PATH)],
    ids=["repository", "folder"],
)
def test_a_bucket_of_objects_cannot_be_listed_as_a_repository(uri):
    with pytest.raises(OverrideUnsupportedError, match="cannot list the files of") as caught:
        rewritten(uri, "bucket")
    assert "--manifest-file" in caught.value.hint


@pytest.mark.parametrize("location", ["-", "a b", "user:hunter2@bucket", "b*cket/prefix"])
def test_targets_that_are_no_bucket(location):
    with pytest.raises(OverrideUnsupportedError, match="not a name of a bucket") as caught:
        rewritten(LLAMA, location)
    assert "NIM_REPOSITORY_OVERRIDE" in caught.value.hint
    assert "hunter2" not in str(caught.value)
