"""What a sink writes at once or has copied, on real servers, and what Google's own client then reads."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs

import pytest

from nim_core.errors import (
    AuthenticationError,
    DigestMismatchError,
    InvalidUriError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RemoteChangedError,
    SizeMismatchError,
    SourceError,
    TransientError,
)
from nim_core.testing.corpus import Content, PatternContent, inline
from nim_core.testing.faults import answer_with
from nim_core.testing.gcs_server import GcsServer, api_refusal
from nim_core.testing.http_server import json_response
from nim_core.types import Body, Digest, ModelUri, NewObject, StoredObject, UriStyle

KEYS = [
    "nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json",
    "prefix/hf%3A%2F%2Forg%2Fname%3Frevision%3Dmain",
    "+ &=#?;@:$,'()*~!%25%2f",
    "a//b",
    "ü/日本語.bin",
]


def new_object(key: str, content: Content, *algorithms: str, replaces: StoredObject | None = None) -> NewObject:
    """A new object with the digests core gives it, or with those named."""
    digests = tuple(content.digest(name) for name in algorithms or ("blake3", "crc32c"))
    return NewObject(key=key, size=content.size, digests=digests, replaces=replaces)


@pytest.fixture
def sink(open_sink, server, key_file):
    """A sink for ``gs://models`` that signs in with a service account's key."""
    return open_sink({**server.environment(), **key_file})


@pytest.fixture
def fake_sink(open_sink, gcs_server, key_file):
    """The same for the server that knows conditions."""
    gcs_server.make_bucket("models")
    return open_sink({**gcs_server.environment(), **key_file})


@pytest.fixture
def write(tmp_path):
    """Return a function that has a sink write a content at once, and returns the new object."""

    def written(sink, key: str, content: Content, *algorithms: str, replaces=None) -> NewObject:
        (tmp_path / "body").write_bytes(b"before" + content.data() + b"after")
        new = new_object(key, content, *algorithms, replaces=replaces)
        sink.put(new, Body(path=tmp_path / "body", offset=6, size=content.size))
        return new

    return written


def gs(text):
    return ModelUri(scheme="gs", location=text, style=UriStyle.OBJECT)


# ------------------------------------------------------------------------------------------------------------- writing
def test_googles_client_reads_back_every_key(sink, server, write, signed_in):
    contents = {key: PatternContent(length=70_000 + number, seed=number) for number, key in enumerate(KEYS)}
    contents["empty"] = inline(b"")
    contents["lines"] = inline(b"\r\n--\r\n\n\r\x00\xff\r\n")
    for key, content in contents.items():
        write(sink, key, content)
    bucket = signed_in(server).bucket("models")
    blobs = {key: bucket.blob(key) for key in contents}
    assert {key: blob.download_as_bytes() for key, blob in blobs.items()} == {
        key: content.data() for key, content in contents.items()
    }
    assert {blob.name: blob.metadata["nim-digests"] for blob in bucket.list_blobs()} == {
        key: f"{content.digest('blake3')},{content.digest('crc32c')}" for key, content in contents.items()
    }


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_told_with_all_its_digests(sink, write, key):
    content = PatternContent(length=1000)
    write(sink, key, content, "sha256", "crc32c")
    found = sink.head(key)
    assert (found.key, found.size) == (key, 1000)
    assert set(found.digests) == {content.digest(name) for name in ("sha256", "crc32c", "md5")}
    assert found.version.isdigit()
    assert sink.head(key + "x") is None


def test_an_emulator_is_asked_without_credentials(open_sink, write):
    with GcsServer() as server:
        server.make_bucket("models")
        sink = open_sink({"STORAGE_EMULATOR_HOST": server.url})
        write(sink, "x", inline("x"))
        assert sink.head("x").size == 1


# ---------------------------------------------------------------------------------------------------------- conditions


def test_another_mirror_that_wrote_the_very_same_is_no_harm(fake_sink, write):
    write(fake_sink, "x", inline("x"))
    version = fake_sink.head("x").version
    write(fake_sink, "x", inline("x"))
    assert fake_sink.head("x").version == version


def test_a_write_whose_answer_was_lost_succeeds_when_it_is_tried_again(fake_sink, gcs_server, write):
    gcs_server.refuse(503, route="upload", times=1)
    with pytest.raises(TransientError):
        write(fake_sink, "x", inline("x"))
    write(fake_sink, "x", inline("x"))
    assert gcs_server.log.select(route="upload")[-1].status == 412


# ------------------------------------------------------------------------------------------------------- wrong content
def test_content_that_is_not_what_was_said_leaves_no_object(sink, server, tmp_path):
    (tmp_path / "body").write_bytes(b"torn")
    with pytest.raises((DigestMismatchError, SourceError), match="gs://models/x"):
        sink.put(new_object("x", inline("true")), Body(path=tmp_path / "body", size=4))
    assert sink.head("x") is None


