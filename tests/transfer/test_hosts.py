import ipaddress

import pytest

from nim_core.errors import SourceError
from nim_core.transfer.hosts import (
    headers_across,
    is_forbidden_address,
    is_forbidden_name,
    is_loopback_host,
    literal_address,
    origin,
    resolve_location,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com", ("http", "example.com", 80)),
        ("https://example.com/a:b@c?d", ("https", "example.com", 443)),
        ("HTTPS://Example.COM:443/", ("https", "example.com", 443)),
        ("http://me:secret@example.com:8080/x", ("http", "example.com", 8080)),
        ("http://me:se@cret@example.com/x", ("http", "example.com", 80)),
        ("http://[::1]:8080/", ("http", "::1", 8080)),
        ("http://example.com?x@evil.org", ("http", "example.com", 80)),
        ("http://example.com:/", ("http", "example.com", 80)),
        ("http://example.com#@evil.org", ("http", "example.com", 80)),
    ],
)
def test_origin(url, expected):
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/secret",
        "example.com/secret",
        "http:///secret",
        "http://exa mple.com/secret",
        "http://example.com\\@evil.org/secret",
        "http://%31%36%39.254.169.254/secret",
        "http://example.com:99999/secret",
        "http://example.com:0/secret",
        "http://example.com:8o/secret",
        "http://[::1/secret",
    ],
)
def test_a_host_that_could_be_read_in_two_ways_is_refused(url):
    with pytest.raises(SourceError) as caught:
        origin(url)
    assert "secret" not in str(caught.value)


def test_an_origin_is_written_with_its_port_where_it_matters():
    assert str(origin("https://example.com:443/x")) == "https://example.com"
    assert str(origin("https://[::1]:8443/x")) == "https://[::1]:8443"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("127.1", "127.0.0.1"),
        ("2852039166", "169.254.169.254"),
        ("0xA9FEA9FE", "169.254.169.254"),
        ("0251.0376.0251.0376", "169.254.169.254"),
    ],
)
def test_addresses_in_all_their_forms(host, address):
    assert literal_address(host) == ipaddress.ip_address(address)


@pytest.mark.parametrize("host", ["example.com", "face", "0x.example.com", "1.2.3.4.5", ""])
def test_names_are_not_addresses(host):
    assert literal_address(host) is None


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("169.254.169.254", True),
        ("169.254.0.1", True),
        ("0.0.0.0", True),
        ("0.1.2.3", True),
        ("100.100.100.200", True),
        ("168.63.129.16", True),
        ("::", True),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("fd20:ce::254", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:a9fe:a9fe::1", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("172.16.0.1", False),
        ("100.64.0.1", False),
        ("fd12::1", False),
        ("8.8.8.8", False),
        ("2001:4860:4860::8888", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_forbidden_addresses(address, forbidden):
    assert is_forbidden_address(ipaddress.ip_address(address)) is forbidden


@pytest.mark.parametrize(
    ("host", "forbidden"),
    [
        ("metadata.google.internal", True),
        ("Metadata.Google.Internal.", True),
        ("metadata", True),
        ("instance-data", True),
        ("2852039166", True),
        ("metadata.example.com", False),
        ("example.com", False),
        ("localhost", False),
    ],
)
def test_forbidden_names(host, forbidden):
    assert is_forbidden_name(host) is forbidden


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("bucket.s3.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("127.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("example.com", False),
        ("localhost.evil.org", False),
    ],
)
def test_loopback_hosts(host, loopback):
    assert is_loopback_host(host) is loopback


HEADERS = (
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
    ("Authorization", "Bearer t"),
    ("Cookie", "c"),
    ("If-Match", '"e"'),
    ("If-Range", '"e"'),
    ("Proxy-Authorization", "Basic p"),
    ("Range", "bytes=0-1"),
    ("User-Agent", "nim"),
    ("X-Api-Key", "k"),
    ("nv-org", "o"),
)
HARMLESS = ("Accept", "Accept-Encoding", "If-Match", "If-Range", "Range", "User-Agent")


@pytest.mark.parametrize("to_url", ["https://a.example/other?x", "https://A.example:443/other"])
def test_within_one_origin_every_header_goes_along(to_url):
    assert headers_across(HEADERS, "https://a.example/x", to_url) == HEADERS


@pytest.mark.parametrize(
    "to_url", ["http://a.example/x", "https://b.example/x", "https://a.example:8443/x", "https://x.a.example/"]
)
def test_to_another_origin_only_harmless_headers_go_along(to_url):
    assert tuple(name for name, _ in headers_across(HEADERS, "https://a.example/x", to_url)) == HARMLESS


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://b.example/x", "https://b.example/x"),
        ("https://b.example", "https://b.example"),
        (
            "https://b.example/x%252Fy%2f%7E%7e%26?a=%26&b=%3D+c&d=~'()*!",
            "https://b.example/x%252Fy%2f%7E%7e%26?a=%26&b=%3D+c&d=~'()*!",
        ),
        ("https://b.example/a/../b/./c//d?", "https://b.example/a/../b/./c//d?"),
        ("https://b.example/x#part", "https://b.example/x"),
        ("https://me:secret@b.example/x@y", "https://b.example/x@y"),
        ("//b.example/x", "https://b.example/x"),
        ("/x%252Fy?z=%2F", "https://a.example:8443/x%252Fy?z=%2F"),
        ("x%252Fy", "https://a.example:8443/dir%2Fone/x%252Fy"),
        ("?z=%2F", "https://a.example:8443/dir%2Fone/file?z=%2F"),
        ("../x", "https://a.example:8443/x"),
        ("/with blank/ünï".encode().decode("latin-1"), "https://a.example:8443/with%20blank/%C3%BCn%C3%AF"),
        (" /x ", "https://a.example:8443/x"),
        ("ftp://b.example/x", "ftp://b.example/x"),
    ],
)
def test_a_location_is_resolved_and_otherwise_left_alone(location, url):
    assert resolve_location("https://a.example:8443/dir%2Fone/file?old=1", location) == url


@pytest.mark.parametrize("location", ["", "#part", "  "])
def test_a_location_must_lead_somewhere(location):
    with pytest.raises(SourceError, match="redirect without a target"):
        resolve_location("https://a.example/", location)
