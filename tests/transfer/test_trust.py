import shutil
import ssl

import pytest

from nim_core.errors import ConfigError
from nim_core.settings import CORE_VARIABLES
from nim_core.testing.certificates import make_certificates
from nim_core.transfer.trust import find_trust, ssl_context
from nim_core.types import Variables


def trust_of(**environ):
    return find_trust(Variables(CORE_VARIABLES, {name: str(value) for name, value in environ.items()}))


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("trust")).ca


@pytest.fixture
def folder(tmp_path, ca):
    hashed = tmp_path / "hashed"
    hashed.mkdir()
    shutil.copy(ca, hashed / "0123abcd.0")
    return hashed


def test_without_variables_something_is_trusted():
    trust = trust_of()
    assert trust.ca_file or trust.ca_path
    assert ssl_context(trust).cert_store_stats()["x509"] > 0 or trust.ca_path


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_file_may_be_named_by_each_variable(variable, ca):
    trust = trust_of(**{variable: ca})
    assert (trust.origin, trust.ca_file, trust.ca_path) == (variable, ca, None)


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_folder_may_be_named_by_each_variable(variable, folder):
    trust = trust_of(**{variable: folder})
    assert (trust.origin, trust.ca_file, trust.ca_path) == (variable, None, folder)


def test_the_first_variable_wins_and_the_others_are_not_even_looked_at(ca, tmp_path):
    missing = tmp_path / "missing.pem"
    assert trust_of(SSL_CERT_FILE=ca, REQUESTS_CA_BUNDLE=missing, CURL_CA_BUNDLE=missing).origin == "SSL_CERT_FILE"
    assert trust_of(REQUESTS_CA_BUNDLE=ca, CURL_CA_BUNDLE=missing).origin == "REQUESTS_CA_BUNDLE"


def test_file_and_folder_of_openssl_are_used_together(ca, folder):
    trust = trust_of(SSL_CERT_FILE=ca, SSL_CERT_DIR=folder)
    assert (trust.ca_file, trust.ca_path) == (ca, folder)


def test_several_folders_are_kept_as_openssl_reads_them(folder, tmp_path):
    assert trust_of(SSL_CERT_DIR=f"{tmp_path}:{folder}").ca_path is not None


def test_native_tls_ignores_the_variables(tmp_path):
    trust = trust_of(NIM_SDK_USE_NATIVE_TLS="1", SSL_CERT_FILE=tmp_path / "missing.pem")
    assert trust == trust_of()


def test_the_variables_of_this_very_process_are_not_read(monkeypatch, ca):
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    assert trust_of().ca_file != ca


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_file_that_does_not_exist_is_named(variable, tmp_path):
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigError, match=f"{variable} names .*{missing}"):
        trust_of(**{variable: missing})


@pytest.mark.parametrize(
    "content", ["", "not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_a_certificate_is_named(content, tmp_path):
    file = tmp_path / "bundle.pem"
    file.write_text(content)
    with pytest.raises(ConfigError, match=f"SSL_CERT_FILE names a file without a certificate: {file}") as caught:
        trust_of(SSL_CERT_FILE=file)
    assert "PEM" in caught.value.hint


def test_a_private_key_is_no_certificate(tmp_path):
    key = make_certificates(tmp_path).key
    with pytest.raises(ConfigError, match="without a certificate"):
        trust_of(SSL_CERT_FILE=key)


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_a_folder_without_hash_names_says_how_to_make_them(variable, tmp_path, ca):
    shutil.copy(ca, tmp_path / "corp.pem")
    with pytest.raises(ConfigError, match=f"{variable} names a folder without certificates") as caught:
        trust_of(**{variable: tmp_path})
    assert "openssl rehash" in caught.value.hint


def test_an_empty_folder_beside_a_good_file_does_no_harm(tmp_path, ca):
    assert trust_of(SSL_CERT_FILE=ca, SSL_CERT_DIR=tmp_path).ca_file == ca


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="SSL_CERT_DIR names a folder that does not exist"):
        trust_of(SSL_CERT_DIR=tmp_path / "missing")


def test_the_context_checks_names_and_certificates(ca):
    context = ssl_context(trust_of(SSL_CERT_FILE=ca))
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
