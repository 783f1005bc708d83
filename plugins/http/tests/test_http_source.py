import base64
import contextlib
import hashlib

import pytest
from nim_source_http.plugin import nim_provide_credential, nim_register_sources

from nim_core.errors import (
    AuthenticationError,
    EntitlementError,
    InvalidUriError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RegionBlockedError,
    SourceError,
    TransientError,
    UnsupportedError,
)
from nim_core.settings import Settings
from nim_core.testing.corpus import inline
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response
from nim_core.testing.ranged import serve_content
from nim_core.transfer.control import control_client
from nim_core.transfer.network import network_config
from nim_core.transfer.retry import RetryPolicy
from nim_core.types import (
    Ambient,
    Anonymous,
    BasicPair,
    BearerToken,
    CredentialRequest,
    Digest,
    RemoteFile,
    Secret,
    SourceContext,
    UriStyle,
    Variables,
)
from nim_core.uris import parse_uri

DATA = b"0123456789" * 100
SHA256 = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
MD5 = base64.b64encode(hashlib.md5(DATA).digest()).decode()
BASIC = "Basic " + base64.b64encode(b"me:p@ss").decode()


def uri_of(text):
    return parse_uri(text, {"http": UriStyle.OBJECT, "https": UriStyle.OBJECT})


@pytest.fixture
def source_with():
    """Makes a source that signs in with a credential, by a client that does not wait between attempts."""
    with contextlib.ExitStack() as stack:

        def make(credential=Anonymous()):  # noqa: B008 - a frozen value
            config = network_config(Settings({}))
            client = stack.enter_context(control_client(config, RetryPolicy(retries=1, base_seconds=0.0)))
            asked = []

            def provide(endpoint, uri):
                asked.append((endpoint, uri))
                return credential

            (spec,) = nim_register_sources()
            source = spec.factory(SourceContext(http=client, variables=Variables((), {}), credential=provide))
            source.asked = asked
            return source

        yield make


@pytest.fixture
def origin():
    """An origin whose routes the test sets."""
    with HttpOrigin("origin", lambda request: ("any", server.routes(request)), log=RequestLog()) as server:
        server.routes = lambda request: serve_content(request, inline(DATA), etag='"strong"')
        yield server


def test_what_the_plugin_declares():
    (spec,) = nim_register_sources()
    assert (spec.name, spec.schemes, spec.uri_style) == ("http", ("http", "https"), UriStyle.OBJECT)
    assert [variable.name for variable in spec.environment] == ["NETRC"]


# Listing and locating


def test_a_file_is_listed_and_located(source_with, origin):
    source, uri = source_with(), uri_of(f"{origin.url}/dir/model.bin")
    listing = source.list_files(uri)
    assert (listing.uri, listing.pinned) == (uri, None)
    assert listing.files == (RemoteFile(path="model.bin", size=len(DATA)),)
    located = source.locate(uri, listing.files[0])
    assert located.url == Secret(f"{origin.url}/dir/model.bin")
    assert (located.headers, located.ranges, located.validator, located.size) == ((), True, '"strong"', len(DATA))
    assert [exchange.request.method for exchange in origin.log] == ["HEAD"]


def test_what_was_found_out_is_used_once(source_with, origin):
    source, uri = source_with(), uri_of(f"{origin.url}/model.bin")
    (file,) = source.list_files(uri).files
    source.locate(uri, file)
    origin.routes = lambda request: serve_content(request, inline(DATA + b"x"), etag='"newer"')
    located = source.locate(uri, file)
    assert (located.validator, located.size) == ('"newer"', len(DATA) + 1)


def test_what_was_not_listed_is_located_without_asking_until_it_is_refused(source_with, origin):
    source, uri = source_with(), uri_of(f"{origin.url}/a/my%20file")
    file = RemoteFile(path=source.file_name(uri))
    assert file.path == "my file"
    located = source.locate(uri, file)
    assert (located.url.reveal(), located.size, located.ranges, located.validator) == (str(uri), None, None, None)
    assert list(origin.log) == []
    origin.routes = lambda _request: Response(status=410)
    with pytest.raises(NotFoundError):
        source.locate(uri, file)


@pytest.mark.parametrize("status", [403, 405, 501])
def test_where_head_is_refused_the_first_byte_is_asked_for(source_with, origin, status):
    ranged = origin.routes
    origin.routes = lambda request: Response(status=status) if request.method == "HEAD" else ranged(request)
    source, uri = source_with(), uri_of(f"{origin.url}/model.bin")
    (file,) = source.list_files(uri).files
    assert file.size == len(DATA)
    assert source.locate(uri, file).ranges is True
    assert origin.log.select(method="GET")[-1].request.header("Range") == "bytes=0-0"


