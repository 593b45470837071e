"""Who signs: a key in a PEM file, a signer of yours by entry point (a KMS), or a certificate for development.

A signer of yours is an object that a callable without arguments returns, named in the entry points of its package:

    [project.entry-points."rushes.signers"]
    kms = "my_package.signing:signer"
"""

import datetime
import os
import queue
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from schemas import entry_points
from schemas.errors import ConfigError, one_line
from schemas.trust import TrustSettings
from trust.extra import library

GROUP = "rushes.signers"
ALGORITHMS = ("es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519")
DEVELOPMENT = "Rushes development certificate"
_FILE = "development-signer.pem"
_VALID_DAYS, _RENEWED_DAYS = 365, 30
ANSWER_S = 30.0
"""For a signer by entry point to answer; then that signature failed."""
_KEY_END = "-----END PRIVATE KEY-----\n"


class Signer(Protocol):
    """A signer by entry point. What `sign` raises fails the clip, or has it published unsigned, as the settings say."""

    @property
    def algorithm(self) -> str:
        """One of ALGORITHMS."""

    @property
    def certificates(self) -> str:
        """PEM: the key's own certificate first, then up to the root."""

    def sign(self, data: bytes) -> bytes:
        """The signature as COSE has it: of ECDSA that is r and s, one after the other. Called from many threads."""


@dataclass(frozen=True)
class PemSigner:
    """A private key in memory."""

    algorithm: str
    certificates: str
    private_key: str = field(repr=False)
    development: bool = False


def find_signer(settings: TrustSettings, state_dir: Path) -> Signer | PemSigner:
    """Who signs by these settings. Raises ConfigError that says what is missing, or what there would be."""
    if settings.signer is not None:
        return _by_entry_point(settings.signer)
    if settings.signing_key is not None and settings.signing_certificates is not None:
        return _from_files(settings.signing_key, settings.signing_certificates)
    return development_signer(state_dir)


def subject_of(certificates: str) -> str:
    """Whose the first certificate is: its common name, else its organization. ConfigError when it is none."""
    try:
        first = _first_certificate(certificates)
    except ValueError as error:
        raise ConfigError(f"no certificate in PEM: {error}") from error
    names = library("cryptography.x509").oid.NameOID
    for name in (names.COMMON_NAME, names.ORGANIZATION_NAME):
        if found := first.subject.get_attributes_for_oid(name):
            return str(found[0].value)
    return str(first.subject.rfc4514_string())


def development_signer(state_dir: Path) -> PemSigner:
    """The certificate that is made here at first use, for one user and one machine, and renewed before it expires.

    It is one file that only its owner can read, put there whole: of two processes that make one, both use the first's.
    """
    path = state_dir / _FILE
    for _ in range(2):
        try:
            text = path.read_text()
        except FileNotFoundError:
            text = ""
        except OSError as error:
            raise ConfigError(f"{path}: the development certificate cannot be read: {error}") from error
        key, end, certificates = text.partition(_KEY_END)
        if end and _days_left(certificates) >= _RENEWED_DAYS:
            return PemSigner("es256", certificates, key + end, development=True)
        _place(path, _made(), replaces=bool(text))
    raise ConfigError(f"{path}: not a development certificate of ours; delete it and another is made")


@dataclass(frozen=True)
class _Asked:
    """A signer by entry point, asked once for what does not change, and never waited for without end."""

    name: str
    algorithm: str
    certificates: str
    signer: Any = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """Raises what the signer raises, TimeoutError, and TypeError for what is no signature."""
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put((self.signer.sign(data), None))
            except BaseException as error:
                answers.put((None, error))

        # Of its own: one that hangs keeps nobody else's, nor the process when that ends.
        threading.Thread(target=ask, name="signer", daemon=True).start()
        try:
            answer, error = answers.get(timeout=ANSWER_S)
        except queue.Empty:
            raise TimeoutError(f"signer {self.name!r}: no answer within {ANSWER_S:g} s") from None
        if error is not None:
            raise RuntimeError(f"signer {self.name!r}: {type(error).__name__}: {one_line(error)}") from error
        if not isinstance(answer, bytes | bytearray) or not answer:
            raise TypeError(f"signer {self.name!r}: returned {type(answer).__name__}, not the bytes of a signature")
        return bytes(answer)


