"""Objects and prefixes of a real server: what is listed, and that the bytes are there."""

from __future__ import annotations

import base64
import hashlib
import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import google_crc32c
import httpx
import pytest

from nim_core.errors import InvalidUriError, NotFoundError
from nim_core.testing.harness import object_uri as uri_of
from nim_core.types import Digest, RemoteFile

DATA = b"0123456789" * 1000
CRC32C = google_crc32c.value(DATA).to_bytes(4, "big")
PART = 5 << 20
ODD_KEYS = (
    "nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json",
    "a%252Fb",
    "with blank and + plus",
    "übergrößé 模型.bin",
    "q?a=b&c#d;e:f@g=h,i!j'k(l)m*n~o$p",
)

SHA256 = Digest("sha256", hashlib.sha256(DATA).hexdigest())
MANY = 10_000


@pytest.fixture(scope="module")
def odd(server):
    """A bucket of keys that do not look like paths; each object holds its key."""
    client = server.client()
    client.create_bucket(Bucket="odd")
    for key in ODD_KEYS:
        client.put_object(Bucket="odd", Key=key, Body=key.encode())


def put_in_parts(client, bucket, key):
    """Put an object of two parts, with the kind of checksum that is made of the parts' own."""
    wanted = {"Bucket": bucket, "Key": key}
    upload = client.create_multipart_upload(**wanted, ChecksumAlgorithm="SHA256")["UploadId"]
    parts = []
    for number, body in enumerate((b"x" * PART, b"y"), start=1):
        place = {**wanted, "UploadId": upload, "PartNumber": number}
        part = client.upload_part(**place, Body=body, ChecksumAlgorithm="SHA256")
        parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]})
    client.complete_multipart_upload(**wanted, UploadId=upload, MultipartUpload={"Parts": parts})


def fetch(location, **headers):
    """Get what a location leads to, as the engine would."""
    own = {name: value.reveal() for name, value in location.headers}
    return httpx.get(location.url.reveal(), headers=own | headers, trust_env=False)


def paths(listing):
    return [(file.path, file.size) for file in listing.files]


def test_a_prefix_lists_all_below(source):
    listing = source.list_files(uri_of("s3://models/llama/"))
    assert paths(listing) == [("config.json", 10_000), ("empty", 0), ("sub/weights.bin", 10_000)]
    assert listing.pinned is None


def test_a_model_s_prefix_needs_no_slash(source):
    uri = uri_of("s3://models/llama")
    listing = source.list_files(uri)
    assert paths(listing) == paths(source.list_files(uri_of("s3://models/llama/")))
    assert [fetch(source.locate(uri, file)).content for file in listing.files] == [DATA, b"", DATA]


@pytest.mark.parametrize("text", ["s3://odd", "s3://odd/"])
def test_a_bucket_lists_all_that_is_in_it(source, odd, text):
    assert {path for path, _ in paths(source.list_files(uri_of(text)))} == set(ODD_KEYS)


def test_an_object_is_one_file_with_its_checksum(source):
    [file] = source.list_files(uri_of("s3://models/llama/config.json")).files
    assert file == RemoteFile(path="config.json", size=10_000, digests=(SHA256,))


def test_another_checksum(source, server):
    value = base64.b64encode(CRC32C).decode()
    server.client().put_object(Bucket="models", Key="crc32c", Body=DATA, ChecksumCRC32C=value)
    [file] = source.list_files(uri_of("s3://models/crc32c")).files
    assert file.digests == (Digest("crc32c", CRC32C.hex()),)


def test_the_checksum_that_clients_send_unasked(source, server):
    server.client().put_object(Bucket="models", Key="default", Body=DATA)
    [file] = source.list_files(uri_of("s3://models/default")).files
    assert [digest.algorithm for digest in file.digests] == ["crc32"]


def test_checksums_of_objects_that_were_listed_below_a_prefix(source):
    source.list_files(uri_of("s3://models/llama/"))
    [file] = source.list_files(uri_of("s3://models/llama/config.json")).files
    assert file.digests == (SHA256,)


def test_checksums_and_etags_made_of_parts_are_no_digests(source, server):
    put_in_parts(server.client(), "models", "big/in-parts.bin")
    uri = uri_of("s3://models/big/in-parts.bin")
    [file] = source.list_files(uri).files
    assert file == RemoteFile(path="in-parts.bin", size=PART + 1)
    assert source.locate(uri, file).validator.endswith('-2"')


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_are_literal(source, odd, key):
    uri = uri_of(f"s3://odd/{key}")
    [file] = source.list_files(uri).files
    assert file.path == key
    assert fetch(source.locate(uri, file)).content == key.encode()