def test_a_server_that_takes_anything_is_found_out(fake_sink, gcs_server, tmp_path):
    (tmp_path / "body").write_bytes(b"torn")
    with pytest.raises(DigestMismatchError, match="other content arrived") as caught:
        fake_sink.put(new_object("x", inline("true")), Body(path=tmp_path / "body", size=4))
    assert caught.value.hint == "it was deleted"
    [deletion] = gcs_server.log.select(method="DELETE")
    assert deletion.request.parameter("generation").isdigit()


def test_a_cut_object_is_found_out(fake_sink, tmp_path):
    (tmp_path / "body").write_bytes(b"tru")
    with pytest.raises(SizeMismatchError):
        fake_sink.put(new_object("x", inline("true")), Body(path=tmp_path / "body", size=3))


def test_a_wrong_object_that_may_not_be_deleted_is_told_of(fake_sink, gcs_server, tmp_path):
    (tmp_path / "body").write_bytes(b"torn")
    gcs_server.faults.add(answer_with(api_refusal(403)), method="DELETE")
    with pytest.raises(DigestMismatchError) as caught:
        fake_sink.put(new_object("x", inline("true")), Body(path=tmp_path / "body", size=4))
    assert "by hand" in caught.value.hint


# ------------------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (400, SourceError, "GOOGLE_CLOUD_QUOTA_PROJECT"),
        (401, AuthenticationError, "GOOGLE_APPLICATION_CREDENTIALS"),
        (403, PermissionDeniedError, "the role Storage Object User on the bucket"),
        (429, RateLimitedError, ""),
        (503, TransientError, ""),
    ],
)
def test_refusals_by_status(fake_sink, gcs_server, write, status, kind, hint):
    gcs_server.refuse(status)
    new = new_object("x", inline("x"))
    calls = [
        lambda: write(fake_sink, "x", inline("x")),
        lambda: fake_sink.begin(new, None),
        lambda: fake_sink.head("x"),
    ]
    for call in calls:
        with pytest.raises(kind, match=r"gs://models/x|service_account\.json") as caught:
            call()
        assert type(caught.value) is kind
        assert hint in (caught.value.hint or "")


def test_a_bucket_that_is_not_there(open_sink, server, key_file, write):
    sink = open_sink({**server.environment(), **key_file}, bucket="nowhere")
    assert sink.head("x") is None
    for call in (
        lambda: write(sink, "x", inline("x")),
        lambda: sink.begin(new_object("x", inline("x")), None),
        lambda: list(sink.list_objects("")),
    ):
        with pytest.raises(NotFoundError, match="no such bucket: gs://nowhere"):
            call()


def test_an_answer_of_something_else_is_not_understood(fake_sink, gcs_server, write):
    gcs_server.faults.add(answer_with(json_response([])), route="upload")
    with pytest.raises(SourceError, match="cannot be understood"):
        write(fake_sink, "x", inline("x"))


def test_what_is_no_bucket_is_refused(open_sink):
    with pytest.raises(InvalidUriError, match="not a bucket"):
        open_sink({}, bucket="B")


# ------------------------------------------------------------------------------------------------------------- tokens
def test_a_token_that_expired_is_renewed(fake_sink, google_auth, write):
    write(fake_sink, "x", inline("x"))
    google_auth.expire_tokens()
    write(fake_sink, "y", inline("y"))
    google_auth.expire_tokens()
    fake_sink.begin(new_object("z", inline("z")), None)
    assert google_auth.holders == ["service account"] * 3


def test_no_credentials_at_all(open_sink, gcs_server, write):
    gcs_server.make_bucket("models")
    with pytest.raises(AuthenticationError, match="none were found"):
        write(open_sink(gcs_server.environment()), "x", inline("x"))


def test_writing_asks_for_more_than_reading(fake_sink, source, google_auth, gcs_server, write):
    write(fake_sink, "x", inline("x"))
    source.list_files(gs("models/x"))
    assert [scope(exchange.request) for exchange in google_auth.log.select(route="token")] == [
        "https://www.googleapis.com/auth/devstorage.read_write",
        "https://www.googleapis.com/auth/devstorage.read_only",
    ]


def scope(request):
    [assertion] = parse_qs(request.body.decode())["assertion"]
    claims = assertion.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["scope"]


# ------------------------------------------------------------------------------------------------------------- copies
@pytest.fixture
def mirrored(open_sink, gcs_server, key_file, write):
    """An object with its digests in another bucket, and the new object that has the same content."""
    gcs_server.make_bucket("origin")
    content = PatternContent(length=50_000)
    write(open_sink({**gcs_server.environment(), **key_file}, bucket="origin"), "a%2Fb", content, "sha256", "crc32c")
    gcs_server.log.clear()
    return content


