"""The source itself: what it lists, where it says bytes are, and what it makes of a registry's answers."""

from __future__ import annotations

import json
import platform

import httpx
import pytest
from real_registry import EMPTY, INDEX, PASSWORD, TITLE, USER, artifact, basic, descriptor, layer

from nim_core.errors import (
    AuthenticationError,
    DigestMismatchError,
    InvalidUriError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    SourceError,
    TransientError,
    UnsupportedError,
)
from nim_core.testing.corpus import inline
from nim_core.testing.harness import object_uri
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response, json_response

A, B = inline("contents of a\n"), inline("contents of b\n")
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def pushed(registry, manifest, *contents, reference="v1"):
    """Push a manifest with its blobs; return its digest."""
    for content in (EMPTY, *contents):
        registry.push_blob("team/model", content)
    return registry.push_manifest("team/model", reference, manifest)


def uri_of(registry, rest=":v1"):
    return object_uri(f"oci://{registry.host}/team/model{rest}")


def fetch(location) -> bytes:
    headers = {name: value.reveal() for name, value in location.headers}
    return httpx.get(location.url.reveal(), headers=headers, trust_env=False).raise_for_status().content


def test_listing_has_sizes_digests_and_the_manifests_digest_as_revision(open_source, registry, corpus):
    digest = registry.push("team/model", "v1", corpus.files)
    listing = open_source().list_files(uri_of(registry))
    assert listing.pinned == digest
    found = {file.path: (file.size, *file.digests) for file in listing.files}
    assert found == {path: (content.size, content.digest("sha256")) for path, content in corpus.files.items()}


def test_one_file_is_listed_by_its_whole_path(open_source, registry, corpus):
    registry.push("team/model", "v1", corpus.files)
    listing = open_source().list_files(uri_of(registry, ":v1/trtllm_engine/rank0.engine"))
    assert [file.path for file in listing.files] == ["trtllm_engine/rank0.engine"]


@pytest.mark.parametrize("key", ["org.cncf.model.filepath", "org.cnai.model.filepath"])
def test_a_model_pack(open_source, registry, key):
    weights = descriptor("application/vnd.cncf.model.weight.v1.raw", A, annotations={key: "weights/a.safetensors"})
    pushed(registry, artifact([weights]), A)
    listing = open_source().list_files(uri_of(registry))
    assert [file.path for file in listing.files] == ["weights/a.safetensors"]


def test_layers_without_a_name_are_called_by_their_digest(open_source, registry):
    pushed(registry, artifact([descriptor("application/octet-stream", A), layer("b", B)]), A, B)
    listing = open_source().list_files(uri_of(registry))
    assert [file.path for file in listing.files] == [f"sha256-{A.digest('sha256').value}", "b"]


def test_an_artifact_without_files(open_source, registry):
    pushed(registry, artifact([descriptor("application/vnd.oci.empty.v1+json", EMPTY)]))
    assert open_source().list_files(uri_of(registry)).files == ()


def test_files_of_one_content_are_two(open_source, registry):
    pushed(registry, artifact([layer("one", A), layer("two", A)]), A)
    source = open_source()
    listing = source.list_files(uri_of(registry))
    assert [fetch(source.locate(listing.uri, file)) for file in listing.files] == [A.data(), A.data()]


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ([layer("a", A), layer("a", B)], SourceError, "two layers have one name"),
        ([layer("../a", A)], InvalidUriError, "unsafe file path"),
        (
            [descriptor("x/y", A, annotations={TITLE: "folder", "io.deis.oras.content.unpack": "true"})],
            UnsupportedError,
            "packed into an archive",
        ),
        ([descriptor("application/vnd.cncf.model.weight.v1.tar+gzip", A)], UnsupportedError, "packed into an archive"),
    ],
)
def test_what_cannot_be_files_is_refused(open_source, registry, layers, error, words):
    pushed(registry, artifact(layers), A, B)
    with pytest.raises(error, match=words):
        open_source().list_files(uri_of(registry))


def index(*entries):
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}


def entry(registry, content, **platform):
    """Push an artifact of one file, and return it as an index has it."""
    manifest = artifact([layer("a", content)])
    digest = pushed(registry, manifest, content, reference="")
    of = {"platform": platform} if platform else {}
    return {"mediaType": manifest["mediaType"], "digest": digest, "size": len(json.dumps(manifest)), **of}