def test_a_server_without_ranges_says_the_size_too(source_with, origin):
    whole = Response(body=inline(DATA), headers={"Content-MD5": MD5})
    origin.routes = lambda request: Response(status=405) if request.method == "HEAD" else whole
    source, uri = source_with(), uri_of(f"{origin.url}/model.bin")
    (file,) = source.list_files(uri).files
    assert (file.size, file.digests) == (len(DATA), (Digest.from_base64("md5", MD5),))
    assert source.locate(uri, file).ranges is False


def test_a_body_that_nobody_asked_for_is_not_read(source_with, origin):
    huge = Response(body=inline(bytes(100 << 20)))
    origin.routes = lambda request: Response(status=405) if request.method == "HEAD" else huge
    assert source_with().list_files(uri_of(f"{origin.url}/model.bin")).files[0].size == 100 << 20


def test_an_empty_file_has_no_first_byte(source_with, origin):
    origin.routes = lambda request: (
        Response(status=405) if request.method == "HEAD" else serve_content(request, inline(b""), etag='"e"')
    )
    assert source_with().list_files(uri_of(f"{origin.url}/empty")).files[0].size == 0


@pytest.mark.parametrize(
    ("headers", "ranges", "validator"),
    [
        ({}, None, None),
        ({"Accept-Ranges": "bytes"}, True, None),
        ({"Accept-Ranges": "none"}, False, None),
        ({"ETag": 'W/"weak"'}, None, None),
        ({"ETag": "unquoted"}, None, None),
        ({"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}, None, '"d41d8cd98f00b204e9800998ecf8427e"'),
    ],
)
def test_only_a_strong_etag_pins_and_none_is_a_digest(source_with, origin, headers, ranges, validator):
    origin.routes = lambda _: Response(headers=headers, body=inline(DATA))
    source, uri = source_with(), uri_of(f"{origin.url}/model.bin")
    (file,) = source.list_files(uri).files
    located = source.locate(uri, file)
    assert (file.digests, located.ranges, located.validator) == ((), ranges, validator)


@pytest.mark.parametrize(
    ("headers", "algorithms"),
    [
        ({"Repr-Digest": f"sha-256=:{SHA256}:"}, ["sha256"]),
        ({"Repr-Digest": f"sha-512=:abc=:, sha-256=:{SHA256}:"}, ["sha256"]),
        ({"Digest": f"SHA-256={SHA256}"}, ["sha256"]),
        ({"Digest": f"md5=x,sha-256={SHA256},crc32c=y"}, ["sha256"]),
        ({"Content-MD5": MD5}, ["md5"]),
        ({"Repr-Digest": f"sha-256=:{SHA256}:", "Content-MD5": MD5}, ["sha256", "md5"]),
        ({"Repr-Digest": "sha-256=:bm90IGEgZGlnZXN0:"}, []),
        ({"Digest": "sha-256=???"}, []),
        ({"Content-MD5": "nonsense"}, []),
        ({"Content-Digest": f"sha-256=:{SHA256}:"}, []),
        ({"ETag": f'"{hashlib.md5(DATA).hexdigest()}"'}, []),
        ({"Repr-Digest": f"sha-256=:{SHA256}:", "Content-Encoding": "gzip"}, []),
    ],
)
def test_digests_a_server_vouches_for(source_with, origin, headers, algorithms):
    origin.routes = lambda _: Response(headers=headers, body=inline(DATA))
    (file,) = source_with().list_files(uri_of(f"{origin.url}/model.bin")).files
    right = {"sha256": Digest.from_base64("sha256", SHA256), "md5": Digest.from_base64("md5", MD5)}
    assert file.digests == tuple(right[algorithm] for algorithm in algorithms)


def test_the_length_of_an_encoded_answer_is_not_the_files(source_with, origin):
    origin.routes = lambda _: Response(headers={"Content-Encoding": "gzip"}, body=inline(DATA))
    assert source_with().list_files(uri_of(f"{origin.url}/model.bin")).files[0].size is None


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/nim%252Fmeta%252Fm%253Ahf%253Ffile%253Dx", None),
        ("/nim%2Fmeta%2fm~%7E%26", None),
        ("/a/../b/./c//d", None),
        ("/key?X-Amz-Signature=a%2Fb+c&x=%26&y='()*!", None),
        ("/key?", None),
        ("?id=7", "/?id=7"),
        ("", "/"),
        ("/a b/ünï", "/a%20b/%C3%BCn%C3%AF"),
    ],
)
def test_path_and_query_are_sent_to_the_letter(source_with, origin, target, sent):
    source, uri = source_with(), uri_of(f"{origin.url}{target}")
    assert source.list_files(uri).files[0].size == len(DATA)
    assert [exchange.request.target for exchange in origin.log] == [sent or target]
    assert source.locate(uri, RemoteFile(path="x")).url == Secret(f"{origin.url}{sent or target}")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/dir/model.bin", "model.bin"),
        ("/dir/model%20one.bin?file=other", "model one.bin"),
        ("/100%25.bin", "100%.bin"),
        ("/%E2%82%AC", "€"),
        ("/x%2Fy", "x%2Fy"),
        ("/x%5Cy", "x%5Cy"),
        ("/%FF", "%FF"),
        ("/nul", "index"),
        ("/dir/", "index"),
        ("/dir/..", "index"),
        ("/%2e%2e", "%2e%2e"),
        ("", "index"),
    ],
)
def test_a_file_is_called_by_the_last_part_of_its_path(source_with, origin, target, name):
    assert source_with().list_files(uri_of(f"{origin.url}{target}")).files[0].path == name


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("me:hunter2@/x", "no host"),
        ("?x", "no host"),
        ("a b/x", "no host"),
        ("me:hun/ter2@a.example/x", "no host"),
        ("a.example:port/x", "no host"),
        ("me:hunter2@a.example/x#y", "fragment"),
    ],
)
def test_a_malformed_uri_is_refused_without_showing_secrets(source_with, rest, reason):
    with pytest.raises(InvalidUriError, match=reason) as caught:
        source_with().list_files(uri_of(f"https://{rest}"))
    assert "ter2" not in str(caught.value)


