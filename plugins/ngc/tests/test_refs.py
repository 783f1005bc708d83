"""URIs as NGC's names."""

from __future__ import annotations

import pytest
from nim_source_ngc.refs import NgcRef

from nim_core.errors import InvalidUriError
from nim_core.testing.harness import repository_uri
from nim_core.types import CacheKey


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ngc://nim/meta/llama3-8b-instruct:hf", ("nim", "meta", "llama3-8b-instruct", "hf")),
        ("ngc://nim/meta/llama3-8b-instruct:hf?file=a/b.json", ("nim", "meta", "llama3-8b-instruct", "hf")),
        ("ngc://nvidia/bert:1.0", ("nvidia", None, "bert", "1.0")),
        ("ngc://nvidia/no-team/bert:1.0", ("nvidia", None, "bert", "1.0")),
        ("ngc://nvidia/bert", ("nvidia", None, "bert", None)),
        ("ngc://o/t/m:0.11.1+ba2~1-l40s", ("o", "t", "m", "0.11.1+ba2~1-l40s")),
    ],
)
def test_reads_the_forms_ngc_has(text, expected):
    ref = NgcRef.parse(repository_uri(text))
    assert (ref.org, ref.team, ref.model, ref.version) == expected


@pytest.mark.parametrize(
    "text",
    [
        "ngc://org/team/model/engine.bin",
        "ngc://model:1.0",
        "ngc://org//model:1.0",
        "ngc://org/../model:1.0",
        "ngc://org/model:..",
        "ngc://org/model:1/2",
        "ngc://org/mo del:1",
        "ngc://org/mo%64el:1",
        "ngc://org/model#x:1",
    ],
)
def test_refuses_other_shapes_and_says_the_right_one(text):
    with pytest.raises(InvalidUriError) as caught:
        NgcRef.parse(repository_uri(text))
    assert "ngc://org/team/model:version?file=path" in caught.value.hint


def test_cache_key_has_org_team_and_model(source):
    with_team = repository_uri("ngc://nim/meta/llama:hf-1?file=config.json")
    assert source.cache_key(with_team, None) == CacheKey(
        root="ngc/hub", repo="models--nim--meta--llama", snapshot="hf-1"
    )
    without = repository_uri("ngc://nvidia/bert")
    assert source.cache_key(without, "7") == CacheKey(root="ngc/hub", repo="models--nvidia--bert", snapshot="7")
    with pytest.raises(InvalidUriError, match="no version"):
        source.cache_key(without, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ngc://o/t/m:1+2", "https://catalog.ngc.nvidia.com/orgs/o/teams/t/models/m?version=1%2B2"),
        ("ngc://o/m", "https://catalog.ngc.nvidia.com/orgs/o/models/m"),
    ],
)
def test_catalogue_address(text, expected):
    assert NgcRef.parse(repository_uri(text)).catalogue_url == expected
