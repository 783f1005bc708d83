"""Targets of NIM_REPOSITORY_OVERRIDE, and what a file is called there."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nim_core.errors import OverrideUnsupportedError
from nim_core.override import Override, object_key, object_name, read_overrides
from nim_core.settings import Settings
from nim_core.types import ModelUri, OverrideTarget, UriStyle
from nim_core.uris import parse_uri

STYLES = {"ngc": UriStyle.REPOSITORY, "hf": UriStyle.REPOSITORY, "s3": UriStyle.OBJECT, "local": UriStyle.PATH}


def key_of(text, *, with_scheme=False):
    return object_key(parse_uri(text, STYLES), with_scheme=with_scheme)


def test_the_documented_example_to_the_letter():
    (override,) = read_overrides(["s3://nim_bucket/"])
    target = override.target(key_of("ngc://nim/meta/llama3-8b-instruct:hf?file=config.json"))
    name = object_name("", target.key)
    assert f"{target}/{name}" == "s3://nim_bucket/nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ngc://nim/meta/m:1.0+a~b?file=config.json", "nim%2Fmeta%2Fm%3A1.0%2Ba~b%3Ffile%3Dconfig.json"),
        ("ngc://nim/m:1?file=engine/rank0.engine", "nim%2Fm%3A1%3Ffile%3Dengine%2Frank0.engine"),
        ("ngc://nim/m:1?file=a b&c#d.bin", "nim%2Fm%3A1%3Ffile%3Da%20b%26c%23d.bin"),
        ("ngc://nim/m:1?file=100%25.bin", "nim%2Fm%3A1%3Ffile%3D100%2525.bin"),
        ("ngc://nim/m:1?file=données/日本.txt", "nim%2Fm%3A1%3Ffile%3Ddonn%C3%A9es%2F%E6%97%A5%E6%9C%AC.txt"),
        ("NGC://nim/m:1", "nim%2Fm%3A1"),
        ("s3://me:secret@bucket/a//b", "bucket%2Fa%2F%2Fb"),
    ],
)
def test_a_key_is_one_flat_name(text, key):
    assert key_of(text) == key
    assert key_of(text, with_scheme=True) == f"{parse_uri(text, STYLES).scheme}%3A%2F%2F{key}"


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_a_key_is_as_good_as_the_uri(file):
    uri = ModelUri(scheme="ngc", location="org/m", revision="1", file=file)
    key = object_key(uri, with_scheme=True)
    assert unquote(key) == uri.identity
    assert key.isascii()
    assert not set(key) & set("/:?=& +#")


@pytest.mark.parametrize(
    ("text", "scheme", "location", "display"),
    [
        ("s3://bucket", "s3", "bucket", "s3://bucket"),
        ("s3://bucket/prefix//", "s3", "bucket/prefix", "s3://bucket/prefix"),
        ("S3://Bucket/Prefix", "s3", "Bucket/Prefix", "s3://Bucket/Prefix"),
        ("https://u:p%40w@host:8443/models/", "https", "u:p%40w@host:8443/models", "https://host:8443/models"),
        ("https://host/c?sig=abc&x=1", "https", "host/c?sig=abc&x=1", "https://host/c?sig=***&x=1"),
        ("ngc://repo.example.com/artifactory", "ngc", "repo.example.com/artifactory", "ngc://repo.example.com/artifactory"),
    ],
)  # fmt: skip
def test_a_target(text, scheme, location, display):
    (override,) = read_overrides([text])
    assert override == Override(scheme=scheme, location=location)
    assert override.display == override.target("k").display == display
    assert override.target("k") == OverrideTarget(scheme=scheme, location=location, key="k")


@pytest.mark.parametrize("text", ["bucket", "s3://", "s3:///", "s3:///bucket", "/models", "secret@host", "1s3://b"])
def test_what_is_no_target(text):
    with pytest.raises(OverrideUnsupportedError, match="not a target in NIM_REPOSITORY_OVERRIDE") as caught:
        read_overrides([text])
    assert "secret" not in str(caught.value)
    assert "several separated by commas" in caught.value.hint


def test_several_in_one_variable():
    settings = Settings({"NIM_REPOSITORY_OVERRIDE": " s3://a/ , ,https://b,", "NIM_REPOSITORY_OVERRIDE_SCHEMES": ""})
    assert [it.display for it in read_overrides(settings.repository_overrides)] == ["s3://a", "https://b"]
    assert settings.overridden_schemes is None
