"""Keys and certificates of third parties, made on the spot."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Identity:
    """A key with its certificates, its own first; `root` is the authority's."""

    key: str
    certificates: str
    root: str

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The files of the key and of its certificates."""
        paths = folder / "key.pem", folder / "certificates.pem"
        for path, text in zip(paths, (self.key, self.certificates), strict=True):
            path.write_text(text)
        return paths


def identity(name: str, curve: ec.EllipticCurve | None = None, days: float = 30.0) -> Identity:
    """Somebody called `name`, and the authority that says so, for so many days from now on."""
    key, authority_key = ec.generate_private_key(curve or ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate(f"{name} authority", f"{name} authority", authority_key, authority_key, True)
    own = _certificate(name, f"{name} authority", key, authority_key, False, days)
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = own.public_bytes(PEM) + root.public_bytes(PEM)
    return Identity(private.decode(), chain.decode(), root.public_bytes(PEM).decode())


def _certificate(
    name: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    authority: bool,
    days: float = 30.0,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=40))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if not authority:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=True)
    return builder.sign(by, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Others"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
