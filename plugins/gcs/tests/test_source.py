"""What is listed and where it is said to be, by a real server."""

from __future__ import annotations

import pytest
from attrs import evolve

from nim_core.errors import (
    AuthenticationError,
    InvalidUriError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RemoteChangedError,
    SourceError,
    TransientError,
)
from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.faults import answer_with, html_error
from nim_core.testing.gcs_server import api_refusal
from nim_core.testing.harness import ControlClient
from nim_core.testing.http_server import json_response
from nim_core.types import ModelUri, RemoteFile, UriStyle

LISTED = [
    "a folder/ü & co+.bin",
    "config.json",
    "empty",
    "nim%2Fmeta%2Fllama%3Ahf%3Ffile%3Dconfig.json",
    "weights.bin",
]


def gs(text):
    return ModelUri(scheme="gs", location=text, style=UriStyle.OBJECT)


def fetched(location):
    headers = {name: value.reveal() for name, value in location.headers}
    with ControlClient() as client:
        response = client.get(location.url.reveal(), headers=headers)
    assert response.status_code == 200
    return response.content


@pytest.mark.parametrize("place", ["models/llama/", "models/llama"])
def test_a_prefix_lists_what_is_below_it(source, model, place):
    listing = source.list_files(gs(place))
    assert sorted(file.path for file in listing.files) == LISTED
    assert listing.pinned is None


def test_the_whole_bucket_is_a_prefix(source, model):
    paths = {file.path for file in source.list_files(gs("models")).files}
    assert paths == {f"llama/{path}" for path in LISTED} | {"llama-2/config.json"}


def test_size_and_both_digests_are_the_servers(source, gcs_server):
    content = PatternContent(length=70_000)
    gcs_server.put("models", "x.bin", content)
    [file] = source.list_files(gs("models/x.bin")).files
    digests = (content.digest("md5"), content.digest("crc32c"))
    assert file == RemoteFile(path="x.bin", size=70_000, digests=digests)


def test_every_listed_file_can_be_had(source, model, files):
    uri = gs("models/llama/")
    assert {file.path: fetched(source.locate(uri, file)) for file in source.list_files(uri).files} == {
        path: content.data() for path, content in files.items()
    }


@pytest.mark.parametrize("key", ["a//b", "nim%2Fa%3Ab", "+ &=#?;@:$,'()*~!", "ü/日本語.bin", "%25%2f", "a b/c\u00a0d"])
def test_keys_are_literal(source, gcs_server, key):
    gcs_server.put("models", key, inline(key))
    uri = gs(f"models/{key}")
    [file] = source.list_files(uri).files
    assert fetched(source.locate(uri, file)).decode() == key


def test_an_object_wins_over_a_prefix_of_its_name(source, gcs_server):
    gcs_server.put("models", "x", inline("object"))
    gcs_server.put("models", "x/x", inline("below"))
    [file] = source.list_files(gs("models/x")).files
    assert fetched(source.locate(gs("models/x"), file)) == b"object"
    [file] = source.list_files(gs("models/x/")).files
    assert (file.path, fetched(source.locate(gs("models/x/"), file))) == ("x", b"below")


def test_many_objects_come_in_pages(source, gcs_server):
    names = {f"{number:04}" for number in range(25)}
    for name in names:
        gcs_server.put("models", f"many/{name}", inline(name))

    gcs_server.page_size = 10
    paths = {file.path for file in source.list_files(gs("models/many/")).files}
    assert paths == names
    assert gcs_server.log.count(route="list") == 3


def test_objects_of_a_listing_are_not_asked_for_again(source, model):
    files = source.list_files(gs("models/llama/")).files
    for file in files:
        uri = gs(f"models/llama/{file.path}")
        [same] = source.list_files(uri).files
        assert evolve(same, path=file.path) == file
        source.locate(uri, same)
    assert [exchange.route for exchange in model.log] == ["list"]


def test_a_name_that_is_not_safe_ends_the_listing(source, gcs_server):
    gcs_server.put("models", "p/../../etc/passwd", inline("x"))
    with pytest.raises(InvalidUriError, match="unsafe file path"):
        source.list_files(gs("models/p/"))


def test_composite_objects_have_a_crc_alone(source, gcs_server):
    content = PatternContent(length=200_000)
    gcs_server.compose("models", "whole.bin", [content.read(0, 90_000), content.read(90_000, 200_000)])
    uri = gs("models/whole.bin")
    [file] = source.list_files(uri).files
    assert file.digests == (content.digest("crc32c"),)
    assert fetched(source.locate(uri, file)) == content.data()


def labelled(signed_in, server, key, data, **metadata):
    blob = signed_in(server).bucket("models").blob(key)
    blob.metadata = metadata
    blob.upload_from_string(data)


def test_digests_that_a_mirror_stored_are_told_too(source, gcs_server, signed_in):
    gcs_server.make_bucket("models")
    content = inline("x")
    stored = f"{content.digest('blake3')},{content.digest('sha256')},crc32c:00000000"
    labelled(signed_in, gcs_server, "p/x", content.data(), **{"nim-digests": stored, "owner": "me"})
    digests = {content.digest(name) for name in ("blake3", "sha256", "md5", "crc32c")}
    for place in ("models/p/x", "models/p/"):
        [file] = source.list_files(gs(place)).files
        assert set(file.digests) == digests