def test_the_only_manifest_of_an_index(open_source, registry):
    one = entry(registry, A)
    statement = entry(registry, B, architecture="unknown", os="unknown")
    pushed(registry, index(one, statement))
    listing = open_source().list_files(uri_of(registry))
    assert listing.pinned == one["digest"]
    assert listing.files[0].digests == (A.digest("sha256"),)


def test_the_manifest_of_an_index_for_this_machine(open_source, registry):
    other, mine = (
        entry(registry, A, os="linux", architecture="s390x"),
        entry(registry, B, os="linux", architecture=MACHINE),
    )
    pushed(registry, index(other, mine))
    assert open_source().list_files(uri_of(registry)).pinned == mine["digest"]


def test_an_index_with_several_manifests_names_them(open_source, registry):
    first, second = entry(registry, A), entry(registry, B)
    pushed(registry, index(first, second))
    with pytest.raises(UnsupportedError) as caught:
        open_source().list_files(uri_of(registry))
    assert first["digest"] in caught.value.hint
    assert second["digest"] in caught.value.hint


def test_a_token_is_asked_for_once_for_all_files(open_source, token_registry, tokens, corpus):
    token_registry.push("team/model", "v1", corpus.files)
    source = open_source(token_registry.variables())
    listing = source.list_files(uri_of(token_registry))
    for file in listing.files:
        assert fetch(source.locate(listing.uri, file)) == corpus.files[file.path].data()
    [asked] = tokens.log
    assert asked.request.header("Authorization") == basic()
    assert asked.request.parameters("scope") == ["repository:team/model:pull"]


def test_each_repository_has_its_own_token(open_source, token_registry, tokens, corpus):
    source = open_source(token_registry.variables())
    for name in ("team/one", "team/two"):
        token_registry.push(name, "v1", corpus.files)
        source.list_files(object_uri(f"oci://{token_registry.host}/{name}:v1"))
    scopes = [exchange.request.parameter("scope") for exchange in tokens.log]
    assert scopes == ["repository:team/one:pull", "repository:team/two:pull"]


def test_guests_get_a_token_for_what_is_public(open_source, token_registry, tokens, corpus):
    tokens.guests = True
    token_registry.push("team/model", "v1", corpus.files)
    open_source().list_files(uri_of(token_registry))
    [asked] = tokens.log
    assert asked.request.header("Authorization") is None


def test_a_location_says_when_its_token_expires_and_a_refused_one_is_not_given_again(
    open_source, token_registry, tokens, corpus
):
    token_registry.push("team/model", "v1", corpus.files)
    source = open_source(token_registry.variables())
    listing = source.list_files(uri_of(token_registry))
    first, again = (source.locate(listing.uri, listing.files[0]) for _ in range(2))
    assert first.expires_at is not None
    assert tokens.log.count(route="token") == 2
    assert first.headers != again.headers
    assert source.locate(listing.uri, listing.files[1]).headers == again.headers


def test_an_expired_token_is_renewed(open_source, token_registry, tokens, corpus, monkeypatch):
    token_registry.push("team/model", "v1", corpus.files)
    source = open_source(token_registry.variables())
    listing = source.list_files(uri_of(token_registry))
    monkeypatch.setattr("nim_source_oci.registry._MARGIN_SECONDS", tokens.seconds)
    assert fetch(source.locate(listing.uri, listing.files[0])) == corpus.files[listing.files[0].path].data()
    assert tokens.log.count(route="token") == 2


def test_a_token_of_another_plugin_is_sent_as_it_is(open_source, token_registry, tokens, corpus):
    from nim_core.types import BearerToken

    token_registry.push("team/model", "v1", corpus.files)
    mine = tokens.token("team/model", "pull")
    source = open_source(provide=lambda request: BearerToken(token=mine, origin="a vault"))
    assert source.list_files(uri_of(token_registry)).pinned
    assert len(tokens.log) == 0