def test_odd_keys_below_a_prefix(source, odd):
    uri = uri_of("s3://odd/")
    contents = {file.path: fetch(source.locate(uri, file)).text for file in source.list_files(uri).files}
    assert contents == {key: key for key in ODD_KEYS}


def test_a_url_serves_ranges_of_one_version(source):
    uri = uri_of("s3://models/llama/config.json")
    [file] = source.list_files(uri).files
    location = source.locate(uri, file)
    assert (location.ranges, location.size) == (True, 10_000)
    part = fetch(location, Range="bytes=10-19", **{"If-Match": location.validator})
    assert (part.status_code, part.content, part.headers["etag"]) == (206, DATA[10:20], location.validator)


def test_a_url_says_when_it_expires_and_shows_no_key(source, server):
    uri = uri_of("s3://models/llama/config.json")
    [file] = source.list_files(uri).files
    location = source.locate(uri, file)
    assert 3500 < location.expires_at - time.time() <= 3600
    assert server.reader.access_key not in repr(location)
    assert server.reader.secret_key not in location.url.reveal()


def test_a_location_asked_for_again_is_news_from_the_store(source, server):
    client, uri = server.client(), uri_of("s3://models/replaced")
    client.put_object(Bucket="models", Key="replaced", Body=b"old")
    [file] = source.list_files(uri).files
    client.put_object(Bucket="models", Key="replaced", Body=b"newer")
    first, second = source.locate(uri, file), source.locate(uri, file)
    assert (first.size, second.size) == (3, 5)
    assert first.validator != second.validator == fetch(second).headers["etag"]


def test_an_object_that_has_gone(source, server):
    client, uri = server.client(), uri_of("s3://models/fleeting")
    client.put_object(Bucket="models", Key="fleeting", Body=b"x")
    [file] = source.list_files(uri).files
    source.locate(uri, file)
    client.delete_object(Bucket="models", Key="fleeting")
    with pytest.raises(NotFoundError, match=r"no such object: s3://models/fleeting"):
        source.locate(uri, file)


def test_folders_made_in_a_console_are_no_files(source, server):
    client = server.client()
    client.put_object(Bucket="models", Key="console/", Body=b"")
    client.put_object(Bucket="models", Key="console/file", Body=b"x")
    assert paths(source.list_files(uri_of("s3://models/console/"))) == [("file", 1)]


def test_a_prefix_with_nothing_below(source):
    assert source.list_files(uri_of("s3://models/nothing/")).files == ()


def test_a_key_is_no_prefix_of_another_name(source):
    with pytest.raises(NotFoundError, match="no such object") as caught:
        source.list_files(uri_of("s3://models/llam"))
    assert "s3://bucket/prefix/" in caught.value.hint


@pytest.mark.parametrize("text", ["s3://", "s3://-/x", "s3://a b/x", "s3://user:pass@bucket/x"])
def test_what_no_bucket_is_called(source, text):
    with pytest.raises(InvalidUriError, match="not a name of a bucket"):
        source.list_files(uri_of(text))


def test_keys_that_are_not_safe_as_paths_are_refused(source, server):
    server.client().put_object(Bucket="models", Key="unsafe/aux.txt", Body=b"x")
    with pytest.raises(InvalidUriError, match="unsafe file path"):
        source.list_files(uri_of("s3://models/unsafe/"))


def test_several_threads_ask_at_once(source, odd):
    uris = [uri_of(f"s3://odd/{key}") for key in ODD_KEYS] * 8
    with ThreadPoolExecutor(8) as threads:
        listings = list(threads.map(source.list_files, uris))
    assert [listing.files[0].path for listing in listings] == list(ODD_KEYS) * 8


@pytest.mark.timeout(300)
def test_ten_thousand_objects(source, server):
    client, keys = server.client(), [f"{index % 97:02}/{index:05}%2F+ é" for index in range(MANY)]
    client.create_bucket(Bucket="many")
    urls = [client.generate_presigned_url("put_object", Params={"Bucket": "many", "Key": key}) for key in keys]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(put_all, [urls[start::4] for start in range(4)]))
    listing = source.list_files(uri_of("s3://many"))
    assert paths(listing) == [(key, 1) for key in sorted(keys, key=str.encode)]


def put_all(urls):
    """Put one byte to each URL, over one connection."""
    connection = http.client.HTTPConnection(urlsplit(urls[0]).netloc, timeout=60)
    for url in urls:
        parts = urlsplit(url)
        connection.request("PUT", f"{parts.path}?{parts.query}", body=b"x")
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    connection.close()