def _by_entry_point(name: str) -> Signer:
    made: Any = entry_points.made(entry_points.find(GROUP, name, f"signer: unknown {name!r}"), "signer")
    try:
        asked = _Asked(name, made.algorithm, made.certificates, made)
        asked.signer.sign  # noqa: B018  # it has one
    except Exception as error:  # what is somebody else's raises what it likes
        raise ConfigError(f"signer {name!r}: {type(error).__name__}: {one_line(error)}") from error
    if asked.algorithm not in ALGORITHMS:
        raise ConfigError(f"signer {name!r}: unknown algorithm {made.algorithm!r}; available: {', '.join(ALGORITHMS)}")
    if not isinstance(asked.certificates, str):
        raise ConfigError(f"signer {name!r}: its certificates are no text in PEM")
    return asked


def _from_files(key_path: Path, certificates_path: Path) -> PemSigner:
    serialization = library("cryptography.hazmat.primitives.serialization")
    try:
        data = key_path.expanduser().read_bytes()
        certificates = certificates_path.expanduser().read_text()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"signing_key, signing_certificates: {error}") from error
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key_path}: not a private key in PEM without a password: {error}") from error
    try:
        first = _first_certificate(certificates)
    except ValueError as error:
        raise ConfigError(f"{certificates_path}: no certificate in PEM: {error}") from error
    if first.public_key() != key.public_key():
        raise ConfigError(f"{certificates_path}: its first certificate is not of the key {key_path}")
    # C2PA's library takes PKCS #8 alone.
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return PemSigner(_algorithm_of(key, key_path), certificates, text)


def _first_certificate(certificates: str) -> Any:
    """The key's own, of a chain in PEM. Raises ValueError where there is none."""
    found = library("cryptography.x509").load_pem_x509_certificates(certificates.encode())
    if not found:
        raise ValueError("it is empty")
    return found[0]


def _algorithm_of(key: Any, path: Path) -> str:
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    kind = type(key).__name__
    if "Ed25519" in kind:
        return "ed25519"
    if "RSA" in kind:
        return "ps256"
    curve = getattr(getattr(key, "curve", None), "name", kind)
    if curve not in curves:
        raise ConfigError(f"{path}: a key of {curve}; available: {', '.join(curves)}, RSA, Ed25519")
    return curves[curve]


def _days_left(certificates: str) -> float:
    try:
        first = _first_certificate(certificates)
    except ValueError:
        return -1.0
    left: datetime.timedelta = first.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return left.total_seconds() / 86_400


def _made() -> str:
    """A key and its certificate, and the one that signed that: C2PA takes no certificate that signed itself."""
    x509 = library("cryptography.x509")
    ec = library("cryptography.hazmat.primitives.asymmetric.ec")
    serialization = library("cryptography.hazmat.primitives.serialization")
    sha256 = library("cryptography.hazmat.primitives.hashes").SHA256()
    now = datetime.datetime.now(datetime.UTC)

    def name(common: str) -> Any:
        oid = x509.oid.NameOID
        return x509.Name(
            [x509.NameAttribute(oid.ORGANIZATION_NAME, "Rushes"), x509.NameAttribute(oid.COMMON_NAME, common)]
        )

    def certificate(key: Any, subject: str, is_authority: bool) -> Any:
        usage = {
            "digital_signature": not is_authority,
            "key_cert_sign": is_authority,
            "crl_sign": is_authority,
            "content_commitment": False,
            "key_encipherment": False,
            "data_encipherment": False,
            "key_agreement": False,
            "encipher_only": False,
            "decipher_only": False,
        }
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(f"{DEVELOPMENT} authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # other machines' clocks
            .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )
        if not is_authority:
            purpose = x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION  # one of those that C2PA asks for
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        return builder.sign(authority_key, sha256)

    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = (certificate(key, DEVELOPMENT, False), certificate(authority_key, f"{DEVELOPMENT} authority", True))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    text: bytes = private + b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
    return text.decode()


def _place(path: Path, text: str, replaces: bool) -> None:
    """Put the file there whole, with mode 600. Unless it `replaces` one, whoever was first stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # 600 from the beginning
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
            if replaces:
                os.replace(name, path)
            else:
                with suppress(FileExistsError):
                    os.link(name, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)
    except OSError as error:
        raise ConfigError(f"{path}: no place for a development certificate: {error} (RUSHES_STATE_DIR)") from error