def test_a_copy_is_made_without_the_bytes_coming_here(fake_sink, gcs_server, mirrored, signed_in):
    assert fake_sink.copy(new_object("c%2Fd", mirrored, "sha256", "blake3"), gs("origin/a%2Fb")) is True
    found = fake_sink.head("c%2Fd")
    assert set(found.digests) == {mirrored.digest(name) for name in ("md5", "crc32c", "sha256", "blake3")}
    assert {exchange.route for exchange in gcs_server.log} == {"object"}
    assert signed_in(gcs_server).bucket("models").blob("c%2Fd").download_as_bytes() == mirrored.data()


def test_a_copy_names_both_generations(fake_sink, gcs_server, mirrored):
    [told] = fake_sink._client.objects(evolve_bucket(fake_sink, "origin"), "")
    fake_sink.copy(new_object("x", mirrored), gs("origin/a%2Fb"))
    [rewriting] = gcs_server.log.select(method="POST")
    assert rewriting.request.parameter("sourceGeneration") == str(told.number)
    assert rewriting.request.parameter("ifGenerationMatch") == "0"


def evolve_bucket(sink, bucket):
    return type(sink._bucket)(bucket=bucket, key="")


def test_what_does_not_vouch_for_the_content_is_not_copied(fake_sink, gcs_server, mirrored):
    right = mirrored.digest("sha256")
    wrong = Digest("sha256", "0" * 64)
    cases = {
        "contradicts": (50_000, (wrong, mirrored.digest("crc32c"))),
        "another size": (50_001, (right,)),
        "says nothing of it": (50_000, (mirrored.digest("blake3"),)),
    }
    for key, (size, digests) in cases.items():
        new = NewObject(key=key, size=size, digests=digests)
        assert fake_sink.copy(new, gs("origin/a%2Fb")) is False
    assert gcs_server.log.select(method="POST") == []


def test_what_cannot_be_read_comes_from_elsewhere(fake_sink, gcs_server, mirrored):
    new = new_object("x", mirrored)
    places = ["origin/none", "nowhere/x", "origin/a%2Fb/", "origin"]
    assert [fake_sink.copy(new, gs(place)) for place in places] == [False] * 4
    uri = ModelUri(scheme="s3", location="origin/a%2Fb", style=UriStyle.OBJECT)
    assert fake_sink.copy(new, uri) is False
    gcs_server.refuse(403, times=1)
    assert fake_sink.copy(new, gs("origin/a%2Fb")) is False


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_copy_that_is_refused_comes_from_here(fake_sink, gcs_server, mirrored, status):
    gcs_server.faults.add(answer_with(api_refusal(status)), method="POST")
    assert fake_sink.copy(new_object("x", mirrored), gs("origin/a%2Fb")) is False


def test_a_long_copy_takes_several_requests(fake_sink, gcs_server, mirrored):
    more = json_response({"kind": "storage#rewriteResponse", "done": False, "rewriteToken": "a/b+c="})
    gcs_server.faults.add(answer_with(more), method="POST", times=1)
    assert fake_sink.copy(new_object("x", mirrored), gs("origin/a%2Fb")) is True
    tokens = [exchange.request.parameter("rewriteToken") for exchange in gcs_server.log.select(method="POST")]
    assert tokens == [None, "a/b+c="]


def test_a_copy_over_what_somebody_else_wrote_is_refused(fake_sink, gcs_server, mirrored):
    def overtaken(_):
        gcs_server.put("models", "x", inline("another"))
        return api_refusal(412)

    gcs_server.faults.add(overtaken, method="POST")
    with pytest.raises(RemoteChangedError, match="gs://models/x"):
        fake_sink.copy(new_object("x", mirrored), gs("origin/a%2Fb"))


def test_a_copy_whose_answer_was_lost_succeeds_when_it_is_tried_again(fake_sink, gcs_server, mirrored):
    new = new_object("x", mirrored)
    gcs_server.faults.add(answer_with(api_refusal(503)), method="POST", times=1)
    with pytest.raises(TransientError):
        fake_sink.copy(new, gs("origin/a%2Fb"))
    gcs_server.faults.add(answer_with(api_refusal(412)), method="POST")  # as Google answers
    assert fake_sink.copy(new, gs("origin/a%2Fb")) is True


def test_a_copy_without_its_digests_is_no_copy(open_sink, emulator, key_file, write):
    emulator.make_bucket("origin")
    content = PatternContent(length=1000)
    environment = {**emulator.environment(), **key_file}
    write(open_sink(environment, bucket="origin"), "x", content, "crc32c")
    sink = open_sink(environment)
    with pytest.raises(DigestMismatchError):
        sink.copy(new_object("x", content, "crc32c", "sha256"), gs("origin/x"))
    assert sink.head("x") is None
