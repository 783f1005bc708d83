"""URIs as references, and their places in API and cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from nim_source_modelscope.refs import ModelScopeRef

from nim_core.errors import ConfigError, InvalidUriError
from nim_core.testing.harness import repository_uri

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def ref(text):
    return ModelScopeRef.parse(repository_uri(text))


def test_master_is_the_default_branch():
    assert ref("modelscope://Qwen/Qwen2.5-7B") == ModelScopeRef(org="Qwen", model="Qwen2.5-7B", revision="master")
    assert str(ref("modelscope://Qwen/Qwen2.5-7B:v1/x")) == "Qwen/Qwen2.5-7B:v1/x"


@pytest.mark.parametrize(
    "text",
    ["modelscope://a", "modelscope://a/b/c", "modelscope://a/b c", "modelscope://a/-b", "modelscope://a/b:../c"],
)
def test_what_is_no_model_is_refused(text):
    with pytest.raises(InvalidUriError):
        ref(text)


@pytest.mark.parametrize(
    ("revision", "commit"), [(COMMIT, COMMIT), (COMMIT[:8], None), ("master", None), (COMMIT.upper(), None)]
)
def test_only_a_whole_commit_id_pins(revision, commit):
    assert ref(f"modelscope://a/b:{revision}").commit == commit


def test_paths_of_the_api():
    found = ref("modelscope://a/b:v 1/ü")
    assert found.listing_path(None, recursive=True) == (
        "/api/v1/models/a/b/repo/files?Revision=v+1%2F%C3%BC&Recursive=True"
    )
    assert found.listing_path("x/y", recursive=False).endswith("&Recursive=False&Root=x%2Fy")
    assert found.file_path("x/a b+c#d&e.bin").endswith("&FilePath=x%2Fa+b%2Bc%23d%26e.bin")


@pytest.mark.parametrize(
    ("endpoint", "page"),
    [
        ("https://modelscope.cn", "https://modelscope.cn/models/a/b"),
        ("https://www.modelscope.ai", "https://www.modelscope.ai/models/a/b"),
        ("http://proxy.example.com:8080/ms", "https://modelscope.cn/models/a/b"),
        ("https://modelscope.cn.example.com", "https://modelscope.cn/models/a/b"),
    ],
)
def test_the_page_is_one_that_a_person_can_visit(endpoint, page):
    assert ref("modelscope://a/b").page(endpoint) == page


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ({}, "modelscope/models"),
        ({"MODELSCOPE_CACHE": ""}, "modelscope/models"),
        ({"MODELSCOPE_CACHE": "/data/ms"}, "/data/ms/models"),
        ({"MODELSCOPE_CACHE": "~/ms"}, "/home/someone/ms/models"),
        ({"MODELSCOPE_CACHE": "ms"}, str(Path("ms/models").absolute())),
    ],
)
def test_place_in_the_cache(open_source, monkeypatch, environment, root):
    monkeypatch.setenv("HOME", "/home/someone")
    key = open_source(environment).cache_key(repository_uri("modelscope://a/b:v1"), None)
    assert (key.root, key.repo, key.snapshot, key.refs) == (root, "a--b", "v1", ())


def test_the_place_does_not_depend_on_what_a_listing_pins(source):
    uri = repository_uri("modelscope://a/b")
    assert source.cache_key(uri, COMMIT) == source.cache_key(uri, None)
    assert source.cache_key(uri, None).snapshot == "master"


def test_a_cache_folder_of_nobody_is_a_setting_that_cannot_work(open_source):
    with pytest.raises(ConfigError, match="MODELSCOPE_CACHE"):
        open_source({"MODELSCOPE_CACHE": "~nobody-of-that-name/x"}).cache_key(repository_uri("modelscope://a/b"), None)
