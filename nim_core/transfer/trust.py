"""Which certificate authorities are trusted, for both paths. Reads the disk, never the network."""

from __future__ import annotations

import os
import re
import ssl
from functools import lru_cache
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.types import Variables

__all__ = ["Trust", "find_trust", "own_trust", "ssl_context"]

_BUNDLES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Arch, Alpine
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Red Hat
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # Red Hat, without the compatibility links
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),  # Alpine
)
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+")


@frozen(kw_only=True)
class Trust:
    """
    The certificate authorities to trust; at least one of the two places is given.

    Attributes:
        origin: Where the choice comes from, for messages: a variable's name or words.
        ca_file: PEM file.
        ca_path: Folder of PEM files under their hash names (``openssl rehash``), or several separated as in ``PATH``.
    """

    origin: str
    ca_file: Path | None = None
    ca_path: Path | None = None


def find_trust(variables: Variables) -> Trust:
    """
    Decide whom to trust.

    SSL_CERT_FILE and SSL_CERT_DIR come first, together when both are set, as OpenSSL has it; then REQUESTS_CA_BUNDLE,
    which may be a folder; then CURL_CA_BUNDLE; then the system's store; then certifi's list. With
    NIM_SDK_USE_NATIVE_TLS the system's store comes first and the variables are ignored.

    Raises:
        ConfigError: A variable names a place that does not exist, cannot be read or holds no certificate.
    """
    if not variables.flag("NIM_SDK_USE_NATIVE_TLS"):
        named = _from_openssl_variables(variables) or _from_bundle_variables(variables)
        if named is not None:
            return named
    return _system_store(*_openssl_defaults()) or _certifi_list()


@lru_cache(maxsize=8)
def own_trust(file: Path) -> Trust:
    """Return the trust in a source's own authorities. Raises ConfigError for a file that has none."""
    return Trust(origin="the source's own", ca_file=_checked_file("the source", file))


def ssl_context(trust: Trust) -> ssl.SSLContext:
    """Return a client's context that trusts exactly ``trust``."""
    cafile, capath = (str(path) if path else None for path in (trust.ca_file, trust.ca_path))
    context = ssl.create_default_context(cafile=cafile, capath=capath)
    # Python 3.13 began to refuse authorities that RFC 5280 faults and that OpenSSL, libcurl and older Pythons accept.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _from_openssl_variables(variables: Variables) -> Trust | None:
    file, folder = variables.text("SSL_CERT_FILE"), variables.text("SSL_CERT_DIR")
    if not file and not folder:
        return None
    return Trust(
        origin="SSL_CERT_FILE" if file else "SSL_CERT_DIR",
        ca_file=_checked_file("SSL_CERT_FILE", Path(file)) if file else None,
        ca_path=_checked_folders("SSL_CERT_DIR", folder, may_be_bare=bool(file)) if folder else None,
    )


def _from_bundle_variables(variables: Variables) -> Trust | None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        value = variables.text(name)
        if value and Path(value).is_dir():
            return Trust(origin=name, ca_path=_checked_folders(name, value, may_be_bare=False))
        if value:
            return Trust(origin=name, ca_file=_checked_file(name, Path(value)))
    return None


def _checked_file(variable: str, file: Path) -> Path:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError as exc:
        raise _no_certificate(variable, file) from exc
    except OSError as exc:
        raise ConfigError(f"{variable} names a file that cannot be read: {file} ({exc.strerror})") from exc
    if not context.cert_store_stats()["x509"]:
        raise _no_certificate(variable, file)
    return file


def _no_certificate(variable: str, file: Path) -> ConfigError:
    return ConfigError(
        f"{variable} names a file without a certificate: {file}",
        hint=f"set {variable} to a file of certificates in PEM form, or unset it",
    )


def _checked_folders(variable: str, value: str, *, may_be_bare: bool) -> Path:
    """Return ``value`` when its folders exist and, unless ``may_be_bare``, one of them has a certificate to offer."""
    folders = [Path(part) for part in value.split(os.pathsep) if part]
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        raise ConfigError(f"{variable} names a folder that does not exist: {missing[0]}")
    if not may_be_bare and not any(_has_hashed_names(folder) for folder in folders):
        raise ConfigError(
            f"{variable} names a folder without certificates: {value}",
            hint="certificates in a folder are found by hash names; make them with: openssl rehash FOLDER",
        )
    return Path(value)


def _has_hashed_names(folder: Path) -> bool:
    try:
        return any(_HASHED_NAME.fullmatch(entry.name) for entry in folder.iterdir())
    except OSError:
        return False


def _openssl_defaults() -> tuple[Path, Path]:
    """Return file and folder that OpenSSL was built to look in; its own reading of the environment is left aside."""
    paths = ssl.get_default_verify_paths()
    return Path(paths.openssl_cafile), Path(paths.openssl_capath)


def _system_store(own_file: Path, own_folder: Path) -> Trust | None:
    for file in (own_file, *_BUNDLES):
        if file.is_file() and file.stat().st_size:
            return Trust(origin="the system's store", ca_file=file)
    if _has_hashed_names(own_folder):
        return Trust(origin="the system's store", ca_path=own_folder)
    return None


def _certifi_list() -> Trust:
    import certifi

    return Trust(origin="certifi's list", ca_file=Path(certifi.where()))
