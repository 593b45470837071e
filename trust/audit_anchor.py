"""Anchors of the audit log: how far it went, said at an instant, and signed by whoever signs clips.

An anchor is worth something where whoever can change the log cannot change the anchor: in another store, in the log of
another machine, on paper.
"""

import base64
import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.audit import Head, canonical
from schemas.errors import ConfigError, RushesError
from schemas.trust import TrustSettings
from trust.credentials import is_signing
from trust.extra import library
from trust.signers import PemSigner, Signer, find_signer, subject_of

_ECDSA = {"es256": 32, "es384": 48, "es512": 66}  # bytes of each of r and s
_HASHES = {"256": "SHA256", "384": "SHA384", "512": "SHA512"}


class Anchor(BaseModel):
    """A head, as it is kept elsewhere. Without a signature it says no more than whoever keeps it does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log: str
    position: int = Field(ge=0)
    hash: str
    at: str
    algorithm: str = ""
    certificates: str = Field(default="", description="PEM: the signer's own first")
    signature: str = Field(default="", description="base64, as COSE has it")

    @property
    def head(self) -> Head:
        return Head(self.log, self.position, self.hash)

    @property
    def signed(self) -> bytes:
        """What the signature is of."""
        told = {"at": self.at, "hash": self.hash, "log": self.log, "position": self.position, "what": "rushes audit"}
        return canonical(told).encode()


def anchor_signer(settings: TrustSettings, state_dir: Path) -> Signer | PemSigner | None:
    """Who signs anchors: who signs clips; None where they are not signed, or where that signer cannot be had here."""
    if not is_signing(settings):
        return None
    try:
        return find_signer(settings, state_dir)
    except RushesError:
        return None


def anchored(head: Head, at: str, signer: Signer | PemSigner | None = None) -> Anchor:
    """The head as an anchor. Raises what the signer raises."""
    anchor = Anchor(log=head.log, position=head.position, hash=head.hash, at=at)
    if signer is None:
        return anchor
    signature = _signature(signer, anchor.signed) if isinstance(signer, PemSigner) else signer.sign(anchor.signed)
    told = {
        "algorithm": signer.algorithm,
        "certificates": signer.certificates,
        "signature": base64.b64encode(signature).decode(),
    }
    return anchor.model_copy(update=told)


def signed_by(anchor: Anchor) -> str:
    """Whose certificate it carries; empty where it is not signed, or that cannot be read."""
    try:
        return subject_of(anchor.certificates) if anchor.signature else ""
    except RushesError:
        return ""


def trouble(anchor: Anchor, trust_anchors: str | None = None) -> str | None:
    """Why an anchor is not to be believed; None where nothing speaks against it. One without a signature is believed
    unless `trust_anchors`, authorities in PEM, are given: then one of them must vouch for its signer.

    Raises ConfigError without the `trust` extra, where there is a signature to check.
    """
    if not anchor.signature:
        return None if trust_anchors is None else "it is not signed"
    x509, invalid = library("cryptography.x509"), library("cryptography.exceptions").InvalidSignature
    authorities = None if trust_anchors is None else x509.load_pem_x509_certificates(trust_anchors.encode())
    try:
        chain = x509.load_pem_x509_certificates(anchor.certificates.encode())
        _verify(chain[0].public_key(), anchor.algorithm, base64.b64decode(anchor.signature), anchor.signed)
        if authorities is None or _is_vouched(chain, authorities, anchor.at):
            return None
    except invalid:
        return "its signature is not of what it says"
    except Exception as error:  # whoever forged it wrote what he liked, and the library raises what it likes
        return f"its signature cannot be checked: {error}"
    return f"no authority that was given vouches for {signed_by(anchor)!r}"


def _signature(signer: PemSigner, data: bytes) -> bytes:
    asymmetric = "cryptography.hazmat.primitives.asymmetric"
    key = library("cryptography.hazmat.primitives.serialization").load_pem_private_key(
        signer.private_key.encode(), None
    )
    if signer.algorithm == "ed25519":
        return bytes(key.sign(data))
    if signer.algorithm in _ECDSA:
        r, s = library(f"{asymmetric}.utils").decode_dss_signature(
            key.sign(data, library(f"{asymmetric}.ec").ECDSA(_hash(signer.algorithm)))
        )
        size = _ECDSA[signer.algorithm]
        return bytes(r.to_bytes(size, "big") + s.to_bytes(size, "big"))
    return bytes(key.sign(data, _pss(signer.algorithm), _hash(signer.algorithm)))


def _verify(key: Any, algorithm: str, signature: bytes, data: bytes) -> None:
    """Raises InvalidSignature, and ValueError for an algorithm that there is not."""
    asymmetric = "cryptography.hazmat.primitives.asymmetric"
    if algorithm == "ed25519":
        key.verify(signature, data)
    elif algorithm in _ECDSA:
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        der = library(f"{asymmetric}.utils").encode_dss_signature(r, s)
        key.verify(der, data, library(f"{asymmetric}.ec").ECDSA(_hash(algorithm)))
    elif algorithm.startswith("ps"):
        key.verify(signature, data, _pss(algorithm), _hash(algorithm))
    else:
        raise ValueError(f"unknown algorithm {algorithm!r}")


def _hash(algorithm: str) -> Any:
    name = _HASHES.get(algorithm[2:])
    if name is None:
        raise ValueError(f"unknown algorithm {algorithm!r}")
    return getattr(library("cryptography.hazmat.primitives.hashes"), name)()


def _pss(algorithm: str) -> Any:
    padding = library("cryptography.hazmat.primitives.asymmetric.padding")
    return padding.PSS(padding.MGF1(_hash(algorithm)), _hash(algorithm).digest_size)


def _is_vouched(chain: list[Any], authorities: list[Any], at: str) -> bool:
    """Whether a chain of certificates, all in force then, leads from the first to an authority."""
    exceptions = library("cryptography.exceptions")
    invalid, unsupported = exceptions.InvalidSignature, exceptions.UnsupportedAlgorithm
    then = datetime.datetime.fromisoformat(at)
    if any(not one.not_valid_before_utc <= then <= one.not_valid_after_utc for one in chain):
        return False

    def issued(one: Any, by: Any) -> bool:
        try:
            one.verify_directly_issued_by(by)
        except (ValueError, TypeError, invalid, unsupported):
            return False
        return True

    for place, one in enumerate(chain):
        if one in authorities or any(issued(one, authority) for authority in authorities):
            return True
        if place + 1 == len(chain) or not issued(one, chain[place + 1]):
            return False
    return False


def check_authorities(text: str | None) -> str | None:
    """Authorities in PEM, as they were given. ConfigError where they are none."""
    if text is not None:
        try:
            library("cryptography.x509").load_pem_x509_certificates(text.encode())
        except ValueError as error:
            raise ConfigError(f"--trust-anchors: no certificates in PEM: {error}") from error
    return text