# Signing in


def test_userinfo_signs_in_and_appears_nowhere(source_with, origin):
    source = source_with(BearerToken(token="from-a-plugin", origin="test"))
    uri = uri_of(f"{origin.url.replace('://', '://me:p%40ss@')}/model.bin?x")
    located = source.locate(uri, source.list_files(uri).files[0])
    assert origin.log.select()[-1].request.header("Authorization") == BASIC
    assert located.headers == (("Authorization", Secret(BASIC)),)
    assert located.url == Secret(f"{origin.url}/model.bin?x")
    assert source.asked == []
    assert "p@ss" not in repr(located)
    assert BASIC not in repr(located)


@pytest.mark.parametrize(
    ("credential", "sent"),
    [
        (Anonymous(), None),
        (BasicPair(username="me", password="p@ss", origin="test"), BASIC),
        (BearerToken(token="t", origin="test"), "Bearer t"),
    ],
)
def test_plugins_are_asked_for_the_origin(source_with, origin, credential, sent):
    source, uri = source_with(credential), uri_of(f"{origin.url}/model.bin")
    source.list_files(uri)
    assert source.asked == [(origin.url, uri)]
    assert origin.log.select()[-1].request.header("Authorization") == sent


def test_a_credential_that_urls_have_no_use_for_is_named(source_with, origin):
    with pytest.raises(UnsupportedError, match=r"Ambient \(from instance role\)"):
        source_with(Ambient(origin="instance role")).list_files(uri_of(f"{origin.url}/x"))


def test_credentials_do_not_follow_a_redirect_to_another_origin(source_with, origin):
    with HttpOrigin("storage", lambda _: ("any", Response(body=inline(DATA))), log=RequestLog()) as storage:
        origin.routes = lambda _: Response(status=302, headers={"Location": f"{storage.url}/signed"})
        uri = uri_of(f"{origin.url.replace('://', '://me:p%40ss@')}/model.bin")
        assert source_with().list_files(uri).files[0].size == len(DATA)
        assert storage.log.select()[-1].request.header("Authorization") is None


def request_for(source="http", endpoint="https://models.example", **environ):
    declared = nim_register_sources()[0].environment
    values = {name: str(value) for name, value in environ.items()}
    return CredentialRequest(source=source, endpoint=endpoint, variables=Variables(declared, values))


@pytest.fixture
def netrc(tmp_path):
    file = tmp_path / "netrc"
    file.write_text("machine models.example login me password p@ss:w/rd\ndefault login you password hunter2\n")
    return file


@pytest.mark.parametrize("endpoint", ["https://models.example", "http://Models.Example:8080"])
def test_netrc_has_users_by_host(netrc, endpoint):
    found = nim_provide_credential(request_for(endpoint=endpoint, NETRC=netrc))
    assert found == BasicPair(username="me", password="p@ss:w/rd", origin=str(netrc))


