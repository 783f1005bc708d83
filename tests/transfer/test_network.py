import pytest

from nim_core.errors import ConfigError, SourceError
from nim_core.settings import Settings
from nim_core.transfer.network import allowed_redirect, check_host, network_config, refused_address


def config_of(endpoints=(), **environ):
    return network_config(Settings(environ), endpoints)


def test_the_proxy_depends_on_scheme_and_host():
    config = config_of(http_proxy="plain:1", HTTPS_PROXY="http://me:p%40ss@tls:2", NO_PROXY="direct.example,10.0.0.0/8")
    assert config.proxy_for("http://a.example/x").reveal() == "http://plain:1"
    assert config.proxy_for("https://a.example/x").reveal() == "http://me:p%40ss@tls:2"
    assert config.proxy_for("https://api.direct.example/x") is None
    assert config.proxy_for("http://10.1.2.3:8080/x") is None


def test_without_variables_everything_is_direct():
    assert config_of().proxy_for("https://a.example/x") is None


def test_the_loopback_is_proxied_like_any_other_host():
    assert config_of(http_proxy="plain:1").proxy_for("http://127.0.0.1:9/x").reveal() == "http://plain:1"


def test_lower_case_no_proxy_wins():
    config = config_of(http_proxy="plain:1", no_proxy="a.example", NO_PROXY="b.example")
    assert config.proxy_for("http://a.example/") is None
    assert config.proxy_for("http://b.example/") is not None


def test_a_bad_proxy_is_refused_when_the_rules_are_made():
    with pytest.raises(ConfigError, match="HTTPS_PROXY"):
        config_of(HTTPS_PROXY="http://me:hunter2@")


def test_a_bad_bundle_is_refused_when_the_rules_are_made():
    with pytest.raises(ConfigError, match="CURL_CA_BUNDLE"):
        config_of(CURL_CA_BUNDLE="missing.pem")


def test_the_rules_show_no_password():
    assert "hunter2" not in repr(config_of(https_proxy="http://me:hunter2@tls:2"))


def test_own_hosts_come_from_endpoints_in_every_form():
    config = config_of(
        ["https://Hub.Example:8443/api", "bare.example/x", "[fe80::1]:80", "s3://bucket", "not a host", ""]
    )
    assert config.own_hosts == {"hub.example", "bare.example", "fe80::1"}


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest", "http://metadata.google.internal/", "http://0.0.0.0:80/", "http://[fe80::1]/"],
)
def test_some_hosts_are_never_reached(url):
    with pytest.raises(SourceError, match="link-local or metadata"):
        check_host(config_of(), url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://10.0.0.1/", "http://localhost/", "https://a.example/"])
def test_other_hosts_are(url):
    check_host(config_of(), url)


def test_an_endpoint_of_the_users_own_may_name_any_host():
    check_host(config_of(["http://169.254.1.1:8080"]), "http://169.254.1.1:9090/x")


@pytest.mark.parametrize(
    ("address", "host", "from_outside", "refused"),
    [
        ("10.0.0.1", "", False, False),
        ("127.0.0.1", "", False, False),
        ("127.0.0.1", "evil.example", True, True),
        ("::1", "evil.example", True, True),
        ("::ffff:127.0.0.1", "evil.example", True, True),
        ("10.0.0.1", "evil.example", True, False),
        ("169.254.169.254", "evil.example", False, True),
        ("fe80::1%lo", "evil.example", False, True),
        ("169.254.169.254", "own.example", False, False),
        ("127.0.0.1", "OWN.example", True, False),
        ("169.254.7.7", "", False, False),
        ("169.254.7.8", "", False, True),
        ("not an address", "", False, True),
    ],
)
def test_addresses_that_names_resolve_to(address, host, from_outside, refused):
    config = config_of(["http://own.example", "http://169.254.7.7"])
    assert refused_address(address, config, host=host, from_outside=from_outside) is refused


@pytest.mark.parametrize(
    ("from_url", "location", "url"),
    [
        ("https://a.example/x", "/y", "https://a.example/y"),
        ("http://a.example/x", "https://b.example/y", "https://b.example/y"),
        ("http://127.0.0.1:1/x", "http://127.0.0.1:2/y", "http://127.0.0.1:2/y"),
        ("http://localhost:1/x", "http://127.0.0.1:2/y", "http://127.0.0.1:2/y"),
        ("https://a.example/x", "https://10.0.0.1/y", "https://10.0.0.1/y"),
        ("http://127.0.0.1:1/x", "http://a.example/y", "http://a.example/y"),
        ("http://a.example/x", "http://own.localhost/y", "http://own.localhost/y"),
        ("http://a.example/x", "http://169.254.7.7/y", "http://169.254.7.7/y"),
    ],
)
def test_redirects_that_are_followed(from_url, location, url):
    config = config_of(["http://own.localhost", "http://169.254.7.7"])
    assert allowed_redirect(config, from_url, location) == url


@pytest.mark.parametrize(
    ("from_url", "location", "reason"),
    [
        ("https://a.example/x", "http://a.example/x?secret", "not encrypted"),
        ("https://a.example/x", "file:///etc/passwd?secret", "other than http"),
        ("https://a.example/x", "gopher://b.example/secret", "other than http"),
        ("https://a.example/x", "data:text/plain,secret", "other than http"),
        ("http://a.example/x", "http://169.254.169.254/latest?secret", "metadata"),
        ("http://a.example/x", "http://2852039166/latest?secret", "metadata"),
        ("http://a.example/x", "http://metadata.google.internal/secret", "metadata"),
        ("http://127.0.0.1/x", "http://0.0.0.0:22/secret", "metadata"),
        ("http://a.example/x", "http://127.0.0.1:22/secret", "this machine"),
        ("http://a.example/x", "http://localhost:22/secret", "this machine"),
        ("http://a.example/x", "http://[::ffff:127.0.0.1]/secret", "this machine"),
        ("http://10.0.0.1/x", "http://127.1/secret", "this machine"),
        ("http://a.example/x", "http:///secret", "clear http or https host"),
        ("http://a.example/x", "http://b.example\\@c.example/secret", "clear http or https host"),
    ],
)
def test_redirects_that_are_refused(from_url, location, reason):
    with pytest.raises(SourceError, match=reason) as caught:
        allowed_redirect(config_of(), from_url, location)
    assert not caught.value.retryable
    assert "secret" not in str(caught.value)
