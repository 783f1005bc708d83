"""Where requests go: endpoints, regions, and buckets in the path or in the host name."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest
from nim_source_s3.client import default_style, endpoint_of, region_of, style_of
from nim_source_s3.credentials import ENVIRONMENT
from nim_source_s3.refs import S3Ref

from nim_core.errors import ConfigError, NotFoundError
from nim_core.testing.harness import object_uri as uri_of
from nim_core.types import Variables

KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}


def variables(**values):
    return Variables(ENVIRONMENT, values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"AWS_ENDPOINT_URL": "http://a:9000"}, "http://a:9000"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "https://b/x"}, "https://b/x"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, None),
    ],
)
def test_endpoints(values, expected):
    assert endpoint_of(variables(**values)) == expected


@pytest.mark.parametrize("value", ["minio:9000", "ftp://a", "http://user:pass@a", "http://"])
def test_what_is_no_endpoint(value):
    with pytest.raises(ConfigError, match="no http or https URL in AWS_ENDPOINT_URL") as caught:
        endpoint_of(variables(AWS_ENDPOINT_URL=value))
    assert "pass" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-1", "AWS_REGION": "eu-west-2"}, "eu-west-2"),
    ],
)
def test_regions(values, expected):
    assert region_of(variables(**values)) == expected


@pytest.mark.parametrize(
    ("style", "path_style", "expected"),
    [
        ("", "", None),
        ("auto", "", None),
        ("virtual", "", "virtual"),
        ("Path", "", "path"),
        ("virtual", "1", "path"),
        ("virtual", "0", "virtual"),
    ],
)
def test_styles(style, path_style, expected):
    assert style_of(variables(AWS_S3_ADDRESSING_STYLE=style, AWS_S3_USE_PATH_STYLE=path_style)) == expected


def test_what_is_no_style():
    with pytest.raises(ConfigError, match="no addressing style: sideways"):
        style_of(variables(AWS_S3_ADDRESSING_STYLE="sideways"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("s3.eu-west-1.amazonaws.com", "virtual"),
        ("s3.cn-north-1.amazonaws.com.cn", "virtual"),
        ("minio.example", None),
        ("amazonaws.com.example", None),
        ("ns.compat.objectstorage.us-ashburn-1.oraclecloud.com", "path"),
        ("ns.compat.objectstorage.us-ashburn-1.oci.customer-oci.com", "path"),
        ("vhcompat.objectstorage.us-ashburn-1.oci.customer-oci.com", "virtual"),
        ("objectstorage.us-ashburn-1.oraclecloud.com", None),
    ],
)
def test_styles_of_hosts(host, expected):
    assert default_style(f"https://{host}") == expected


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({"AWS_REGION": "eu-west-1"}, "https://bucket.s3.eu-west-1.amazonaws.com/file"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "x"}, "https://bucket.s3.eu-west-1.amazonaws.com/file"),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, "https://bucket.s3.eu-west-2.amazonaws.com/file"),
        ({}, "https://bucket.s3.amazonaws.com/file"),
        ({"AWS_S3_USE_PATH_STYLE": "true"}, "https://s3.amazonaws.com/bucket/file"),
        ({"AWS_ENDPOINT_URL": "http://minio.example:9000"}, "http://minio.example:9000/bucket/file"),
        (
            {"AWS_ENDPOINT_URL": "http://minio.example:9000", "AWS_S3_ADDRESSING_STYLE": "virtual"},
            "http://bucket.minio.example:9000/file",
        ),
        (
            {"AWS_ENDPOINT_URL": "https://ns.compat.objectstorage.r.oraclecloud.com"},
            "https://ns.compat.objectstorage.r.oraclecloud.com/bucket/file",
        ),
        (
            {"AWS_ENDPOINT_URL": "https://vhcompat.objectstorage.r.oci.customer-oci.com"},
            "https://bucket.vhcompat.objectstorage.r.oci.customer-oci.com/file",
        ),
    ],
)
def test_urls(open_source, values, url):
    assert signed_url(open_source({**KEYS, **values}), "s3://bucket/file") == url


def test_a_bucket_with_dots_is_named_in_the_path_of_https(open_source):
    source = open_source({**KEYS, "AWS_REGION": "eu-west-1"})
    assert signed_url(source, "s3://models.example/file") == "https://s3.eu-west-1.amazonaws.com/models.example/file"


def test_a_profile_s_style(open_source, monkeypatch, tmp_path):
    (tmp_path / "config").write_text("[default]\nregion = eu-west-3\ns3 =\n  addressing_style = path\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    source = open_source(KEYS)
    assert signed_url(source, "s3://bucket/file") == "https://s3.eu-west-3.amazonaws.com/bucket/file"


def signed_url(source, text):
    """Return the URL, without its signature, that an object would be fetched from."""
    ref = S3Ref.parse(uri_of(text))
    url, _, _ = source._signed(ref.bucket, ref.key, source._store.clients.access(ref))
    return url.partition("?")[0]


@pytest.mark.parametrize("style", ["virtual", "path"])
def test_both_styles_at_a_real_store(open_source, server, names, style):
    environment = {**server.environment(), "AWS_ENDPOINT_URL": server.host_url, "AWS_S3_ADDRESSING_STYLE": style}
    source, uri = open_source(environment), uri_of("s3://models/llama/config.json")
    [file] = source.list_files(uri).files
    url = source.locate(uri, file).url.reveal()
    assert urlsplit(url).hostname == ("models.s3.localhost" if style == "virtual" else "s3.localhost")
    assert httpx.get(url, trust_env=False).status_code == 200
    assert len(source.list_files(uri_of("s3://models/llama/")).files) == 3


def test_a_store_that_does_not_know_its_buckets_as_hosts(open_source, server, monkeypatch, names):
    url = server.host_url.replace("s3.localhost", "other.s3.localhost")
    environment = {**server.environment(), "AWS_ENDPOINT_URL": url, "AWS_S3_ADDRESSING_STYLE": "virtual"}
    with pytest.raises(NotFoundError, match="no such bucket") as caught:
        open_source(environment).list_files(uri_of("s3://models/llama/config.json"))
    assert "AWS_S3_USE_PATH_STYLE" in caught.value.hint
