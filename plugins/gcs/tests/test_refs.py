"""``gs://`` URIs as references, addresses and places."""

from __future__ import annotations

import pytest
from nim_source_gcs.refs import GcsRef

from nim_core.errors import InvalidUriError
from nim_core.types import ModelUri, UriStyle


def ref(text):
    return GcsRef.parse(ModelUri(scheme="gs", location=text, style=UriStyle.OBJECT))


@pytest.mark.parametrize(
    ("text", "bucket", "key", "prefix"),
    [
        ("my-bucket", "my-bucket", "", ""),
        ("my-bucket/", "my-bucket", "", ""),
        ("models.example.com/a/b", "models.example.com", "a/b", "a/b/"),
        ("my_bucket/a/b/", "my_bucket", "a/b/", "a/b/"),
        ("bucket/nim%2Fm%3Av?file=x#y z", "bucket", "nim%2Fm%3Av?file=x#y z", "nim%2Fm%3Av?file=x#y z/"),
    ],
)
def test_everything_after_the_bucket_is_literal(text, bucket, key, prefix):
    found = ref(text)
    assert (found.bucket, found.key, found.prefix) == (bucket, key, prefix)
    assert found.is_prefix == (not key or key.endswith("/"))


@pytest.mark.parametrize(
    "text", ["B/x", "ab/x", "-ab/x", "a..b@c/x", "bucket:1/x", "bücket/x", "a?b/x", "user:pw@host/x"]
)
def test_what_is_no_bucket_is_refused(text):
    with pytest.raises(InvalidUriError, match="not a bucket") as caught:
        ref(text)
    assert "pw" not in str(caught.value)
    assert "gs://BUCKET/KEY" in caught.value.hint


def test_a_key_is_encoded_once_for_the_wire():
    path = ref("models/nim%2Fü a/b?c").media_path(17)
    assert path == "/download/storage/v1/b/models/o/nim%252F%C3%BC%20a%2Fb%3Fc?generation=17&alt=media"


@pytest.mark.parametrize(
    ("text", "name"),
    [("bucket/a/config.json", "config.json"), ("bucket/nim%2Fx", "nim%2Fx"), ("bucket/model:v", "model:v")],
)
def test_a_file_is_called_by_the_last_part_of_its_key(text, name):
    assert ref(text).name == name


@pytest.mark.parametrize("last", ["..", "NUL", "a\\b", "x" * 256])
def test_a_key_that_ends_in_no_file_name_gets_one(last):
    names = {ref(f"bucket/{folder}/{last}").name for folder in "ab"}
    assert len(names) == 2
    assert all(len(name) == 64 for name in names)


def test_folders_never_share_a_place_in_the_cache():
    texts = [
        "bucket/a",
        "bucket/a/",
        "bucket/a--b/",
        "bucket/a/b/",
        "bucket/a-/-b/",
        "bucket/a/-/b/",
        "bucket--a/",
        "c/x",
    ]
    texts += [f"bucket/{'long' * 60}/{end}/" for end in "ab"]
    keys = [ref(text if text != "c/x" else "ccc/x").cache_key for text in texts]
    assert len({key.repo for key in keys}) == len(texts)
    assert {key.root for key in keys} == {"gcs/hub"}
    assert {key.snapshot for key in keys} == {"current"}
    assert max(len(key.repo) for key in keys) < 255


def test_files_of_one_folder_share_it():
    assert ref("bucket/a/x").cache_key == ref("bucket/a/y").cache_key == ref("bucket/a/").cache_key