def test_a_password_is_not_sent_to_a_registry_that_does_not_ask(open_source, corpus):
    log = RequestLog()
    with HttpOrigin("registry", lambda request: ("gone", json_response({}, status=404)), log=log) as origin:
        host = origin.url.partition("://")[2]
        source = open_source({"OCI_REGISTRY": host, "OCI_USERNAME": USER, "OCI_PASSWORD": PASSWORD})
        with pytest.raises(NotFoundError):
            source.list_files(object_uri(f"oci://{host}/team/model:v1"))
    assert [exchange.request.header("Authorization") for exchange in log] == [None]


def answering(response, *, challenge=None):
    """Return an origin that answers 401 with a challenge first, if there is one, and then the same to everything."""
    asked = []

    def answer(request):
        asked.append(request)
        if challenge is not None and len(asked) == 1:
            return "challenge", Response(status=401, headers={"WWW-Authenticate": challenge})
        return "answer", response

    return HttpOrigin("registry", answer, log=RequestLog())


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (429, RateLimitedError),
        (500, TransientError),
        (503, TransientError),
        (405, SourceError),
    ],
)
def test_refusals(open_source, status, error):
    body = {"errors": [{"code": "A_CODE", "message": "secret words"}]}
    answer = json_response(body, status=status, headers={"Retry-After": "7"})
    with answering(answer) as origin, pytest.raises(error) as caught:
        open_source().list_files(object_uri(f"oci://{origin.url.partition('://')[2]}/team/model:v1"))
    assert type(caught.value) is error
    assert f"HTTP {status}, A_CODE" in caught.value.message
    assert "secret" not in caught.value.message
    assert getattr(caught.value, "retry_after", 7.0) == 7.0


@pytest.mark.parametrize(
    "body", ["<html>", "[]", "{}", '{"layers": 5}', '{"layers": [{}]}', '{"layers": [5]}', '{"manifests": [5]}']
)
def test_answers_that_are_no_manifest(open_source, body):
    with answering(Response(body=inline(body))) as origin, pytest.raises(SourceError, match="cannot be understood"):
        open_source().list_files(object_uri(f"oci://{origin.url.partition('://')[2]}/team/model:v1"))


@pytest.mark.parametrize("algorithm", ["sha512", "md5"])
def test_layers_that_could_not_be_checked(open_source, algorithm):
    body = {"layers": [{"mediaType": "x/y", "digest": f"{algorithm}:00", "size": 1}]}
    with answering(json_response(body)) as origin, pytest.raises(UnsupportedError, match=algorithm):
        open_source().list_files(object_uri(f"oci://{origin.url.partition('://')[2]}/team/model:v1"))


@pytest.mark.parametrize("reference", [":v1", f"@sha256:{'0' * 64}"])
def test_another_manifest_than_was_asked_for(open_source, reference):
    lie = {"Docker-Content-Digest": f"sha256:{'1' * 64}"}
    with answering(json_response({"layers": []}, headers=lie)) as origin, pytest.raises(DigestMismatchError):
        open_source().list_files(object_uri(f"oci://{origin.url.partition('://')[2]}/team/model{reference}"))


@pytest.mark.parametrize("realm", ["http://tokens.example.com/token", "ftp://127.0.0.1/x", ""])
def test_a_password_never_goes_to_a_token_service_in_the_clear(open_source, realm):
    with answering(json_response({}), challenge=f'Bearer realm="{realm}",service="s"') as origin:
        host = origin.url.partition("://")[2]
        source = open_source({"OCI_REGISTRY": host, "OCI_USERNAME": USER, "OCI_PASSWORD": PASSWORD})
        with pytest.raises(SourceError, match="not at an https address"):
            source.list_files(object_uri(f"oci://{host}/team/model:v1"))


def test_a_registry_elsewhere_is_asked_over_tls(open_source, registry, corpus):
    registry.push("team/model", "v1", corpus.files)
    with pytest.raises(TransientError):
        open_source({"OCI_PLAIN_HTTP": "registry.example.com"}).list_files(uri_of(registry))
    assert open_source({"OCI_PLAIN_HTTP": f"other, {registry.host}"}).list_files(uri_of(registry)).files


def test_a_wrong_password(open_source, closed_registry, corpus):
    closed_registry.push("team/model", "v1", corpus.files)
    assert open_source(closed_registry.variables()).list_files(uri_of(closed_registry)).files
    with pytest.raises(AuthenticationError, match="credential from OCI_USERNAME"):
        open_source(closed_registry.variables("wrong")).list_files(uri_of(closed_registry))