@pytest.mark.parametrize("endpoint", ["https://other.example", "https://api.models.example", "https://default"])
def test_other_hosts_get_nothing_not_even_the_default_entry(netrc, endpoint):
    assert nim_provide_credential(request_for(endpoint=endpoint, NETRC=netrc)) == Anonymous()


def test_other_sources_are_left_to_their_own_plugins(netrc):
    assert nim_provide_credential(request_for(source="other", NETRC=netrc)) is None


def test_without_a_netrc_file_nobody_signs_in(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert nim_provide_credential(request_for()) == Anonymous()


def test_the_netrc_file_at_home_is_found(monkeypatch, tmp_path, netrc):
    monkeypatch.setenv("HOME", str(tmp_path))
    netrc.rename(tmp_path / ".netrc")
    assert nim_provide_credential(request_for()).username == "me"


def test_a_netrc_file_that_was_named_has_to_be_there(tmp_path):
    with pytest.raises(AuthenticationError, match=r"cannot read .*missing"):
        nim_provide_credential(request_for(NETRC=tmp_path / "missing"))


def test_a_netrc_file_that_cannot_be_parsed_is_not_quoted(netrc):
    netrc.write_text("machine models.example login me\nhunter2 password\n")
    with pytest.raises(AuthenticationError, match=f"not in netrc form: {netrc}, line 2") as caught:
        nim_provide_credential(request_for(NETRC=netrc))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


# Statuses


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, SourceError),
        (401, AuthenticationError),
        (402, EntitlementError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (410, NotFoundError),
        (429, RateLimitedError),
        (451, RegionBlockedError),
        (416, SourceError),
        (204, SourceError),
        (500, TransientError),
        (501, TransientError),
        (503, TransientError),
    ],
)
def test_each_status_has_its_error(source_with, origin, status, error):
    origin.routes = lambda _: Response(status=status)
    uri = uri_of(f"{origin.url.replace('://', '://me:hunter2@')}/model.bin?sig=hunter2")
    with pytest.raises(error, match=rf"{origin.url}/model\.bin\?\.\.\. \(HTTP {status}\)") as caught:
        source_with().list_files(uri)
    assert type(caught.value) is error
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {caught.value.uri}"


def test_who_is_not_known_is_told_the_two_ways_to_sign_in(source_with, origin):
    origin.routes = lambda _: Response(status=401)
    with pytest.raises(AuthenticationError) as caught:
        source_with().list_files(uri_of(f"{origin.url}/x"))
    assert "USER:PASSWORD@" in caught.value.hint
    assert "netrc" in caught.value.hint


@pytest.mark.parametrize(("header", "seconds"), [("3600", 3600.0), ("soon", None), (None, None)])
def test_a_rate_limit_says_how_long(source_with, origin, header, seconds):
    origin.routes = lambda _: Response(status=429, headers={"Retry-After": header} if header else {})
    with pytest.raises(RateLimitedError) as caught:
        source_with().list_files(uri_of(f"{origin.url}/x"))
    assert caught.value.retry_after == seconds


# The cache


def key_of(text):
    (spec,) = nim_register_sources()
    source = spec.factory(SourceContext(http=None, variables=Variables((), {}), credential=lambda *_: Anonymous()))
    return source.cache_key(uri_of(text), None)


def test_a_key_shows_the_host_and_no_secret():
    key = key_of("https://me:hunter2@Models.Example:8443/dir/model.bin?sig=hunter2")
    assert (key.root, key.snapshot, key.refs) == ("http/hub", "current", ())
    assert key.repo.startswith("files--models.example-8443--")
    assert "hunter2" not in key.repo


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.example/dir/x", "https://a.example/dir/y"),
        ("https://a.example/dir/x", "https://me:pw@a.example/dir/x"),
        ("https://a.example/dir/x", "https://A.example:443/dir/x"),
    ],
)
def test_files_of_one_folder_share_a_repository(one, other):
    assert key_of(one) == key_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.example/x", "http://a.example/x"),
        ("https://a.example/x", "https://b.example/x"),
        ("https://a.example/x", "https://a.example:8443/x"),
        ("https://a.example/x/m", "https://a.example/y/m"),
        ("https://a.example/x/m", "https://a.example/X/m"),
        ("https://a.example/m", "https://a.example/m?v=1"),
        ("https://a.example/m?v=1", "https://a.example/m?v=2"),
        ("https://a.example/x%2Fy", "https://a.example/x%252Fy"),
        ("https://a.example/x%2Fy", "https://a.example/x/y"),
        ("https://a.example/dir/", "https://a.example/dir/index"),
        ("https://a.example/dir/nul", "https://a.example/dir/con"),
    ],
)
def test_different_urls_do_not_collide(one, other):
    assert key_of(one) != key_of(other)