@pytest.mark.parametrize("text", ["", "sha256", "sha256:12", "sha1024:00", "blake3:" + "0" * 64 + ",md4:00"])
def test_digests_that_somebody_made_up_are_ignored(source, gcs_server, signed_in, text):
    gcs_server.make_bucket("models")
    labelled(signed_in, gcs_server, "x", b"x", **{"nim-digests": text})
    [file] = source.list_files(gs("models/x")).files
    assert {digest.algorithm for digest in file.digests} == {"md5", "crc32c"}


def test_what_is_stored_compressed_promises_nothing(source, gcs_server):
    gcs_server.put("models", "x.json", inline(b"\x1f\x8b"), encoding="gzip")
    uri = gs("models/x.json")
    [file] = source.list_files(uri).files
    assert (file.size, file.digests) == (None, ())
    assert source.locate(uri, file).ranges is False


# ------------------------------------------------------------------------------------------------------- generations
def test_the_url_names_the_generation_that_was_listed(source, gcs_server):
    generation = gcs_server.put("models", "x", inline("first"))
    uri = gs("models/x")
    [file] = source.list_files(uri).files
    gcs_server.put("models", "x", inline("second"))
    url = source.locate(uri, file).url.reveal()
    assert url == f"{gcs_server.url}/download/storage/v1/b/models/o/x?generation={generation}&alt=media"
    with ControlClient() as client:
        assert client.get(url).status_code == 401


def test_an_object_that_was_replaced_is_named_when_its_url_is_refused(source, gcs_server):
    gcs_server.put("models", "x", inline("first"))
    uri = gs("models/x")
    [file] = source.list_files(uri).files
    source.locate(uri, file)
    gcs_server.put("models", "x", inline("second"))
    with pytest.raises(RemoteChangedError, match="gs://models/x"):
        source.locate(uri, file)


# ------------------------------------------------------------------------------------------------------------ refusals
def test_missing_buckets_and_missing_objects_are_told_apart(source, model):
    for place in ("nowhere/x", "nowhere/x/", "nowhere"):
        with pytest.raises(NotFoundError, match="no such bucket: gs://nowhere"):
            source.list_files(gs(place))
    for place in ("models/none", "models/none/"):
        with pytest.raises(NotFoundError, match="no such object, and none below: gs://models/none"):
            source.list_files(gs(place))


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (400, SourceError, "GOOGLE_CLOUD_QUOTA_PROJECT"),
        (401, AuthenticationError, "GOOGLE_APPLICATION_CREDENTIALS"),
        (403, PermissionDeniedError, "Storage Object Viewer"),
        (429, RateLimitedError, ""),
        (418, SourceError, ""),
        (500, TransientError, ""),
        (503, TransientError, ""),
    ],
)
@pytest.mark.parametrize("place", ["models/config.json", "models/llama/"])
def test_refusals_by_status(source, model, status, kind, hint, place):
    model.refuse(status, "some words of the server")
    with pytest.raises(kind, match=r"gs://|service_account\.json") as caught:
        source.list_files(gs(place))
    assert type(caught.value) is kind
    assert hint in (caught.value.hint or "")
    assert caught.value.uri == f"gs://{place}"


@pytest.mark.parametrize(
    "answer",
    [json_response([]), json_response({"items": 7}), json_response({"items": [{"name": "p/x", "size": "many"}]})],
    ids=["list", "number", "size"],
)
def test_an_answer_of_something_else_is_not_understood(source, model, answer):
    model.faults.add(answer_with(answer), route="list")
    with pytest.raises(SourceError, match="cannot be understood") as caught:
        source.list_files(gs("models/p/"))
    assert "STORAGE_EMULATOR_HOST" in caught.value.hint


def test_pages_of_a_proxy_are_errors_by_status(source, model):
    model.faults.add(html_error(403))
    with pytest.raises(PermissionDeniedError):
        source.list_files(gs("models/llama/"))
    model.faults.clear()
    model.faults.add(html_error(200))
    with pytest.raises(SourceError, match="cannot be understood"):
        source.list_files(gs("models/llama/"))


def test_a_digest_that_is_none_is_not_understood(source, model):
    item = {"name": "x", "size": "1", "generation": "1", "md5Hash": "no base64", "bucket": "models"}
    model.faults.add(answer_with(json_response(item)), route="object")
    with pytest.raises(SourceError, match="cannot be understood"):
        source.list_files(gs("models/x"))


def test_refused_objects_say_why_when_they_are_located_again(source, model):
    uri = gs("models/llama/config.json")
    [file] = source.list_files(uri).files
    source.locate(uri, file)
    model.faults.add(answer_with(api_refusal(403, "gone", reason="forbidden")), route="object")
    with pytest.raises(PermissionDeniedError, match="service_account"):
        source.locate(uri, file)
