"""A private certificate authority and a server certificate, for servers on this machine."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Certificates", "make_certificates"]

_CA_USES = frozenset({"key_cert_sign", "crl_sign"})
_SERVER_USES = frozenset({"digital_signature"})
_BOTH_SIDES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@frozen(kw_only=True)
class Certificates:
    """
    PEM files: the authority to trust, and a certificate and key for 127.0.0.1 and localhost.

    The certificate does for a server, and for a client of one that asks for certificates.
    """

    ca: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return a context a server can use."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a context that trusts this authority and no other."""
        return ssl.create_default_context(cafile=self.ca)


def make_certificates(folder: Path, *names: str) -> Certificates:
    """Write an authority and a server certificate, valid for ten years, into ``folder``; ``names``: further hosts."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, server_name = _name("nim testing authority"), _name("localhost")
    ca = _common(ca_name, ca_name, ca_key.public_key(), ca_key, _CA_USES)
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    server = _common(server_name, ca_name, server_key.public_key(), ca_key, _SERVER_USES)
    server = server.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    server = server.add_extension(x509.ExtendedKeyUsage(_BOTH_SIDES), critical=False)
    server = server.add_extension(_own_names(names), critical=False)
    result = Certificates(ca=folder / "ca.pem", certificate=folder / "server.pem", key=folder / "server.key")
    _write(result.ca, _pem(ca.sign(ca_key, hashes.SHA256())))
    _write(result.certificate, _pem(server.sign(ca_key, hashes.SHA256())))
    _write(result.key, _key_pem(server_key))
    return result


def _common(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    uses: frozenset[str],
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(x509.KeyUsage(**{use: use in uses for use in _USES}), critical=True)
    )


def _own_names(names: Iterable[str]) -> x509.SubjectAlternativeName:
    hosts = [x509.DNSName(name) for name in ("localhost", *names)]
    return x509.SubjectAlternativeName([*hosts, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(file: Path, data: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(data)
