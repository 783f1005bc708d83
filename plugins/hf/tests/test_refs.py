"""Names of models as values, and their places in API and cache."""

from __future__ import annotations

import pytest
from nim_source_hf.refs import HfRef

from nim_core.errors import InvalidUriError
from nim_core.testing.harness import repository_uri
from nim_core.types import CacheKey

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def parse(text):
    return HfRef.parse(repository_uri(text))


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("hf://org/model", "org/model", "main"),
        ("hf://org/model:v1.0", "org/model", "v1.0"),
        ("hf://org/model:refs/pr/1", "org/model", "refs/pr/1"),
        ("hf://gpt2", "gpt2", "main"),
        ("hf://meta-llama/Llama-3.1-8B_x", "meta-llama/Llama-3.1-8B_x", "main"),
    ],
)
def test_models(text, repository, revision):
    ref = parse(text)
    assert (ref.repository, ref.revision) == (repository, revision)
    assert ref.page == f"https://huggingface.co/{repository}"


@pytest.mark.parametrize(
    "name", ["a/b/c", "spaces/a/b", "datasets/a/b/c", "a/b--c", "a/b..c", "a/b.git", "a/-b", "a/b c", "a/ü", "a/b."]
)
def test_not_models(name):
    with pytest.raises(InvalidUriError, match="not a name the Hub allows") as caught:
        parse(f"hf://{name}")
    assert "hf://org/model:revision" in caught.value.hint


@pytest.mark.parametrize("name", ["org/data", "squad"])
def test_datasets(name):
    ref = parse(f"hf://datasets/{name}:v1")
    assert (ref.repository, ref.dataset, ref.revision) == (name, True, "v1")
    assert ref.page == f"https://huggingface.co/datasets/{name}"
    assert ref.api("tree", COMMIT) == f"/api/datasets/{name}/tree/{COMMIT}"
    assert ref.file_path(COMMIT, "a.csv") == f"/datasets/{name}/resolve/{COMMIT}/a.csv"
    assert ref.folder == "datasets--" + name.replace("/", "--")


@pytest.mark.parametrize("revision", ["../x", "/etc/x", "a/../b", "a//b"])
def test_revisions_that_are_no_names_of_files(revision):
    with pytest.raises(InvalidUriError, match="unsafe file path"):
        parse(f"hf://org/model:{revision}")


def test_paths():
    ref = parse("hf://org/model:refs/pr/1")
    assert ref.api("revision", ref.revision) == "/api/models/org/model/revision/refs%2Fpr%2F1"
    assert ref.file_path(COMMIT, "a b/ü+&#?.txt") == f"/org/model/resolve/{COMMIT}/a%20b/%C3%BC%2B%26%23%3F.txt"


@pytest.mark.parametrize(("revision", "refs"), [(None, ("main",)), ("refs/pr/1", ("refs/pr/1",)), (COMMIT, ())])
def test_place_in_the_cache(revision, refs):
    ref = parse("hf://org/model" + (f":{revision}" if revision else ""))
    expected = CacheKey(root="huggingface/hub", repo="models--org--model", snapshot=COMMIT, refs=refs)
    assert ref.cache_key("huggingface/hub", COMMIT) == expected
