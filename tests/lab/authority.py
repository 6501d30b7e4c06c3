"""The lab's private certificate authority, which signs for the registry, the ACME server and the S3 store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.lab.layout import DOMAIN, DOT_LAB, WORLD

CA = DOT_LAB / "ca.crt"
WORLD_CERTIFICATE = DOT_LAB / "world.crt"
NAMES = x509.SubjectAlternativeName(
    [
        x509.DNSName(f"acme.{DOMAIN}"),
        x509.DNSName(f"registry.{DOMAIN}"),
        x509.IPAddress(WORLD.ipv4),  # for the S3 store, which this machine reaches without the lab's DNS
    ]
)
LIFETIME = timedelta(days=825)  # the longest validity that every client accepts from a private authority


def make() -> None:
    """Create the authority and world's certificate if either is missing.

    Issue world's certificate again if it lacks one of the names.
    """
    if CA.exists() and WORLD_CERTIFICATE.exists():
        certificate, authority = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (WORLD_CERTIFICATE, CA))
        if certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value != NAMES:
            _issue(authority, _key(CA))
        return
    key = _new_key(CA)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "marketplace-infra lab authority")])
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    authority = (
        _builder(name, key, issuer=name, issuer_key=key)
        .add_extension(constraints, critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(CA, authority)
    _issue(authority, key)


def key_of(certificate: Path) -> Path:
    """Return the path of a certificate's private key."""
    return certificate.with_suffix(".key")


def _issue(authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey) -> None:
    key = _new_key(WORLD_CERTIFICATE)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"world.{DOMAIN}")])
    certificate = (
        _builder(name, key, issuer=authority.subject, issuer_key=authority_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(NAMES, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write(WORLD_CERTIFICATE, certificate)


def _key(certificate: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(key_of(certificate).read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{key_of(certificate)} is another kind of key")
    return key


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _new_key(certificate: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    file = key_of(certificate)
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def _write(file: Path, certificate: x509.Certificate) -> None:
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
