import pytest

from nim_core.errors import ConfigError
from nim_core.settings import CORE_VARIABLES
from nim_core.transfer.proxies import bypasses_proxy, parse_proxy, pick_proxy
from nim_core.types import Secret, Variables


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://proxy.corp:3128", "http://proxy.corp:3128"),
        ("http://proxy.corp:3128/", "http://proxy.corp:3128"),
        ("proxy.corp:3128", "http://proxy.corp:3128"),
        ("proxy.corp", "http://proxy.corp:80"),
        ("10.0.0.1:8080", "http://10.0.0.1:8080"),
        ("HTTP://Proxy.Corp:3128", "http://proxy.corp:3128"),
        ("https://proxy.corp", "https://proxy.corp:443"),
        ("socks4://proxy.corp", "socks4://proxy.corp:1080"),
        ("socks4a://proxy.corp", "socks4a://proxy.corp:1080"),
        ("socks5://proxy.corp", "socks5://proxy.corp:1080"),
        ("socks5h://proxy.corp:1081", "socks5h://proxy.corp:1081"),
        ("http://[::1]:3128", "http://[::1]:3128"),
        ("http://me:secret@proxy.corp:3128", "http://me:secret@proxy.corp:3128"),
        ("me:secret@proxy.corp:3128", "http://me:secret@proxy.corp:3128"),
        ("http://me@proxy.corp:3128", "http://me:@proxy.corp:3128"),
        ("http://do%5Cme:p%40ss%3Aw%2Frd%23@proxy.corp:3128", "http://do%5Cme:p%40ss%3Aw%2Frd%23@proxy.corp:3128"),
        ("http://me:p@ss@proxy.corp:3128", "http://me:p%40ss@proxy.corp:3128"),
    ],
)
def test_a_proxy_is_written_the_way_libcurl_takes_it(text, url):
    assert parse_proxy("HTTPS_PROXY", Secret(text)).url.reveal() == url


def test_userinfo_is_decoded_once_for_those_who_want_it_plain():
    proxy = parse_proxy("HTTPS_PROXY", Secret("http://do%5Cme:p%40ss%2525@proxy.corp:3128"))
    assert (proxy.username, proxy.password) == (Secret("do\\me"), Secret("p@ss%25"))


def test_a_proxy_without_user_has_none():
    proxy = parse_proxy("HTTPS_PROXY", Secret("http://proxy.corp:3128"))
    assert (proxy.username, proxy.password) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "http://",
        "http://me:hunter2@",
        "http://me:hunter2@:3128",
        "http://me:hunter2@proxy.corp:0",
        "http://me:hunter2@proxy.corp:65536",
        "http://me:hunter2@proxy.corp:port",
        "http://me:hun#ter2@proxy.corp:3128",
        "http://me:hun/ter2@proxy.corp:3128",
        "http://me:80/hunter2@proxy.corp:3128",
        "http://me:hunter2@pro xy.corp:3128",
        "http://me:hunter2@[::1:3128",
        "socks://me:hunter2@proxy.corp:1080",
        "ftp://me:hunter2@proxy.corp",
    ],
)
def test_what_is_not_a_proxy_names_the_variable_and_shows_nothing(text):
    with pytest.raises(ConfigError, match="HTTPS_PROXY is not a proxy URL") as caught:
        parse_proxy("HTTPS_PROXY", Secret(text))
    shown = f"{caught.value} {caught.value.hint}"
    assert "hunter2" not in shown
    assert "ter2" not in shown


def test_a_proxy_shows_no_password_wherever_it_is_printed():
    proxy = parse_proxy("HTTPS_PROXY", Secret("http://me:hunter2@proxy.corp:3128"))
    assert proxy.display == "http://proxy.corp:3128"
    assert "hunter2" not in f"{proxy} {proxy!r} {proxy.url}"


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, None),
        ({"https_proxy": "a:1", "HTTPS_PROXY": "b:1", "all_proxy": "c:1"}, "https_proxy"),
        ({"HTTPS_PROXY": "b:1", "all_proxy": "c:1"}, "HTTPS_PROXY"),
        ({"all_proxy": "c:1", "ALL_PROXY": "d:1"}, "all_proxy"),
        ({"ALL_PROXY": "d:1"}, "ALL_PROXY"),
        ({"http_proxy": "e:1"}, None),
        ({"https_proxy": "", "HTTPS_PROXY": "b:1"}, "HTTPS_PROXY"),
        ({"https_proxy": "a:1", "all_proxy": "socks://not:a:proxy"}, "https_proxy"),
    ],
)
def test_lower_case_wins_and_all_proxy_is_last(environ, variable):
    proxy = pick_proxy("https", Variables(CORE_VARIABLES, environ))
    assert (proxy.variable if proxy else None) == variable


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("", "example.com", 443, False),
        ("*", "example.com", 443, True),
        ("a.com,*", "example.com", 443, True),
        ("example.com", "example.com", 443, True),
        ("example.com", "EXAMPLE.com", 443, True),
        ("EXAMPLE.COM", "example.com", 443, True),
        ("example.com", "api.example.com", 443, True),
        ("example.com", "notexample.com", 443, False),
        ("example.com", "example.com.evil.org", 443, False),
        (".example.com", "api.example.com", 443, True),
        (".example.com", "example.com", 443, True),
        (".example.com", "notexample.com", 443, False),
        ("*.example.com", "api.example.com", 443, True),
        ("example.com.", "example.com", 443, True),
        ("example.com", "example.com.", 443, True),
        ("example.com:8443", "example.com", 8443, True),
        ("example.com:8443", "example.com", 443, False),
        (" a.com ,  example.com ", "example.com", 443, True),
        ("a.com example.com", "example.com", 443, True),
        (",,", "example.com", 443, False),
        (".", "example.com", 443, False),
        ("10.0.0.1", "10.0.0.1", 80, True),
        ("10.0.0.1", "10.0.0.10", 80, False),
        ("0.0.1", "10.0.0.1", 80, False),
        ("10.0.0.1:80", "10.0.0.1", 80, True),
        ("10.0.0.1:80", "10.0.0.1", 81, False),
        ("10.0.0.0/8", "10.200.3.4", 80, True),
        ("10.0.0.7/8", "10.200.3.4", 80, True),
        ("10.0.0.0/8", "11.0.0.1", 80, False),
        ("10.0.0.0/99", "10.0.0.1", 80, False),
        ("10.0.0.0/8", "ten.example.com", 80, False),
        ("::1", "::1", 80, True),
        ("::1", "[::1]", 80, True),
        ("[::1]", "::1", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]:80", "::1", 81, False),
        ("::0001", "::1", 80, True),
        ("fd00::/8", "fd12::5", 80, True),
        ("[fd00::]/8", "fd12::5", 80, True),
        ("fd00::/8", "10.0.0.1", 80, False),
        ("localhost", "127.0.0.1", 80, False),
        ("", "127.0.0.1", 80, False),
        ("", "localhost", 80, False),
    ],
)
def test_no_proxy(no_proxy, host, port, direct):
    assert bypasses_proxy(no_proxy, host, port) is direct
